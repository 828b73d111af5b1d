//! Models over HTTP, as OpenAI's clients ask for them, with a page to write on.

mod answer;
mod api_error;
mod app;
mod batcher;
mod chat;
mod completions;
mod connections;
mod embeddings;
mod events;
mod guard;
mod listing;
mod logprobs;
mod meters;
mod object;
mod options;
mod reading;
mod request;
mod row;
mod served;
mod state_routes;
mod states;
mod turns;

pub use served::ServedModel;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

use self::api_error::ApiError;
use self::app::App;
use self::batcher::BatcherLimits;
use self::connections::{ConnectionLimits, accept};
use self::meters::Meters;
use self::served::Desk;
use self::states::StateStore;
use crate::{Error, Result};

/// Options of a [`Server`].
#[derive(Clone)]
pub struct ServeConfig {
    /// Texts of a model that are written at once.
    pub max_streams: usize,
    /// Texts of a model that wait for a place; more are refused.
    pub queue: usize,
    /// Tokens of prompts that are read between two steps of the texts that are written: nobody waits longer.
    pub prefill_tokens: usize,
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// Most bytes of a request.
    pub max_body: usize,
    /// Connections that are open at once.
    pub max_connections: usize,
    /// Time in which a request's head must come, and in which a client must take something of an answer.
    pub patience: Duration,
    /// Time that is left to what is being written when the server stops.
    pub grace: Duration,
    /// States that are kept for later requests.
    pub max_states: usize,
    /// Time for which they are kept.
    pub state_age: Duration,
    /// A folder that keeps them over restarts.
    pub state_dir: Option<PathBuf>,
    /// Keys of which a request needs one; none for a server that is open to all.
    pub api_keys: Vec<String>,
    /// Names by which the server may be asked; any if `None`.
    pub hosts: Option<Vec<String>>,
    /// Origins whose pages may use the server beside its own, `*` for all.
    pub origins: Vec<String>,
    /// Threads that speak HTTP.
    pub http_threads: usize,
    /// 32 bytes that nobody knows: names of states, and seeds of requests that have none, follow from them.
    pub secret: [u8; 32],
    /// Takes a record of each request as its answer begins.
    pub log: Option<AccessLog>,
}

/// Takes records of requests.
pub type AccessLog = Arc<dyn Fn(&AccessRecord) + Send + Sync>;

/// A request that was answered. It holds nothing of prompts and answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccessRecord {
    /// Whoever asked.
    pub peer: Option<String>,
    /// `GET`, `POST`.
    pub method: String,
    /// The path.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
    /// Seconds until the answer began.
    pub seconds: f64,
    /// All about a fault of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct PeerAddress(SocketAddr);

impl fmt::Debug for ServeConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // neither keys nor the secret
        f.debug_struct("ServeConfig")
            .field("max_streams", &self.max_streams)
            .field("queue", &self.queue)
            .field("prefill_tokens", &self.prefill_tokens)
            .finish_non_exhaustive()
    }
}

impl ServeConfig {
    /// The usual options, for a server on loopback, with a secret of the caller's.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            max_streams: 1024,
            queue: 1024,
            prefill_tokens: 256,
            max_tokens: 65_536,
            max_body: 2 << 20,
            max_connections: 4096,
            patience: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            max_states: 256,
            state_age: Duration::from_secs(24 * 3600),
            state_dir: None,
            api_keys: Vec::new(),
            hosts: Some(["localhost", "127.0.0.1", "[::1]"].map(String::from).to_vec()),
            origins: Vec::new(),
            http_threads: 1,
            secret,
            log: None,
        }
    }

    fn check(&self) -> Result<()> {
        for (field, value, most) in [
            ("max_streams", self.max_streams, 1 << 16),
            ("prefill_tokens", self.prefill_tokens, 1 << 20),
            ("max_connections", self.max_connections, 1 << 20),
            ("http_threads", self.http_threads, 1 << 10),
        ] {
            let expected = format!("a number from 1 to {most}");
            Error::require((1..=most).contains(&value), field, &expected, value)?;
        }
        let expected = format!("at most {}", 1 << 20);
        Error::require(self.queue <= 1 << 20, "queue", &expected, self.queue)?;
        let is_header = |origin: &String| HeaderValue::from_str(origin).is_ok();
        match self.origins.iter().find(|origin| !is_header(origin)) {
            Some(origin) => Err(Error::invalid("origin", "as https://example.org", origin)),
            None => Ok(()),
        }
    }
}

/// Models over HTTP.
///
/// Each model has a thread that owns the states of all its texts; they join and leave its running batch at any step. A text
/// is the same alone and among others: its prompt, options and seed decide (on AMX, batches of bf16 add in another order).
///
/// # Example
///
/// ```
/// use std::io::{Read, Write};
/// use candle_tcn::LoadedModel;
/// use candle_tcn::nn::StepDtype;
/// use candle_tcn::serve::{ServeConfig, ServedModel, Server};
///
/// let loaded = LoadedModel::load("models/kjv-tiny")?;
/// let model = ServedModel::new("kjv", loaded, StepDtype::F32)?;
/// let server = Server::bind(ServeConfig::new([7; 32]), vec![model], ("127.0.0.1", 0))?;
/// let (address, stopper) = (server.address(), server.stopper());
/// let serving = std::thread::spawn(move || server.run());
///
/// let mut answer = String::new();
/// let mut peer = std::net::TcpStream::connect(address).expect("a connection");
/// write!(peer, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
/// peer.read_to_string(&mut answer).expect("an answer");
/// assert!(answer.ends_with(r#"{"status":"ok"}"#));
/// stopper.stop();
/// serving.join().expect("no panic")?;
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    cut: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
}

