//! The cache of one repository, in the layout of Python's `huggingface_hub`.

use std::fs::File;
use std::io::{ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::id::ModelId;
use super::links::{self, MakeLink, expect_no_link, planted, symbolic_link};
use super::progress::Progress;
use super::select::is_plain;
use crate::AtPath;
use crate::files::{Lock, hash, is_same, read_small, sha256, sync_folder, write_atomic};
use crate::{Error, Result};

/// A file as the Hub lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct HubFile {
    pub path: String,
    pub size: u64,
    pub hash: Hash,
}

/// The name of a file in the cache: its SHA-256 where it is large, git's own hash of it (SHA-1 over a header
/// and the content) where it is small.
#[derive(Debug, Clone, PartialEq)]
pub struct Hash(String);

impl Hash {
    /// From 40 or 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (matches!(text.len(), 40 | 64) && is_hex(text)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// The hash of the same kind of `file`, which has `size` bytes.
    pub fn of_same_kind(&self, file: &Path, size: u64) -> IoResult<Self> {
        let file = File::open(file)?;
        Ok(Self(match self.0.len() {
            40 => hash(Sha1::new_with_prefix(format!("blob {size}\0")), file)?,
            _ => sha256(file)?,
        }))
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `true` if a revision is a commit, which never moves.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

/// The folders of one repository.
///
/// Others may write to the cache too. A link that they plant could make this process write or read elsewhere,
/// so that a link is an error anywhere but in snapshots, and those lead to files of the repository's folder.
#[derive(Debug)]
pub struct RepoCache {
    cache_dir: PathBuf,
    /// Name of the repository's folders.
    folder: String,
    /// May itself be a link, to another disk say.
    dir: PathBuf,
}

impl RepoCache {
    pub fn new(cache_dir: &Path, id: &ModelId) -> Self {
        let folder = hf_hub::Repo::model(id.repository()).folder_name();
        Self { cache_dir: cache_dir.into(), dir: cache_dir.join(&folder), folder }
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub fn blob(&self, hash: &Hash) -> PathBuf {
        self.dir.join("blobs").join(&hash.0)
    }

    /// The file that a download grows in.
    pub fn partial(&self, hash: &Hash) -> PathBuf {
        self.dir.join("blobs").join(format!("{hash}.incomplete"))
    }

    /// `true` if the file is there, whole and right.
    pub fn has(&self, file: &HubFile) -> Result<bool> {
        let blob = self.blob(&file.hash);
        expect_no_link(&self.dir, &blob)?;
        is_right(&blob, file)
    }

    /// `true` if the snapshot has the right content in a file of its own. On systems without links
    /// `huggingface_hub` moves the blobs there.
    pub fn has_copy(&self, commit: &str, file: &HubFile) -> Result<bool> {
        let path = self.snapshot(commit).join(&file.path);
        Ok(!path.is_symlink() && is_right(&path, file)?)
    }

    /// The commit that `revision` was when it was last looked up.
    pub fn commit(&self, revision: &str) -> Result<Option<String>> {
        if is_commit(revision) {
            return Ok(Some(revision.to_ascii_lowercase()));
        }
        let path = self.reference(revision)?;
        let text =
            read_small(&path, "a commit", 100).ok().and_then(|text| String::from_utf8(text).ok());
        Ok(text.map(|text| text.trim().to_string()).filter(|commit| is_commit(commit)))
    }

    /// The file that keeps a revision's commit.
    fn reference(&self, revision: &str) -> Result<PathBuf> {
        let path = self.dir.join("refs").join(revision);
        expect_no_link(&self.dir, &path).map(|()| path)
    }

    /// Remembers which commit `revision` is.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision)?.as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision)?;
        create_parent(&path)?;
        write_atomic(&path, |file| file.write_all(commit.as_bytes()))
    }

    /// Makes `snapshots/COMMIT/PATH` lead to the file, or be a copy of it where the system has no links.
    pub fn link(&self, commit: &str, file: &HubFile) -> Result<()> {
        self.link_by(symbolic_link, commit, file)
    }

    fn link_by(&self, symlink: MakeLink, commit: &str, file: &HubFile) -> Result<()> {
        debug_assert!(is_plain(&file.path));
        let path = self.snapshot(commit).join(&file.path);
        expect_no_link(&self.dir, path.parent().unwrap_or(&self.dir))?;
        let up = "../".repeat(file.path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", file.hash));
        let is_linked = path.read_link().is_ok_and(|found| found == target);
        if is_linked || self.has_copy(commit, file)? {
            return Ok(());
        }
        create_parent(&path)?;
        links::place(symlink, &target, &self.blob(&file.hash), &path)
    }

    /// Opens the partial file to add to it.
    pub fn open_partial(&self, hash: &Hash) -> Result<File> {
        let path = self.partial(hash);
        expect_no_link(&self.dir, &path)?;
        let file = File::options().create(true).append(true).open(&path).at(&path)?;
        match is_same(&file, path.symlink_metadata()) {
            true => Ok(file),
            false => Err(planted(&path)),
        }
    }

    /// Turns the partial file into the blob, so that it lasts.
    pub fn keep(&self, hash: &Hash) -> Result<()> {
        let (partial, blob) = (self.partial(hash), self.blob(hash));
        // a file is synced as a folder is: where the file system can
        sync_folder(&partial).at(&blob)?;
        std::fs::rename(&partial, &blob).at(&blob)?;
        sync_folder(&self.dir.join("blobs")).at(&blob)
    }

    /// Checks that a file of a snapshot has the hash that its name in the cache says. One that is no link, as
    /// other systems keep them, has no such name and is taken as it is.
    pub fn check_cached(&self, path: &Path) -> Result<()> {
        let metadata = path.metadata().at(path)?;
        let target = path.read_link().unwrap_or_default();
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let Some(expected) = Hash::parse(&name) else {
            return Ok(());
        };
        let found = expected.of_same_kind(path, metadata.len()).at(path)?;
        if found == expected {
            return Ok(());
        }
        let message = format!(
            "expected a file with hash {expected}, found {found}: the copy in the cache is damaged; \
             `tcn pull` without HF_HUB_OFFLINE replaces it"
        );
        Err(Error::file(path, message))
    }

    /// Refuses a snapshot with links that lead out of the repository's folder, or to a link.
    pub fn check_links(&self, snapshot: &Path) -> Result<()> {
        expect_no_link(&self.dir, snapshot)?;
        let home = self.dir.canonicalize().at(&self.dir)?;
        for entry in std::fs::read_dir(snapshot).at(snapshot)? {
            let path = entry.at(snapshot)?.path();
            let Ok(target) = path.read_link() else {
                continue;
            };
            let inside = match path.canonicalize() {
                Ok(end) => end.starts_with(&home) && !snapshot.join(target).is_symlink(),
                // one that leads nowhere is no file
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            if !inside {
                return Err(planted(&path));
            }
        }
        Ok(())
    }

    /// Waits until this process is the only one to download the file.
    pub fn lock(&self, file: &HubFile, progress: &Progress) -> Result<Lock> {
        let name = format!("{}.lock", file.hash);
        let path = self.cache_dir.join(".locks").join(&self.folder).join(name);
        expect_no_link(&self.cache_dir, &path)?;
        create_parent(&path)?;
        expect_no_link(&self.dir, &self.blob(&file.hash))?;
        create_parent(&self.blob(&file.hash))?;
        let mut is_told = false;
        loop {
            match Lock::open(&path)? {
                Some((held, lock)) if is_same(&held, path.symlink_metadata()) => return Ok(lock),
                // a link, or the file that Python removes when it is done
                Some(_) => expect_no_link(&self.cache_dir, &path)?,
                None => {
                    if !std::mem::replace(&mut is_told, true) {
                        let message = "waiting for another process that downloads it";
                        progress.message(&format!("{}: {message}", file.path));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }
}

/// `true` if `path` is a file with the size and the hash of `file`.
fn is_right(path: &Path, file: &HubFile) -> Result<bool> {
    let has_size = path.metadata().is_ok_and(|found| found.is_file() && found.len() == file.size);
    Ok(has_size && file.hash.of_same_kind(path, file.size).at(path)? == file.hash)
}

fn create_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), |folder| std::fs::create_dir_all(folder).at(folder))
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
        // of `hello` and a line end, as `git hash-object` and `sha256sum` give them
        assert_eq!(of(&"0".repeat(40)).to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
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
        let repo = RepoCache::new(folder.path(), &"a/b".parse().unwrap());
        let commit = "1".repeat(40);
        for path in ["config.json", "deep/er/weights.bin"] {
            let file =
                HubFile { path: path.into(), size: 5, hash: Hash::parse(&"a".repeat(64)).unwrap() };
            create_parent(&repo.blob(&file.hash)).unwrap();
            std::fs::write(repo.blob(&file.hash), "bytes").unwrap();
            for _ in 0..2 {
                repo.link(&commit, &file).unwrap();
            }
            let linked = repo.snapshot(&commit).join(path);
            assert_eq!(std::fs::read(&linked).unwrap(), b"bytes");
            assert!(repo.check_cached(&linked).is_err(), "not what it says");
        }
        repo.set_commit("refs/pr/1", &commit).unwrap();
        assert_eq!(repo.commit("refs/pr/1").unwrap(), Some(commit));
        assert_eq!(repo.commit("main").unwrap(), None);
    }

    #[test]
    fn without_symbolic_links_a_snapshot_has_the_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let repo = RepoCache::new(folder.path(), &"a/b".parse().unwrap());
        let commit = "1".repeat(40);
        let file = HubFile {
            path: "deep/weights.bin".into(),
            size: 6,
            // echo hello | sha256sum
            hash: Hash::parse("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
                .unwrap(),
        };
        let blob = repo.blob(&file.hash);
        create_parent(&blob).unwrap();
        std::fs::write(&blob, "hello\n").unwrap();
        let unsupported: MakeLink = |_, _| Err(ErrorKind::PermissionDenied.into());
        let path = repo.snapshot(&commit).join(&file.path);
        for before in ["none", "wrong", "right"] {
            if before == "wrong" {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, "other\n").unwrap();
            }
            repo.link_by(unsupported, &commit, &file).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"hello\n", "{before}");
            assert!(!path.is_symlink());
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        // as Python leaves it: the file in the snapshot, and no blob
        std::fs::remove_file(&blob).unwrap();
        assert!(!repo.has(&file).unwrap() && repo.has_copy(&commit, &file).unwrap());
    }
}
