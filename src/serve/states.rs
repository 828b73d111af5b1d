//! `/v1/states`: what a model has read, kept for later requests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{Path as UrlPath, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api_error::{ApiError, ApiJson, ErrorBody};
use super::app::{App, Ask, Client};
use super::completions::PromptInput;
use super::meters::Meters;
use super::request::{Reply, Wanted};
use super::served::ServedModel;
use crate::generate::{Context, GenerateConfig, Generator};
use crate::{AtPath, Result};

/// States that are kept: so many, so long, in memory and perhaps in files.
#[derive(Debug)]
pub(super) struct StateStore {
    states: Mutex<HashMap<String, StoredState>>,
    most: usize,
    age: Duration,
    /// A folder for each model, a file for each state.
    dir: Option<PathBuf>,
    meters: Arc<Meters>,
}

#[derive(Debug, Clone)]
struct StoredState {
    model: String,
    context: Arc<Context>,
    stored: SystemTime,
}

/// A request for a state to be kept.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StateRequest {
    /// What is read: one text, or its tokens.
    prompt: PromptInput,
    /// The model's name; the server's first one if absent.
    #[serde(default)]
    model: Option<String>,
    /// A state after which the prompt is read.
    #[serde(default)]
    state: Option<String>,
}

/// A state that is kept.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct StateInfo {
    /// The name by which requests go on from it: the field `state`.
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// When it is forgotten, in seconds since 1970.
    expires: u64,
    model: String,
    /// Memory that it takes.
    bytes: usize,
}

/// The states that are kept.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateList {
    object: &'static str,
    data: Vec<StateInfo>,
}

/// A state that was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateDeleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl StateStore {
    pub fn new(most: usize, age: Duration, dir: Option<PathBuf>, meters: Arc<Meters>) -> Self {
        let store = Self { states: Mutex::default(), most, age, dir, meters };
        store.forget_old_files();
        store
    }

    /// Removes the files of states that are too old, and the oldest of too many, as an earlier server left them.
    fn forget_old_files(&self) {
        for folder in self.dir.iter().flat_map(entries).filter(|folder| folder.is_dir()) {
            let mut files: Vec<_> = entries(&folder)
                .into_iter()
                .filter(|file| self.is_state(file))
                .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file)))
                .collect();
            files.sort();
            let excess = files.len().saturating_sub(self.most);
            for (i, (written, file)) in files.into_iter().enumerate() {
                if i < excess || written.elapsed().is_ok_and(|age| age > self.age) {
                    // one that stays is found too old when it is asked for
                    let _ = std::fs::remove_file(file);
                }
            }
        }
    }

    fn is_state(&self, file: &Path) -> bool {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        stem.is_some_and(is_id) && file.extension().is_some_and(|end| end == "safetensors")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, StoredState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of this name, from memory or from its file.
    pub async fn get(&self, id: &str, model: &Arc<ServedModel>) -> Result<Arc<Context>, ApiError> {
        self.forget_old();
        let known = self.lock().get(id).map(|state| (state.model.clone(), state.context.clone()));
        match known {
            Some((of, context)) if of == model.name => return Ok(context),
            Some((of, _)) => {
                let message = format!("is of the model {of}, not of {}", model.name);
                return Err(ApiError::field("state", message));
            }
            None => {}
        }
        let path = self.path(&model.name, id).ok_or_else(|| unknown(id))?;
        let stored = path.metadata().and_then(|data| data.modified()).map_err(|_| unknown(id))?;
        if stored.elapsed().is_ok_and(|age| age > self.age) {
            return Err(unknown(id));
        }
        let (of_task, file) = (model.clone(), path.clone());
        let read = tokio::task::spawn_blocking(move || load(&of_task, &file));
        let context = read.await.map_err(|error| ApiError::internal(error.to_string()))?;
        let context =
            Arc::new(context.map_err(|error| ApiError::field("state", error.to_string()))?);
        let state = StoredState { model: model.name.clone(), context: context.clone(), stored };
        self.lock().insert(id.to_string(), state);
        self.forget_old();
        Ok(context)
    }

    /// Keeps a state; the oldest one makes room.
    async fn put(
        &self,
        id: &str,
        model: &Arc<ServedModel>,
        context: Arc<Context>,
    ) -> Result<StateInfo, ApiError> {
        if let Some(path) = self.path(&model.name, id) {
            let (of_task, context) = (model.clone(), context.clone());
            let written = tokio::task::spawn_blocking(move || save(&of_task, &context, &path));
            let written = written.await.map_err(|error| ApiError::internal(error.to_string()))?;
            written.map_err(|error| {
                ApiError::internal(format!("the state could not be kept: {error}"))
            })?;
        }
        let state = StoredState { model: model.name.clone(), context, stored: SystemTime::now() };
        let info = self.info(id, &state);
        self.lock().insert(id.to_string(), state);
        self.forget_old();
        Ok(info)
    }

    fn info(&self, id: &str, state: &StoredState) -> StateInfo {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
        };
        StateInfo {
            id: id.to_string(),
            object: "state",
            created: seconds(state.stored),
            expires: seconds(state.stored + self.age),
            model: state.model.clone(),
            bytes: state.context.bytes(),
        }
    }

    /// Forgets what is too old, and the oldest of too many.
    fn forget_old(&self) {
        let mut gone = Vec::new();
        {
            let mut states = self.lock();
            let is_old =
                |state: &StoredState| state.stored.elapsed().is_ok_and(|age| age > self.age);
            let mut order: Vec<_> = states
                .iter()
                .map(|(id, state)| (state.stored, is_old(state), id.clone()))
                .collect();
            order.sort();
            let excess = order.len().saturating_sub(self.most);
            for (i, (_, old, id)) in order.into_iter().enumerate() {
                if old || i < excess {
                    gone.extend(states.remove(&id).map(|state| (state.model, id)));
                }
            }
            self.meters.stored_states.set(states.len() as i64);
        }
        for (model, id) in gone {
            self.remove_file(&model, &id);
        }
    }

    /// `true` if there was a file.
    fn remove_file(&self, model: &str, id: &str) -> bool {
        // one that stays is found too old when it is asked for
        self.path(model, id).is_some_and(|path| std::fs::remove_file(path).is_ok())
    }

    /// The file of a state; none for names that no state has.
    fn path(&self, model: &str, id: &str) -> Option<PathBuf> {
        let folder: String =
            model.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let dir = self.dir.as_ref().filter(|_| is_id(id))?;
        Some(dir.join(folder).join(format!("{id}.safetensors")))
    }
}

