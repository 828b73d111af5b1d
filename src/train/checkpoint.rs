//! Checkpoints that a crash cannot break.
//!
//! A checkpoint is a folder `step-N`. It is written as `.partial-N-…`, with the SHA-256 of its files last, and
//! renamed when it is whole. One of the same step is renamed to `.old-N-…` first and removed after. At any
//! moment, then, one of these is whole, and [`Checkpoints::mend`] gives it its name back.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::names::{SUMS, TRAINER};
use crate::files::weights;
use crate::files::{sha256_of, sync_folder, write_atomic, write_tensors};
use crate::{AtPath, Error, Result};

/// Tensor files of a checkpoint: name and tensors.
pub(super) type TensorFiles = Vec<(&'static str, HashMap<String, Tensor>)>;

const WHOLE: &str = "step-";
/// Being written, or was when the program ended.
const PARTIAL: &str = ".partial-";
/// About to be removed, or was when the program ended.
const OLD: &str = ".old-";
const DAMAGED: &str = "damaged-";

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints(PathBuf);

impl Checkpoints {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn step(&self, step: usize) -> PathBuf {
        self.0.join(format!("{WHOLE}{step}"))
    }

    /// Folders whose name is `prefix`, a step and, except for whole ones, `-` and more; with their step. Files,
    /// links and other names are somebody else's.
    fn named(&self, prefix: &str) -> Result<Vec<(usize, PathBuf)>> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at(&self.0)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.at(&self.0)?;
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
            let number = match prefix {
                WHOLE => rest,
                _ => rest.and_then(|rest| Some(rest.split_once('-')?.0)),
            };
            let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
            let step = number.filter(digits).and_then(|text| text.parse().ok());
            if let (Some(step), true) = (step, entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                found.push((step, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Complete checkpoints, the newest first.
    pub fn newest_first(&self) -> Result<Vec<Checkpoint>> {
        let whole = self.named(WHOLE)?.into_iter().rev();
        Ok(whole.map(|(_, path)| Checkpoint { path }).collect())
    }

    /// All folders here that this program made.
    pub fn ours(&self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for prefix in [WHOLE, PARTIAL, OLD] {
            all.extend(self.named(prefix)?.into_iter().map(|(_, path)| path));
        }
        Ok(all)
    }

    /// Finishes what an interruption left undone: a complete checkpoint gets its name, the rest goes.
    pub fn mend(&self) -> Result<()> {
        for prefix in [PARTIAL, OLD] {
            for (step, path) in self.named(prefix)? {
                let target = self.step(step);
                let checkpoint = Checkpoint { path };
                if !target.exists() && checkpoint.is_signed() && checkpoint.verify().is_ok() {
                    fs::rename(&checkpoint.path, &target).at(&target)?;
                } else {
                    remove(&checkpoint.path);
                }
            }
        }
        match self.0.exists() {
            true => sync_folder(&self.0).at(&self.0),
            false => Ok(()),
        }
    }

    /// Writes the checkpoint of `step`, then removes all but the newest `keep`.
    pub fn save(
        &self,
        step: usize,
        keep: usize,
        files: &TensorFiles,
        trainer: &impl Serialize,
    ) -> Result<()> {
        fs::create_dir_all(&self.0).at(&self.0)?;
        let partial = self.temporary(PARTIAL, step)?;
        let mut sums = String::new();
        let mut sign = |name: &str| -> Result<()> {
            sums += &format!("{}  {name}\n", sha256_of(partial.path().join(name))?);
            Ok(())
        };
        for (name, tensors) in files {
            write_tensors(partial.path().join(name), tensors)?;
            sign(name)?;
        }
        let json =
            serde_json::to_vec_pretty(trainer).map_err(|e| Error::file(TRAINER, e.to_string()))?;
        write_atomic(&partial.path().join(TRAINER), |file| file.write_all(&json))?;
        sign(TRAINER)?;
        write_atomic(&partial.path().join(SUMS), |file| file.write_all(sums.as_bytes()))?;

        let target = self.step(step);
        let old = match target.exists() {
            true => Some(self.set_aside(step, &target)?),
            false => None,
        };
        // from here on it stays, whatever happens: it may be the only one of this step
        fs::rename(partial.keep(), &target).at(&target)?;
        sync_folder(&self.0).at(&self.0)?;
        old.iter().for_each(|old| remove(old));
        let whole = self.named(WHOLE)?;
        for (step, path) in &whole[..whole.len().saturating_sub(keep)] {
            remove(&self.set_aside(*step, path)?);
        }
        Ok(())
    }

    /// A new folder of this kind, removed when it is dropped.
    fn temporary(&self, prefix: &str, step: usize) -> Result<tempfile::TempDir> {
        let name = format!("{prefix}{step}-");
        let folder = tempfile::Builder::new().prefix(&name).tempdir_in(&self.0);
        folder.at(&self.0)
    }

    /// Renames a checkpoint that is about to go, so that a half removed one is never taken for a whole one.
    fn set_aside(&self, step: usize, path: &Path) -> Result<PathBuf> {
        let old = self.temporary(OLD, step)?.keep();
        // over the empty folder of that name
        fs::rename(path, &old).at(path)?;
        Ok(old)
    }
}

/// Removes a folder of ours; what cannot be removed now (an open file on NFS) goes at the next start.
fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// One checkpoint.
pub(super) struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn tensors(&self, name: &str) -> Result<HashMap<String, Tensor>> {
        Ok(weights::read(self.file(name))?.tensors)
    }

    pub fn trainer<T: DeserializeOwned>(&self) -> Result<T> {
        let file = self.file(TRAINER);
        let json = fs::read(&file).at(&file)?;
        serde_json::from_slice(&json)
            .map_err(|e| Error::file(&file, format!("not a checkpoint's: {e}")))
    }

    fn is_signed(&self) -> bool {
        self.file(SUMS).is_file()
    }

    /// Compares each file with its SHA-256; older checkpoints have none.
    pub fn verify(&self) -> Result<()> {
        let sums = self.file(SUMS);
        let text = match fs::read_to_string(&sums) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            text => text.at(&sums)?,
        };
        let mut names = Vec::new();
        for line in text.lines() {
            let Some((expected, name)) =
                line.split_once("  ").filter(|(_, name)| !name.contains(['/', '\\']))
            else {
                return Err(Error::file(&sums, "expected a hash and a file name in each line"));
            };
            let file = self.file(name);
            let found = sha256_of(&file)?;
            if found != expected {
                return Err(Error::file(
                    &file,
                    format!("damaged: expected SHA-256 {expected}, found {found}"),
                ));
            }
            names.push(name);
        }
        match names.contains(&TRAINER) {
            true => Ok(()),
            false => Err(Error::file(&sums, format!("expected a line for {TRAINER}"))),
        }
    }

    /// Renames a checkpoint that cannot be read to `damaged-step-N`, so that it counts no more but is not lost.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let free = |n: &usize| match n {
            1 => self.path.with_file_name(format!("{DAMAGED}{name}")),
            n => self.path.with_file_name(format!("{DAMAGED}{name}-{n}")),
        };
        let target = (1..).map(|n| free(&n)).find(|path| !path.exists());
        let target = target.unwrap_or_else(|| free(&1));
        fs::rename(&self.path, &target).at(&self.path)?;
        Ok(target)
    }
}
