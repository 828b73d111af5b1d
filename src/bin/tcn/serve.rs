//! `tcn serve`: models over HTTP.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use candle_tcn::AtPath;
use candle_tcn::serve::{AccessLog, AccessRecord, ServeConfig, ServedModel, Server};
use clap::ValueEnum;

use crate::flags::{Dtype, count};
use crate::{model, print_line, signals, usage_error};

/// The name of the built-in model.
const BUILT_IN: &str = "kjv-tiny";

#[derive(clap::Args)]
pub struct ServeArgs {
    /// A model directory, or org/name[@revision] on the Hub, under its own name or as NAME=MODEL; may be given several
    /// times (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,
    /// Address to listen at; others than loopback need --api-key or --open
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at, 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Number format of the weights
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,
    /// Texts of a model that are written at once
    #[arg(long, value_name = "N", value_parser = count, default_value = "1024")]
    max_streams: usize,
    /// Texts of a model that wait for a place; more are refused
    #[arg(long, value_name = "N", default_value_t = 1024)]
    queue: usize,
    /// Tokens of prompts that are read between two steps of the texts that are written
    #[arg(long, value_name = "N", value_parser = count, default_value = "256")]
    prefill_tokens: usize,
    /// Most tokens of a text
    #[arg(long, value_name = "N", value_parser = count, default_value = "65536")]
    max_tokens: usize,
    /// Most bytes of a request
    #[arg(long, value_name = "BYTES", value_parser = count, default_value = "2097152")]
    max_body: usize,
    /// Connections that are open at once
    #[arg(long, value_name = "N", value_parser = count, default_value = "4096")]
    max_connections: usize,
    /// Seconds in which a request must come, and in which a client must take something of an answer
    #[arg(long, value_name = "SECONDS", value_parser = count, default_value = "30")]
    timeout: usize,
    /// Seconds that texts have to end when the server stops
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,
    /// States that are kept for later requests (/v1/states)
    #[arg(long, value_name = "N", value_parser = count, default_value = "256")]
    max_states: usize,
    /// Hours for which they are kept
    #[arg(long, value_name = "HOURS", value_parser = count, default_value = "24")]
    state_age: usize,
    /// Keep them in this folder too, over restarts and for several servers
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A key that requests must give (Authorization: Bearer KEY); may be given several times
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file of such keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Serve others than this machine without a key
    #[arg(long, conflicts_with_all = ["api_key", "api_key_file"])]
    open: bool,
    /// A name under which the server is known, such as that of a proxy; may be given several times
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Pages of this origin may use the server, * for all; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Form of the lines about requests on standard error; they hold no text
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
}

/// A form of the access log.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// None
    Off,
}

pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let api_keys = args.keys()?;
    let is_loopback = args.is_loopback();
    if !is_loopback && api_keys.is_empty() && !args.open {
        bail_usage!(
            "--host: {} can be reached by others; expected --api-key KEY, or --open to serve everybody",
            args.host
        );
    }
    if let Some(dir) = &args.state_dir {
        std::fs::create_dir_all(dir).at(dir)?;
    }
    signals::keep_signals("stopping; what is being written may end")?;
    let models = args.models()?;
    let described = models.iter().map(|model| model.name.clone()).collect::<Vec<_>>().join(", ");
    let bound = Server::bind(args.config(api_keys)?, models, (&args.host, args.port));
    let server = bound.map_err(|error| args.explain(error))?;
    print_line(format_args!("http://{}", server.address()))?;
    say!("serving {described}; Ctrl-C stops");
    let stopper = server.stopper();
    std::thread::spawn(move || {
        while !signals::has_come() {
            std::thread::sleep(Duration::from_millis(50));
        }
        stopper.stop();
    });
    Ok(server.run()?)
}

