//! The directory of a run: its files, their owner, and their replacement by another run.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::card;
use super::checkpoint::Checkpoints;
use crate::files::names::{CARD, CHECKPOINTS, RUN, RUN_FILES};
use crate::files::{sweep_temporaries, sync_folder, write_atomic};
use crate::{AtPath, Error, Occupant, Result};

/// Files of a run that goes while another takes its place.
const MOVING: &str = ".moving-";
/// Files of a run in whose place another has begun, until that has a checkpoint.
const REPLACED: &str = ".replaced-";

/// The directory of a training run, itself a model directory: `config.json`, `model.safetensors` (the
/// best weights so far), `tokenizer.json`, `metrics.jsonl`, and `checkpoints/step-N/`.
///
/// A checkpoint is written under another name and renamed when it is whole, so one that can be seen is
/// complete; older ones go only after that. Other files in the directory are never touched.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    checkpoints: Checkpoints,
    keep: usize,
}

impl RunDir {
    fn at(path: &Path, keep: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            checkpoints: Checkpoints::new(path.join(CHECKPOINTS)),
            keep: keep.max(1),
        }
    }

    /// Makes the directory. `keep` checkpoints stay.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be made, [`Error::Occupied`] where it already holds a run.
    pub fn create(path: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let path = path.as_ref();
        Self::check_free(path)?;
        fs::create_dir_all(path).at(path)?;
        Ok(Self::at(path, keep))
    }

    /// Checks that a run can begin in `path`.
    ///
    /// # Errors
    /// [`Error::Occupied`] where it already holds one.
    pub fn check_free(path: impl AsRef<Path>) -> Result<()> {
        let run = Self::at(path.as_ref(), 1);
        let checkpoints = run.checkpoints.ours()?;
        let occupied = |name: &&&str| run.join(name).symlink_metadata().is_ok();
        let name = RUN_FILES.iter().find(occupied).copied();
        let name = name.or((!checkpoints.is_empty()).then_some(CHECKPOINTS));
        let Some(name) = name else { return Ok(()) };
        let by = match checkpoints.is_empty() {
            false => Occupant::Run,
            true => Occupant::UnsavedRun,
        };
        Err(Error::Occupied { path: run.path, name: name.into(), by })
    }

    /// Everything that [`replace`](Self::replace) would take away: files and checkpoints of the run in `path`.
    /// Nothing where there is no run. A model card that was edited, links in the place of checkpoints and all
    /// other files stay.
    ///
    /// # Errors
    /// [`Error::Occupied`] where files have the names of a run's and no `run.json` says that they are one.
    pub fn contents(path: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let run = Self::at(path.as_ref(), 1);
        match Self::check_free(&run.path) {
            Ok(()) => return Ok(Vec::new()),
            Err(Error::Occupied { path, name, .. }) if !run.is_a_run() => {
                return Err(Error::Occupied { path, name, by: Occupant::Others });
            }
            Err(_) => {}
        }
        let mut contents = match run.checkpoints.path().is_symlink() {
            // the link goes, not what it leads to
            true => vec![run.join(CHECKPOINTS)],
            false => run.checkpoints.ours()?,
        };
        for name in RUN_FILES {
            let file = run.join(name);
            match file.symlink_metadata() {
                Ok(found) if found.is_dir() => {
                    return Err(Error::file(&file, "expected a file of a run, found a folder"));
                }
                Ok(_) if name == CARD && !run.owns_card() => {}
                Ok(_) => contents.push(file),
                Err(_) => {}
            }
        }
        Ok(contents)
    }

    fn is_a_run(&self) -> bool {
        let started = fs::read(self.join(RUN)).unwrap_or_default();
        let started: Option<serde_json::Value> = serde_json::from_slice(&started).ok();
        started.is_some_and(|json| json.get("source").is_some() && json.get("command").is_some())
    }

    /// `true` if there is no model card, or one that nobody has edited.
    pub fn owns_card(&self) -> bool {
        match fs::read_to_string(self.join(CARD)) {
            Ok(text) => card::is_unedited(&text),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Makes room in `path` for another run. The one that is there is set aside, and comes back by
    /// [`restore`](Self::restore) until the new one has a checkpoint.
    ///
    /// # Errors
    /// Those of [`contents`](Self::contents); [`Error::Io`] naming the file.
    pub fn replace(path: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let run = Self::at(path.as_ref(), keep);
        let contents = Self::contents(&run.path)?;
        if !contents.is_empty() {
            let folder = tempfile::Builder::new().prefix(MOVING).tempdir_in(&run.path);
            let moving = folder.at(&run.path)?.keep();
            let moved = contents.iter().try_for_each(|from| {
                let to = moving.join(from.strip_prefix(&run.path).unwrap_or(from));
                rename(from, &to)
            });
            if let Err(error) =
                moved.and_then(|()| run.rename_moving(&moving, MOVING, REPLACED).map(drop))
            {
                run.put_back(&moving)?;
                return Err(error);
            }
        }
        fs::create_dir_all(&run.path).at(&run.path)?;
        sweep_temporaries(&run.path, Duration::ZERO);
        Ok(run)
    }

    fn rename_moving(&self, folder: &Path, from: &str, to: &str) -> Result<PathBuf> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let target = self.path.join(name.replacen(from, to, 1));
        rename(folder, &target)?;
        sync_folder(&self.path).at(&self.path)?;
        Ok(target)
    }

    /// Moves the files of a folder back to where they were, over those of a run that never had a checkpoint.
    fn put_back(&self, moving: &Path) -> Result<()> {
        let checkpoints = Checkpoints::new(moving.join(CHECKPOINTS));
        if checkpoints.path().is_symlink() {
            let _ = fs::remove_dir(self.checkpoints.path());
        } else {
            for checkpoint in checkpoints.ours()? {
                let name = checkpoint.file_name().unwrap_or_default();
                rename(&checkpoint, &self.checkpoints.path().join(name))?;
            }
            let _ = fs::remove_dir(checkpoints.path());
        }
        for entry in fs::read_dir(moving).at(moving)? {
            let entry = entry.at(moving)?;
            rename(&entry.path(), &self.path.join(entry.file_name()))?;
        }
        fs::remove_dir(moving).at(moving)
    }

    /// Brings back a run in whose place another began that has no checkpoint yet, or removes it for good where
    /// the other has one. `true` if it came back.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn restore(path: impl AsRef<Path>) -> Result<bool> {
        let run = Self::at(path.as_ref(), 1);
        let mut restored = false;
        for replaced in run.folders(REPLACED)? {
            match run.checkpoints.newest_first()?.is_empty() {
                // by its other name, so that a restoration that is cut short goes on
                true => drop(run.rename_moving(&replaced, REPLACED, MOVING)?),
                false => fs::remove_dir_all(&replaced).at(&replaced)?,
            }
        }
        for moving in run.folders(MOVING)? {
            run.put_back(&moving)?;
            restored = true;
        }
        Ok(restored)
    }

    /// Folders here whose name begins with `prefix`.
    fn folders(&self, prefix: &str) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at(&self.path)?,
        };
        let ours = |entry: &fs::DirEntry| {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            is_dir && entry.file_name().to_string_lossy().starts_with(prefix)
        };
        Ok(entries.flatten().filter(ours).map(|entry| entry.path()).collect())
    }

    /// Opens the directory of a run that is to go on, and finishes what an interruption left undone.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`] where it holds none.
    pub fn open(path: impl AsRef<Path>, keep: usize) -> Result<Self> {
        let run = Self::at(path.as_ref(), keep);
        run.checkpoints.mend()?;
        sweep_temporaries(&run.path, Duration::ZERO);
        if run.checkpoints.newest_first()?.is_empty() {
            return Err(Error::NoCheckpoint { path: run.checkpoints.path().into() });
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

    pub(super) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Writes the checkpoint of `step`; a run that was replaced by this one then goes for good.
    pub(super) fn save(
        &self,
        step: usize,
        files: &super::checkpoint::TensorFiles,
        trainer: &impl serde::Serialize,
    ) -> Result<()> {
        self.checkpoints.save(step, self.keep, files, trainer)?;
        for replaced in self.folders(REPLACED)? {
            let _ = fs::remove_dir_all(replaced);
        }
        Ok(())
    }
}

/// Renames, and makes the folder that `to` lies in.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::rename(from, to)).at(from)
}
