//! A model that is served, with the thread that writes its texts.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::api_error::ApiError;
use super::batcher::{Batcher, BatcherLimits};
use super::meters::ModelMeters;
use super::request::TextRequest;
use crate::files::hex;
use crate::models::Stepper;
use crate::nn::StepDtype;
use crate::text::{TokenBytes, Tokenizer};
use crate::{Error, LoadedModel, Result};

/// A model under the name by which it is asked for.
#[derive(Debug)]
pub struct ServedModel {
    /// The name.
    pub name: String,
    pub(super) loaded: LoadedModel,
    pub(super) tokenizer: Tokenizer,
    /// Of models that write.
    pub(super) stepper: Option<Stepper>,
    pub(super) token_bytes: Option<TokenBytes>,
    /// Tokens that its last step sees.
    pub(super) receptive_field: Option<usize>,
    /// Numbers that were trained.
    pub(super) parameters: usize,
}

impl ServedModel {
    /// A model with a tokenizer; a causal language model writes with weights of `dtype`, others only embed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network of frames; [`Error::File`] where it has no tokenizer.
    pub fn new(name: impl Into<String>, loaded: LoadedModel, dtype: StepDtype) -> Result<Self> {
        let tokenizer = loaded.tokenizer()?.clone();
        let writes = loaded.model.graph().expect_language_model().is_ok();
        let stepper = writes.then(|| loaded.model.stepper(dtype)).transpose()?;
        let field = loaded.config.geometry().and_then(|geometry| geometry.receptive_field());
        let parameters = loaded.model.graph().parameters().iter().filter(|one| one.trained);
        Ok(Self {
            name: name.into(),
            parameters: parameters.map(|one| one.shape.iter().product::<usize>()).sum(),
            token_bytes: tokenizer.token_bytes().ok(),
            receptive_field: field.ok().map(|field| field.total),
            loaded,
            tokenizer,
            stepper,
        })
    }

    /// Its weights' fingerprint, short.
    pub(super) fn fingerprint(&self) -> Option<String> {
        self.stepper.as_ref().map(|stepper| hex(&stepper.net().fingerprint()[..8]))
    }
}

/// The way to a model's thread.
#[derive(Debug)]
pub(super) struct Desk {
    pub model: Arc<ServedModel>,
    /// Places of texts that are written or wait.
    pub places: Arc<Semaphore>,
    requests: Option<mpsc::UnboundedSender<TextRequest>>,
}

impl Desk {
    /// Begins the thread of a model that writes.
    pub fn open(
        model: Arc<ServedModel>,
        (limits, queue): (BatcherLimits, usize),
        meters: Arc<ModelMeters>,
        stop: Arc<AtomicBool>,
        runtime: Handle,
    ) -> Result<Self> {
        let places = Arc::new(Semaphore::new(limits.max_streams + queue));
        if model.stepper.is_none() {
            return Ok(Self { model, places, requests: None });
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let of_thread = model.clone();
        let run = move || {
            if let Some(stepper) = &of_thread.stepper {
                let parts = (stepper, &of_thread.tokenizer);
                // an empty state takes no memory that there could be too little of
                if let Ok(batcher) = Batcher::new(parts, limits, receiver, meters, stop, runtime) {
                    batcher.run();
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("states of {}", model.name));
        thread
            .spawn(run)
            .map_err(|source| Error::Io { path: model.name.clone().into(), source })?;
        Ok(Self { model, places, requests: Some(sender) })
    }

    /// `true` if the model writes texts.
    pub fn writes(&self) -> bool {
        self.requests.is_some()
    }

    /// `false` if the thread of its texts has ended, which only a fault of this program makes it do.
    pub fn is_alive(&self) -> bool {
        self.requests.as_ref().is_none_or(|requests| !requests.is_closed())
    }

    pub fn ask(&self, request: TextRequest) -> Result<(), ApiError> {
        let Some(requests) = &self.requests else {
            let message = format!("{} writes no text, it only embeds", self.model.name);
            return Err(ApiError::field("model", message));
        };
        requests.send(request).map_err(|_| ApiError::stopping())
    }
}