/// Stops a [`Server`].
#[derive(Debug, Clone)]
pub struct ServerStopper(watch::Sender<bool>);

impl ServerStopper {
    /// No more connections are accepted; what is being written may end within the grace.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Binds an address, port 0 for any that is free, and begins the models' threads.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options out of range, no model, or two of one name; [`Error::Io`] naming the address that
    /// cannot be bound.
    pub fn bind(
        config: ServeConfig,
        models: Vec<ServedModel>,
        (host, port): (&str, u16),
    ) -> Result<Self> {
        config.check()?;
        Error::require(!models.is_empty(), "models", "at least one", "none")?;
        let io = |source| Error::Io { path: format!("{host}:{port}").into(), source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.http_threads)
            .enable_all()
            .thread_name("http")
            .build()
            .map_err(io)?;
        let listener = runtime.block_on(TcpListener::bind((host, port))).map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        let mut names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        names.sort_unstable();
        Error::require(!names.contains(&""), "models", "names of models", "an empty one")?;
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(Error::invalid("models", "each name once", format!("{name} twice")));
        }
        let meters = Arc::new(Meters::new());
        let cut = Arc::new(AtomicBool::new(false));
        let limits = BatcherLimits {
            max_streams: config.max_streams,
            prefill_tokens: config.prefill_tokens,
        };
        let desks = models.into_iter().map(|model| {
            let of_model = Arc::new(meters.model(&model.name));
            let (stop, handle) = (cut.clone(), runtime.handle().clone());
            Desk::open(Arc::new(model), (limits, config.queue), of_model, stop, handle)
        });
        let desks = desks.collect::<Result<Vec<_>>>()?;
        let (most, age) = (config.max_states, config.state_age);
        let states = StateStore::new(most, age, config.state_dir.clone(), meters.clone());
        let app = App::new(config, desks, meters, states);
        let stop = watch::Sender::new(false);
        Ok(Self { runtime, listener, address, app, cut, stop })
    }

    /// The address, with the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops this server from another thread.
    pub fn stopper(&self) -> ServerStopper {
        ServerStopper(self.stop.clone())
    }

    /// Answers until it is stopped.
    ///
    /// # Errors
    /// None at present: what goes wrong with a connection ends that connection.
    pub fn run(self) -> Result<()> {
        let Self { runtime, listener, app, cut, stop, .. } = self;
        let limits =
            ConnectionLimits { most: app.config.max_connections, patience: app.config.patience };
        let (grace, meters) = (app.config.grace, app.meters.clone());
        let router = router(app);
        runtime.block_on(async move {
            let mut stopped = stop.subscribe();
            let accepting = accept(listener, router, limits, meters, stop.subscribe());
            let mut accepting = std::pin::pin!(accepting);
            let timer = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
                tokio::time::sleep(grace).await;
            };
            tokio::select! {
                () = accepting.as_mut() => return,
                () = timer => cut.store(true, Ordering::Relaxed),
            }
            // the texts end where they are; whoever does not take that in time is cut
            let _ = tokio::time::timeout(Duration::from_secs(2), accepting).await;
        });
        runtime.shutdown_timeout(Duration::from_secs(2));
        Ok(())
    }
}

fn router(app: App) -> Router {
    let app = Arc::new(app);
    let patience = app.config.patience;
    let allowed = app.config.origins.clone();
    let mut router = Router::new()
        .route("/", get(listing::page))
        .route("/health", get(listing::health))
        .route("/metrics", get(listing::metrics))
        .route("/openapi.json", get(listing::openapi))
        .route("/v1/models", get(listing::models))
        .route("/v1/models/{*id}", get(listing::model))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/states", post(state_routes::keep_state).get(state_routes::list_states))
        .route("/v1/states/{id}", delete(state_routes::forget_state))
        .method_not_allowed_fallback(|| async {
            ApiError::of_status(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .fallback(|| async { ApiError::not_found("path_not_found", "there is no such path") })
        .layer(DefaultBodyLimit::max(app.config.max_body))
        .layer(RequestBodyTimeoutLayer::new(patience));
    if !allowed.is_empty() {
        let origins = AllowOrigin::predicate(move |origin: &HeaderValue, _| {
            allowed.iter().any(|known| known == "*" || origin == known.as_str())
        });
        let headers: [HeaderName; 2] = [header::AUTHORIZATION, header::CONTENT_TYPE];
        let cors = CorsLayer::new().allow_origin(origins).allow_headers(headers);
        router = router.layer(cors.allow_methods([Method::GET, Method::POST, Method::DELETE]));
    }
    router.layer(from_fn_with_state(app.clone(), guard::guard)).with_state(app)
}