impl ServeArgs {
    fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        address.map_or(self.host == "localhost", |address| address.is_loopback())
    }

    fn explain(&self, error: candle_tcn::Error) -> anyhow::Error {
        match error {
            candle_tcn::Error::Io { source, .. } if source.kind() == ErrorKind::AddrInUse => {
                usage_error(format!(
                    "--port: {} is in use at {}; choose another one, or 0 for any that is free",
                    self.port, self.host
                ))
            }
            other => other.into(),
        }
    }

    fn keys(&self) -> anyhow::Result<Vec<String>> {
        let mut keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let text = std::fs::read_to_string(path).at(path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            keys.extend(lines.map(String::from));
            if keys.is_empty() {
                bail_usage!("--api-key-file: {} holds no key", path.display());
            }
        }
        if keys.iter().any(|key| key.trim().is_empty()) {
            bail_usage!("--api-key: expected a key, found an empty one");
        }
        Ok(keys)
    }

    fn models(&self) -> anyhow::Result<Vec<ServedModel>> {
        let built_in = [None];
        let given: Vec<Option<&String>> = match self.model.is_empty() {
            true => built_in.to_vec(),
            false => self.model.iter().map(Some).collect(),
        };
        let served = given.into_iter().map(|given| {
            let (name, place) = given.map_or((BUILT_IN.to_string(), None), |given| name_of(given));
            let loaded = model::load(place.as_deref())?;
            let dtype = self.dtype.step_of(&loaded);
            anyhow::Ok(ServedModel::new(name, loaded, dtype)?)
        });
        served.collect()
    }

    fn config(&self, api_keys: Vec<String>) -> anyhow::Result<ServeConfig> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let usual = ServeConfig::new(secret);
        let hosts = match (self.is_loopback(), self.allow_host.is_empty()) {
            // others know this machine by names that it does not
            (false, true) => None,
            _ => Some(usual.hosts.iter().flatten().chain(&self.allow_host).cloned().collect()),
        };
        Ok(ServeConfig {
            max_streams: self.max_streams,
            queue: self.queue,
            prefill_tokens: self.prefill_tokens,
            max_tokens: self.max_tokens,
            max_body: self.max_body,
            max_connections: self.max_connections,
            patience: Duration::from_secs(self.timeout as u64),
            grace: Duration::from_secs(self.grace),
            max_states: self.max_states,
            state_age: Duration::from_secs(3600).saturating_mul(self.state_age.min(1 << 20) as u32),
            state_dir: self.state_dir.clone(),
            api_keys,
            hosts,
            origins: self.allow_origin.clone(),
            http_threads: rayon::current_num_threads().min(4),
            log: self.log(),
            ..usual
        })
    }

    fn log(&self) -> Option<AccessLog> {
        let write: fn(&AccessRecord) = match self.log {
            LogForm::Off => return None,
            LogForm::Json => |record| say!("{}", serde_json::json!(record)),
            LogForm::Text => |record| {
                let fault = record.fault.iter().map(|fault| format!(": {fault}"));
                say!(
                    "{} {} {} {} {:.1} ms{}",
                    record.peer.as_deref().unwrap_or("-"),
                    record.method,
                    record.path,
                    record.status,
                    1e3 * record.seconds,
                    fault.collect::<String>()
                );
            },
        };
        Some(Arc::new(write))
    }
}

/// The name of a model and its place: `NAME=MODEL`, or the last part of the place.
fn name_of(given: &str) -> (String, Option<String>) {
    if let Some((name, place)) = given.split_once('=').filter(|_| !Path::new(given).exists()) {
        return (name.to_string(), Some(place.to_string()));
    }
    let own = || Path::new(given).file_name().map(|name| name.to_string_lossy().into_owned());
    // a model on the Hub is known by its whole name
    let name = match Path::new(given).exists() {
        true => own().filter(|name| !name.is_empty()).unwrap_or_else(|| given.to_string()),
        false => given.to_string(),
    };
    (name, Some(given.to_string()))
}
