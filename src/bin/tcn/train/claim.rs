//! Who may write to the directory of a run.

use std::path::{Path, PathBuf};

use candle_tcn::files::Lock;
use candle_tcn::train::RunDir;
use candle_tcn::{AtPath, Error};

/// Directory of a run, held for this process. Dropped before the run has a checkpoint, it brings back the run
/// that was to be replaced.
pub struct Claim {
    path: PathBuf,
    _lock: Lock,
}

impl Claim {
    /// Makes the directory, holds it, and brings back a run that an earlier process began to replace.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).at(path)?;
        let lock = Lock::take(path)?
            .ok_or_else(|| Error::file(path, "in use by another run; choose another --out"))?;
        let claim = Self { path: path.to_path_buf(), _lock: lock };
        claim.restore()?;
        Ok(claim)
    }

    /// Makes and takes `runs/NAME`, or with a number where that exists.
    pub fn take_new(name: &str) -> anyhow::Result<Self> {
        let runs = Path::new("runs");
        std::fs::create_dir_all(runs).at(runs)?;
        let mut number = 1;
        loop {
            let path = match number {
                1 => runs.join(name),
                n => runs.join(format!("{name}-{n}")),
            };
            match std::fs::create_dir(&path) {
                Ok(()) => return Self::take(&path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::io(&path, e).into()),
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn restore(&self) -> candle_tcn::Result<()> {
        if RunDir::restore(&self.path)? {
            say!(
                "{}: the run that was to take its place left no checkpoint; the old run is back",
                self.path.display()
            );
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            say!("tcn: {error}");
        }
    }
}
