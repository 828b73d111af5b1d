//! The files of a directory that are uploaded, and those that stay.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::AtPath;
use crate::files::names::{CONFIG, RUN};
use crate::{Error, Result};

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The file itself, no link.
    #[serde(skip)]
    pub(super) path: PathBuf,
}

/// A part of a directory that is not uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name in the directory.
    pub name: String,
    /// The reason.
    pub why: &'static str,
}

/// The files of a directory that are uploaded, and those that stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Files that are uploaded, by name.
    pub files: Vec<UploadFile>,
    /// Everything else in the directory, by name.
    pub left_out: Vec<LeftOut>,
}

impl Contents {
    /// The files of a model directory. Left out are hidden files, folders (the checkpoints of a training run)
    /// and `run.json`, which holds paths of this machine.
    ///
    /// # Errors
    /// [`Error::File`] for what is no model directory, and for a link to a file that would not be uploaded: out
    /// of the directory, hidden or personal; [`Error::Io`] naming the file.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_tcn::hub::Contents;
    /// let contents = Contents::of("models/kjv-tiny")?;
    /// assert!(contents.files.iter().any(|file| file.name == "model.safetensors"));
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn of(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !dir.join(CONFIG).is_file() {
            let message = format!("expected a model directory to upload, found no {CONFIG} in it");
            return Err(Error::file(dir, message));
        }
        let home = dir.canonicalize().at(dir)?;
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(dir).at(dir)? {
            let path = entry.at(dir)?.path();
            let name = path.file_name().unwrap_or_default().to_str();
            let name = name.ok_or_else(|| Error::file(&path, "expected a name in UTF-8"))?;
            let mut stays = |why| left_out.push(LeftOut { name: name.into(), why });
            if let Some(why) = reason_to_stay(name) {
                stays(why);
                continue;
            }
            let real = path.canonicalize().at(&path)?;
            let metadata = real.metadata().at(&path)?;
            if !metadata.is_file() {
                stays("it is no file");
                continue;
            }
            if path.is_symlink() {
                expect_publishable(&path, &real, &home)?;
            }
            files.push(UploadFile { name: name.into(), bytes: metadata.len(), path: real });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        left_out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { files, left_out })
    }
}

fn reason_to_stay(name: &str) -> Option<&'static str> {
    if name.starts_with('.') {
        return Some("it is hidden");
    }
    (name == RUN).then_some("it holds paths of this machine and the command line")
}

/// Refuses a link whose file, `real`, would not be uploaded itself.
fn expect_publishable(link: &Path, real: &Path, home: &Path) -> Result<()> {
    let goes = |part: &OsStr| part.to_str().is_some_and(|name| reason_to_stay(name).is_none());
    if real.strip_prefix(home).is_ok_and(|inside| inside.iter().all(goes)) {
        return Ok(());
    }
    let message = format!(
        "expected a file of this folder to upload, found a link to {}; put a copy of the file in its place \
         (cp -L) to publish it, or remove the link",
        real.display()
    );
    Err(Error::file(link, message))
}

impl UploadFile {
    /// Its bytes from `start` on, at most `length`.
    pub(super) fn part(&self, start: u64, length: u64) -> Result<Take<File>> {
        let mut file = File::open(&self.path).at(&self.path)?;
        file.seek(SeekFrom::Start(start)).at(&self.path)?;
        Ok(file.take(length))
    }

    /// Its first bytes, at most `length`.
    pub(super) fn start(&self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.part(0, length)?.read_to_end(&mut bytes).at(&self.path)?;
        Ok(bytes)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_files_that_would_be_uploaded_anyway() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            "model/config.json",
            "model/run.json",
            "model/.secret",
            "model/deep/weights",
            "outside",
        ] {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), name).unwrap();
        }
        let link = path("model/link");
        for target in ["config.json", "deep/weights"] {
            symlink(target, &link).unwrap();
            let contents = Contents::of(path("model")).unwrap();
            let names: Vec<_> = contents.files.iter().map(|file| &*file.name).collect();
            assert_eq!(names, ["config.json", "link"]);
            let left_out: Vec<_> = contents.left_out.iter().map(|left| &*left.name).collect();
            assert_eq!(left_out, [".secret", "deep", "run.json"]);
            std::fs::remove_file(&link).unwrap();
        }
        for target in ["../outside", "run.json", ".secret", "/etc/hostname", "nowhere"] {
            symlink(target, &link).unwrap();
            let message = Contents::of(path("model")).unwrap_err().to_string();
            assert!(message.contains("model/link"), "{message}");
            std::fs::remove_file(&link).unwrap();
        }
        // a directory that is itself reached by a link
        symlink("model", path("alias")).unwrap();
        assert_eq!(Contents::of(path("alias")).unwrap().files.len(), 1);
    }
}
