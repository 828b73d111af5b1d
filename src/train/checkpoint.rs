//! Where a run keeps its files, and checkpoints that a crash cannot break.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::{sync_folder, write_atomic};
use crate::model_dir::{self, write_tensors};
use crate::{Error, Result};

/// What one checkpoint holds beside JSON: name of the file and its tensors.
pub(super) type TensorFiles = Vec<(&'static str, HashMap<String, Tensor>)>;

const CHECKPOINTS: &str = "checkpoints";
const TRAINER: &str = "trainer.json";

/// A checkpoint that is being written, or was when the program ended.
const PARTIAL: &str = ".partial-";

/// The files of a run beside its checkpoints.
const FILES: [&str; 7] = [
    model_dir::CONFIG,
    model_dir::WEIGHTS,
    model_dir::TOKENIZER,
    RunDir::METRICS,
    RunDir::PICTURE,
    RunDir::CARD,
    RunDir::STARTED,
];

/// The directory of a training run, itself a model directory: `config.json`, `model.safetensors` (the
/// best weights so far), `tokenizer.json`, `metrics.jsonl`, and `checkpoints/step-N/`.
///
/// A checkpoint is written under another name and renamed when it is whole, so one that can be seen is
/// complete; older ones go only after that.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    keep: usize,
}

impl RunDir {
    /// The figures of the run, one JSON object a line.
    pub const METRICS: &str = "metrics.jsonl";
    /// The loss curve.
    pub const PICTURE: &str = "loss.svg";
    /// The model card.
    pub const CARD: &str = "README.md";
    /// What the run was started with, for whoever continues it.
    pub const STARTED: &str = "run.json";

    /// Makes the directory. `keep` checkpoints stay.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be made, [`Error::File`] where it already holds a run.
    pub fn create(path: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        Self::check_free(&path)?;
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self {
            path,
            keep: keep.max(1),
        })
    }

    /// Whether a run can begin in `path`.
    ///
    /// # Errors
    /// [`Error::File`] where it already holds one.
    pub fn check_free(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match FILES
            .iter()
            .chain([&CHECKPOINTS])
            .find(|name| path.join(name).exists())
        {
            None => Ok(()),
            Some(name) => Err(Error::file(
                path,
                match path.join(CHECKPOINTS).exists() {
                    true => format!(
                        "already holds a run ({name}); continue it with --resume, replace it with --force, or \
                         choose another --out"
                    ),
                    false => format!(
                        "already holds a run without a checkpoint ({name}); replace it with --force, or choose \
                         another --out"
                    ),
                },
            )),
        }
    }

    /// Removes what a run left in `path`, and only that, so that another can begin there.
    ///
    /// # Errors
    /// [`Error::File`] where the files are not those of a run, [`Error::Io`] naming the file.
    pub fn clear(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let ours = [RunDir::STARTED, RunDir::METRICS]
            .iter()
            .any(|name| path.join(name).exists());
        if !ours {
            return Self::check_free(path).map_err(|_| {
                Error::file(
                    path,
                    "holds files of the names that a run uses, but no run.json of one: nothing was removed; choose \
                     another --out",
                )
            });
        }
        let run = Self {
            path: path.to_path_buf(),
            keep: 1,
        };
        for checkpoint in run.entries()? {
            fs::remove_dir_all(&checkpoint).map_err(|e| Error::io(&checkpoint, e))?;
        }
        // stays where it holds something else
        let _ = fs::remove_dir(run.checkpoints());
        for name in FILES {
            let file = path.join(name);
            match fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&file, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The checkpoints, whole and partial.
    fn entries(&self) -> Result<Vec<PathBuf>> {
        let all = self.checkpoints();
        let entries = match fs::read_dir(&all) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io(&all, e))?,
        };
        let ours = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.starts_with("step-") || name.starts_with(PARTIAL)
        };
        Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(ours)
            .collect())
    }

    /// Opens the directory of a run that is to go on.
    ///
    /// # Errors
    /// [`Error::File`] where it holds no checkpoint.
    pub fn open(path: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let run = Self {
            path: path.as_ref().to_path_buf(),
            keep: keep.max(1),
        };
        for partial in run.entries()? {
            if partial
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL))
            {
                fs::remove_dir_all(&partial).map_err(|e| Error::io(&partial, e))?;
            }
        }
        if run.steps().is_empty() {
            return Err(Error::file(
                run.checkpoints(),
                "expected a checkpoint step-N to resume from, found none; start anew with --force instead of --resume",
            ));
        }
        Ok(run)
    }

    /// A file of the run.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a text file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        write_atomic(&self.join(name), |file| file.write_all(text.as_bytes()))
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// The steps that have a checkpoint, in order.
    fn steps(&self) -> Vec<usize> {
        let Ok(entries) = fs::read_dir(self.checkpoints()) else {
            return Vec::new();
        };
        let step = |entry: fs::DirEntry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("step-")?
                .parse()
                .ok()
        };
        let mut steps: Vec<usize> = entries.flatten().filter_map(step).collect();
        steps.sort_unstable();
        steps
    }

    fn checkpoint(&self, step: usize) -> PathBuf {
        self.checkpoints().join(format!("step-{step}"))
    }

    /// Writes the checkpoint of `step`, then removes all but the newest few.
    pub(super) fn save(
        &self,
        step: usize,
        files: &TensorFiles,
        trainer: &impl Serialize,
    ) -> Result<()> {
        let all = self.checkpoints();
        fs::create_dir_all(&all).map_err(|e| Error::io(&all, e))?;
        let partial = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(&all)
            .map_err(|e| Error::io(&all, e))?;
        for (name, tensors) in files {
            write_tensors(partial.path().join(name), tensors)?;
        }
        let json =
            serde_json::to_vec_pretty(trainer).map_err(|e| Error::file(TRAINER, e.to_string()))?;
        write_atomic(&partial.path().join(TRAINER), |file| file.write_all(&json))?;
        let target = self.checkpoint(step);
        if target.exists() {
            fs::remove_dir_all(&target).map_err(|e| Error::io(&target, e))?;
        }
        fs::rename(partial.keep(), &target).map_err(|e| Error::io(&target, e))?;
        sync_folder(&all).map_err(|e| Error::io(&all, e))?;
        let steps = self.steps();
        for &old in &steps[..steps.len().saturating_sub(self.keep)] {
            let old = self.checkpoint(old);
            fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
        }
        Ok(())
    }

    /// Reads the newest checkpoint: a reader of its tensor files, and its JSON.
    pub(super) fn newest<T: DeserializeOwned>(&self) -> Result<(Checkpoint, T)> {
        let step = self.steps().last().copied().unwrap_or(0);
        let path = self.checkpoint(step);
        let file = path.join(TRAINER);
        let json = fs::read(&file).map_err(|e| Error::io(&file, e))?;
        let trainer = serde_json::from_slice(&json)
            .map_err(|e| Error::file(&file, format!("not a checkpoint's: {e}")))?;
        Ok((Checkpoint { path }, trainer))
    }
}

/// A checkpoint that is being read.
pub(super) struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    pub(super) fn tensors(&self, name: &str) -> Result<HashMap<String, Tensor>> {
        model_dir::read_tensors(self.path.join(name))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
