//! Models, states and figures that all requests share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::ServeConfig;
use super::api_error::ApiError;
use super::meters::Meters;
use super::options::TextOptions;
use super::request::{Reply, TextRequest, TextWanted};
use super::served::Desk;
use super::states::StateStore;
use crate::generate::{Context, GenerateConfig};
use crate::text::Tokenizer;

/// Parts of an answer that wait for a slow client, before they are put together.
const PARTS: usize = 32;

/// Models, states and figures that all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub config: ServeConfig,
    pub desks: Vec<Desk>,
    pub meters: Arc<Meters>,
    pub states: StateStore,
    /// The place of the request whose vectors are computed.
    pub embedding: Arc<Semaphore>,
    pub created: u64,
    draws: Mutex<ChaCha8Rng>,
    /// Names by which the models are asked for.
    names: HashMap<String, usize>,
}

/// Whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Client(pub String);

impl Client {
    /// One of its users.
    pub fn of_user(&self, user: Option<&str>) -> Self {
        Self(user.map_or_else(|| self.0.clone(), |user| format!("{} {user}", self.0)))
    }
}

/// One prompt, and what is asked of a model about it.
pub(super) struct Ask {
    pub start: Option<Arc<Context>>,
    pub prompt: Vec<u32>,
    pub config: GenerateConfig,
    pub wanted: TextWanted,
}

impl App {
    pub fn new(
        config: ServeConfig,
        desks: Vec<Desk>,
        meters: Arc<Meters>,
        states: StateStore,
    ) -> Self {
        let names =
            desks.iter().enumerate().map(|(i, desk)| (desk.model.name.clone(), i)).collect();
        Self {
            draws: Mutex::new(ChaCha8Rng::from_seed(config.secret)),
            config,
            desks,
            meters,
            states,
            embedding: Arc::new(Semaphore::new(1)),
            created: now(),
            names,
        }
    }

    /// The model of this name; without one the first that writes, or `embeds`.
    pub fn desk(&self, name: Option<&str>) -> Result<&Desk, ApiError> {
        let Some(name) = name else {
            let first = self.desks.iter().find(|desk| desk.writes()).or(self.desks.first());
            return first.ok_or_else(|| ApiError::internal("there is no model"));
        };
        let desk = self.names.get(name).map(|&i| &self.desks[i]);
        desk.ok_or_else(|| {
            let known: Vec<&str> = self.desks.iter().map(|desk| desk.model.name.as_str()).collect();
            let message = format!("there is no model {name:?}; there is {}", known.join(", "));
            ApiError::not_found("model_not_found", message)
        })
    }

    /// The model and the state that a request names.
    pub async fn start(
        &self,
        model: Option<&str>,
        state: Option<&str>,
        client: &Client,
    ) -> Result<(&Desk, Option<Arc<Context>>), ApiError> {
        let desk = self.desk(model)?;
        let start = match state {
            Some(id) => Some(self.states.get(id, &desk.model, &client.0).await?),
            None => None,
        };
        Ok((desk, start))
    }

    /// The configuration of texts of `usual` tokens, where the request does not say how many.
    pub fn config(
        &self,
        desk: &Desk,
        options: &TextOptions,
        usual: u64,
    ) -> Result<GenerateConfig, ApiError> {
        let vocab_size = desk.model.loaded.config.vocab_size();
        options.config((usual, self.config.max_tokens as u64), vocab_size, self.seed())
    }

    /// A name that nobody can guess.
    pub fn id(&self, kind: &str) -> String {
        let (high, low) = {
            let mut draws = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
            (draws.next_u64(), draws.next_u64())
        };
        format!("{kind}-{high:016x}{low:016x}")
    }

    /// A seed for a request that has none.
    fn seed(&self) -> u64 {
        self.draws.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// The tokens of a prompt; names of special tokens in it are text like any other.
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ApiError> {
        Ok(tokenizer.encode_plain(text)?)
    }

    /// Gives the model's thread what is asked, if there are places for all of it. Parts of the answers come in any order.
    pub fn ask(
        &self,
        desk: &Desk,
        client: &Client,
        asked: Vec<Ask>,
    ) -> Result<mpsc::Receiver<Reply>, ApiError> {
        let (replies, parts) = mpsc::channel(PARTS);
        let mut requests = Vec::with_capacity(asked.len());
        for Ask { start, prompt, config, wanted } in asked {
            let rows = match wanted {
                TextWanted::Texts { count, .. } => count as usize,
                TextWanted::State => 1,
            };
            requests.push(TextRequest {
                client: client.0.clone(),
                start,
                prompt,
                config,
                wanted,
                replies: replies.clone(),
                places: self.take_places(desk, rows)?,
                received: Instant::now(),
            });
        }
        requests.into_iter().try_for_each(|request| desk.ask(request))?;
        Ok(parts)
    }

    /// Texts of a model that are written or wait at the most.
    pub fn places(&self) -> usize {
        self.config.max_streams + self.config.queue
    }

    fn take_places(&self, desk: &Desk, rows: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let most = self.config.max_streams;
        if rows > most {
            let message = format!("expected at most {most} texts at once, found {rows}");
            return Err(ApiError::field("n", message));
        }
        let places = desk.places.clone().try_acquire_many_owned(rows as u32);
        places.map_err(|_| ApiError::busy(RETRY_SECONDS))
    }
}

/// Seconds after which a client that found no place may try again.
const RETRY_SECONDS: u64 = 2;

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
