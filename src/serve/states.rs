//! States after prompts, kept for later requests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use utoipa::ToSchema;

use super::api_error::ApiError;
use super::meters::Meters;
use super::served::ServedModel;
use crate::files::sweep_temporaries;
use crate::generate::{Context, GenerateConfig, Generator};
use crate::{AtPath, Result};

/// Time in which a file is written, by whatever server.
const WRITTEN: Duration = Duration::from_secs(60);

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
    /// Whoever kept it, or was the first to ask for it after a restart.
    owner: String,
    context: Arc<Context>,
    stored: SystemTime,
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

impl StateStore {
    pub fn new(most: usize, age: Duration, dir: Option<PathBuf>, meters: Arc<Meters>) -> Self {
        let store = Self { states: Mutex::default(), most, age, dir, meters };
        store.forget_old_files();
        store
    }

    /// Removes what an earlier server left: files of states that are too old, the oldest of too many, and parts.
    fn forget_old_files(&self) {
        for folder in self.dir.iter().flat_map(entries).filter(|folder| folder.is_dir()) {
            sweep_temporaries(&folder, WRITTEN);
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
    pub async fn get(
        &self,
        id: &str,
        model: &Arc<ServedModel>,
        client: &str,
    ) -> Result<Arc<Context>, ApiError> {
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
        // of other weights, or not whole; the path is nothing to the client
        let context = Arc::new(context.map_err(|error| match error {
            crate::Error::File { message, .. } => ApiError::field("state", message),
            other => other.into(),
        })?);
        let state = StoredState {
            model: model.name.clone(),
            owner: client.to_string(),
            context: context.clone(),
            stored,
        };
        self.lock().insert(id.to_string(), state);
        self.forget_old();
        Ok(context)
    }

    /// Keeps a state; the oldest one makes room.
    pub async fn put(
        &self,
        id: &str,
        model: &Arc<ServedModel>,
        context: Arc<Context>,
        client: &str,
    ) -> Result<StateInfo, ApiError> {
        if let Some(path) = self.path(&model.name, id) {
            let (of_task, context) = (model.clone(), context.clone());
            let written = tokio::task::spawn_blocking(move || save(&of_task, &context, &path));
            written.await.map_err(|error| ApiError::internal(error.to_string()))??;
        }
        let (owner, stored) = (client.to_string(), SystemTime::now());
        let state = StoredState { model: model.name.clone(), owner, context, stored };
        let info = self.info(id, &state);
        self.lock().insert(id.to_string(), state);
        self.forget_old();
        Ok(info)
    }

    /// Those of a client in memory, the oldest first.
    pub fn list(&self, client: &str) -> Vec<StateInfo> {
        self.forget_old();
        let states = self.lock();
        let own = states.iter().filter(|(_, state)| state.owner == client);
        let mut all: Vec<_> = own.map(|(id, state)| self.info(id, state)).collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        all
    }

    /// Forgets a state of one of these models; `false` where there is none.
    pub fn forget<'a>(&self, id: &str, models: impl Iterator<Item = &'a str>) -> bool {
        let in_memory = self.lock().remove(id).is_some();
        let in_files = models.filter(|name| self.remove_file(name, id)).count() > 0;
        self.forget_old();
        in_memory || in_files
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
    pub fn forget_old(&self) {
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

pub(super) fn unknown(id: &str) -> ApiError {
    let message = format!("there is no state {id:?}, or not any more");
    ApiError::not_found("state_not_found", message)
}

/// `true` for a name as states have it: nothing else becomes a part of a path.
fn is_id(name: &str) -> bool {
    let digits = name.strip_prefix("state-").unwrap_or_default();
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Files and folders in a folder; none where there is no folder.
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
