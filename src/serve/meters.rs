//! Counts and times, as text for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    route: String,
    status: u16,
}

/// Figures of a model.
#[derive(Debug)]
pub(super) struct ModelMeters {
    pub prompt_tokens: Counter,
    pub tokens: Counter,
    pub streams: Gauge,
    pub state_bytes: Gauge,
    pub batch: Histogram,
    pub step: Histogram,
    pub first_token: Histogram,
}

/// Those of all models.
#[derive(Debug, Clone)]
struct AllModels {
    prompt_tokens: Family<OfModel, Counter>,
    tokens: Family<OfModel, Counter>,
    streams: Family<OfModel, Gauge>,
    state_bytes: Family<OfModel, Gauge>,
    batch: Histograms,
    step: Histograms,
    first_token: Histograms,
}

type Histograms = Family<OfModel, Histogram, fn() -> Histogram>;

/// Figures of the server.
#[derive(Debug)]
pub(super) struct Meters {
    registry: Registry,
    requests: Family<OfRequest, Counter>,
    pub connections: Gauge,
    pub stored_states: Gauge,
    pub places: Gauge,
    models: AllModels,
}

impl Meters {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tcn");
        let requests = Family::<OfRequest, Counter>::default();
        let [connections, stored_states, places] = std::array::from_fn(|_| Gauge::default());
        registry.register("requests", "Requests answered", requests.clone());
        registry.register("connections", "Connections that are open", connections.clone());
        registry.register("stored_states", "States kept for later requests", stored_states.clone());
        registry.register("places", "Texts that are written or wait", places.clone());
        let models = AllModels::register(&mut registry);
        Self { registry, requests, connections, stored_states, places, models }
    }

    pub fn model(&self, name: &str) -> ModelMeters {
        let (all, labels) = (&self.models, OfModel { model: name.to_string() });
        ModelMeters {
            prompt_tokens: all.prompt_tokens.get_or_create(&labels).clone(),
            tokens: all.tokens.get_or_create(&labels).clone(),
            streams: all.streams.get_or_create(&labels).clone(),
            state_bytes: all.state_bytes.get_or_create(&labels).clone(),
            batch: all.batch.get_or_create(&labels).clone(),
            step: all.step.get_or_create(&labels).clone(),
            first_token: all.first_token.get_or_create(&labels).clone(),
        }
    }

    pub fn count_request(&self, route: &str, status: u16) {
        let labels = OfRequest { route: route.to_string(), status };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        // a String takes all that is written
        let written = encode(&mut text, &self.registry);
        debug_assert!(written.is_ok());
        text
    }
}

impl AllModels {
    fn register(registry: &mut Registry) -> Self {
        let sizes: fn() -> Histogram = || Histogram::new(exponential_buckets(1.0, 2.0, 13));
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 18));
        let all = Self {
            prompt_tokens: Family::default(),
            tokens: Family::default(),
            streams: Family::default(),
            state_bytes: Family::default(),
            batch: Family::new_with_constructor(sizes),
            step: Family::new_with_constructor(seconds),
            first_token: Family::new_with_constructor(seconds),
        };
        let Self { prompt_tokens, tokens, streams, state_bytes, batch, step, first_token } =
            all.clone();
        registry.register("prompt_tokens", "Tokens of prompts that were read", prompt_tokens);
        registry.register("tokens", "Tokens that were written", tokens);
        registry.register("streams", "Texts that are written now", streams);
        registry.register("state_bytes", "Memory of their states, in bytes", state_bytes);
        registry.register("batch_size", "Texts that a step goes on with", batch);
        registry.register("step_seconds", "Time of a step of all texts", step);
        registry.register("first_token_seconds", "From a request to its first token", first_token);
        all
    }
}
