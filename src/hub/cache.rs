//! The cache of one repository, in the layout of Python's `huggingface_hub`.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::Progress;
use super::id::ModelId;
use super::select::is_plain;
use crate::files::{sync_folder, write_atomic};
use crate::{Error, Result};

/// A file as the Hub lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub path: String,
    pub size: u64,
    pub hash: Hash,
}

/// What a file is named by in the cache: its SHA-256 where it is large, git's own hash of it (SHA-1
/// over a header and the content) where it is small.
#[derive(Debug, Clone, PartialEq)]
pub struct Hash(String);

impl Hash {
    /// From 40 or 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (matches!(text.len(), 40 | 64) && is_hex(text)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// The hash of the same kind of `file`, which has `size` bytes.
    pub fn of_same_kind(&self, file: &Path, size: u64) -> std::io::Result<Self> {
        let file = File::open(file)?;
        Ok(Self(match self.0.len() {
            40 => {
                let header = format!("blob {size}\0");
                digest(Sha1::new_with_prefix(header), file)?
            }
            _ => digest(Sha256::new(), file)?,
        }))
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The hash of what `source` gives, in hexadecimal digits.
pub fn digest(mut hasher: impl Digest, mut source: impl Read) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let bytes = hasher.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a revision is a commit, which never moves.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

/// The folders of one repository.
#[derive(Debug)]
pub struct Repo {
    dir: PathBuf,
    locks: PathBuf,
}

impl Repo {
    pub fn new(cache_dir: &Path, id: &ModelId) -> Self {
        let folder = format!("models--{}--{}", id.owner(), id.name());
        Self {
            dir: cache_dir.join(&folder),
            locks: cache_dir.join(".locks").join(folder),
        }
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub fn blob(&self, hash: &Hash) -> PathBuf {
        self.dir.join("blobs").join(&hash.0)
    }

    /// Where a download grows.
    pub fn partial(&self, hash: &Hash) -> PathBuf {
        self.dir.join("blobs").join(format!("{hash}.incomplete"))
    }

    /// Whether the file is there, whole and right.
    pub fn has(&self, entry: &Entry) -> Result<bool> {
        let blob = self.blob(&entry.hash);
        match blob.metadata() {
            Ok(file) if file.len() == entry.size => {
                let found = entry.hash.of_same_kind(&blob, entry.size);
                Ok(found.map_err(|e| Error::io(&blob, e))? == entry.hash)
            }
            _ => Ok(false),
        }
    }

    /// The commit that `revision` was when it was last looked up.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_ascii_lowercase());
        }
        let mut text = String::new();
        let file = File::open(self.dir.join("refs").join(revision)).ok()?;
        file.take(100).read_to_string(&mut text).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Remembers which commit `revision` is.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        create_parent(&path)?;
        write_atomic(&path, |file| file.write_all(commit.as_bytes()))
    }

    /// Makes `snapshots/COMMIT/PATH` lead to the file.
    pub fn link(&self, commit: &str, entry: &Entry) -> Result<()> {
        debug_assert!(is_plain(&entry.path));
        let path = self.snapshot(commit).join(&entry.path);
        let up = "../".repeat(entry.path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", entry.hash));
        if path.read_link().is_ok_and(|found| found == target) {
            return Ok(());
        }
        create_parent(&path)?;
        // made beside and renamed: at no moment is there no file
        let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        #[cfg(unix)]
        std::os::unix::fs::symlink(&target, &temporary).map_err(|e| Error::io(&path, e))?;
        #[cfg(not(unix))]
        std::fs::copy(self.blob(&entry.hash), &temporary).map_err(|e| Error::io(&path, e))?;
        std::fs::rename(&temporary, &path).map_err(|e| Error::io(&path, e))
    }

    /// Turns the partial file into the blob, so that it lasts.
    pub fn keep(&self, hash: &Hash) -> Result<()> {
        let (partial, blob) = (self.partial(hash), self.blob(hash));
        let kept = File::open(&partial)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&partial, &blob))
            .and_then(|()| sync_folder(&self.dir.join("blobs")));
        kept.map_err(|e| Error::io(&blob, e))
    }

    /// Whether a file of a snapshot is what its name in the cache says. One that is no link, as
    /// other systems keep them, has no such name and is taken as it is.
    pub fn check_cached(&self, path: &Path) -> Result<()> {
        let metadata = path.metadata().map_err(|e| Error::io(path, e))?;
        let named = path.read_link().ok().and_then(|target| {
            let name = target.file_name()?.to_str()?;
            Hash::parse(name)
        });
        let Some(expected) = named else {
            return Ok(());
        };
        let found = expected.of_same_kind(path, metadata.len());
        let found = found.map_err(|e| Error::io(path, e))?;
        match found == expected {
            true => Ok(()),
            false => Err(Error::file(
                path,
                format!(
                    "expected a file with hash {expected}, found {found}: the copy in the cache is damaged; \
                     `tcn pull` without HF_HUB_OFFLINE replaces it"
                ),
            )),
        }
    }

    /// Waits until this process is the only one to download the file.
    pub async fn lock(&self, entry: &Entry, progress: &Progress) -> Result<Lock> {
        let path = self.locks.join(format!("{}.lock", entry.hash));
        create_parent(&path)?;
        create_parent(&self.blob(&entry.hash))?;
        let mut told = false;
        loop {
            let open = File::options().create(true).append(true).open(&path);
            let file = open.map_err(|e| Error::io(&path, e))?;
            match file.try_lock() {
                // Python removes the file when it is done: then the lock is on nothing
                Ok(()) if is_same(&file, &path) => return Ok(Lock(file)),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
            }
            if !std::mem::replace(&mut told, true) {
                progress.message(&format!(
                    "{}: waiting for another process that downloads it",
                    entry.path
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Held while a file is downloaded; the system takes it back when the process ends.
pub struct Lock(#[allow(dead_code)] File);

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> bool {
    true
}

fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_git_and_sha256sum_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "hello\n").unwrap();
        let of = |kind: &str| Hash::parse(kind).unwrap().of_same_kind(&path, 6).unwrap();
        // echo hello | git hash-object --stdin; echo hello | sha256sum
        assert_eq!(
            of(&"0".repeat(40)).to_string(),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        assert_eq!(
            of(&"0".repeat(64)).to_string(),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
        assert!(Hash::parse("../../x").is_none());
        assert!(Hash::parse(&"g".repeat(40)).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_the_blob_from_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repo::new(folder.path(), &"a/b".parse().unwrap());
        let commit = "1".repeat(40);
        for path in ["config.json", "deep/er/weights.bin"] {
            let entry = Entry {
                path: path.into(),
                size: 5,
                hash: Hash::parse(&"a".repeat(64)).unwrap(),
            };
            create_parent(&repo.blob(&entry.hash)).unwrap();
            std::fs::write(repo.blob(&entry.hash), "bytes").unwrap();
            for _ in 0..2 {
                repo.link(&commit, &entry).unwrap();
            }
            let linked = repo.snapshot(&commit).join(path);
            assert_eq!(std::fs::read(&linked).unwrap(), b"bytes");
            assert!(repo.check_cached(&linked).is_err(), "not what it says");
        }
        repo.set_commit("refs/pr/1", &commit).unwrap();
        assert_eq!(repo.commit("refs/pr/1"), Some(commit));
        assert_eq!(repo.commit("main"), None);
    }
}