fn unknown(id: &str) -> ApiError {
    let message = format!("there is no state {id:?}, or not any more");
    ApiError::not_found("state_not_found", message)
}

/// `true` for a name as states have it: nothing else becomes a part of a path.
fn is_id(name: &str) -> bool {
    let digits = name.strip_prefix("state-").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What lies in a folder; nothing where there is none.
fn entries(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn generator(model: &ServedModel) -> Result<Generator<'_>> {
    let none = || crate::Error::invalid("model", "one that writes", "one that only embeds");
    let stepper = model.stepper.as_ref().ok_or_else(none)?;
    Generator::new(stepper, &model.tokenizer, GenerateConfig::default())
}

fn load(model: &ServedModel, path: &Path) -> Result<Context> {
    let mut generator = generator(model)?;
    generator.load_state(path)?;
    Ok(generator.context().clone())
}

fn save(model: &ServedModel, context: &Context, path: &Path) -> Result<()> {
    let mut generator = generator(model)?;
    generator.go_on_after(context)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).at(folder)?;
    }
    generator.save_state(path)
}

/// Keep the state after a prompt
#[utoipa::path(
    post, path = "/v1/states", tag = "states", request_body = StateRequest,
    responses(
        (status = 200, description = "The state's name", body = StateInfo),
        (status = "4XX", description = "The request's fault", body = ErrorBody),
        (status = "5XX", description = "The server's fault", body = ErrorBody),
    )
)]
pub(super) async fn keep_state(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    ApiJson(request): ApiJson<StateRequest>,
) -> Result<Json<StateInfo>, ApiError> {
    let desk = app.desk(request.model.as_deref())?;
    let start = match &request.state {
        Some(id) => Some(app.states.get(id, &desk.model).await?),
        None => None,
    };
    let prompt = match &request.prompt {
        PromptInput::Text(text) => app.encode(&desk.model.tokenizer, text)?,
        PromptInput::Tokens(ids) if !ids.is_empty() => ids.clone(),
        _ => return Err(ApiError::field("prompt", "expected one text or its tokens")),
    };
    if prompt.is_empty() {
        return Err(ApiError::field("prompt", "expected text, found none"));
    }
    let asked = Ask { start, prompt, config: GenerateConfig::default(), wanted: Wanted::State };
    let mut replies = app.ask(desk, &client, vec![asked])?;
    match super::answer::expect_part(replies.recv().await)? {
        Reply::State(context) => {
            let id = app.id("state");
            Ok(Json(app.states.put(&id, &desk.model, context).await?))
        }
        _ => Err(ApiError::internal("expected a state from the model's thread")),
    }
}

/// The states that are kept in memory
#[utoipa::path(get, path = "/v1/states", tag = "states",
    responses((status = 200, description = "States", body = StateList)))]
pub(super) async fn list_states(State(app): State<Arc<App>>) -> Json<StateList> {
    app.states.forget_old();
    let states = app.states.lock().clone();
    let mut data: Vec<_> = states.iter().map(|(id, state)| app.states.info(id, state)).collect();
    data.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Json(StateList { object: "list", data })
}

/// Forget a state
#[utoipa::path(delete, path = "/v1/states/{id}", tag = "states",
    params(("id" = String, Path, description = "The state's name")),
    responses(
        (status = 200, description = "It is forgotten", body = StateDeleted),
        (status = 404, description = "There is none", body = ErrorBody),
    ))]
pub(super) async fn forget_state(
    State(app): State<Arc<App>>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<StateDeleted>, ApiError> {
    let in_memory = app.states.lock().remove(&id).is_some();
    let models = app.desks.iter().map(|desk| &desk.model.name);
    let in_files = models.filter(|name| app.states.remove_file(name, &id)).count() > 0;
    app.states.forget_old();
    match in_memory || in_files {
        true => Ok(Json(StateDeleted { id, object: "state", deleted: true })),
        false => Err(unknown(&id)),
    }
}
