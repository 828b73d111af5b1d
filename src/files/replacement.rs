//! Writes that survive an interruption.

use std::fs::{File, Metadata};
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::fsync::{folder_of, sync, sync_folder};
use crate::AtPath;
use crate::Result;

/// First letters of the names of temporary files; a process that is killed may leave one behind.
pub(crate) const TEMPORARY: &str = ".tcn-tmp-";

/// Most links that are followed from one to the next, as on Linux.
const MAX_LINKS: usize = 40;

/// File that is being written in the place of another.
///
/// An ordinary file keeps its old content until [`commit`](Replacement::commit), at any moment and after a
/// crash: the new content goes into a temporary file in the same folder, which is synced, renamed and made
/// to last. Its permissions are kept, and its owner where the system allows. Of a symbolic link the target is
/// replaced. A device, a pipe or a socket cannot be replaced and is written directly.
///
/// # Example
///
/// ```
/// use std::io::Write;
/// use candle_tcn::files::Replacement;
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("a.txt");
/// let mut file = Replacement::begin(&path)?;
/// file.file().write_all(b"new")?;
/// assert!(!path.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"new");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Replacement {
    /// As it was given, for messages.
    path: PathBuf,
    destination: Destination,
}

#[derive(Debug)]
enum Destination {
    /// An ordinary file, and its successor.
    File(PathBuf, NamedTempFile),
    /// A device, a pipe or a socket.
    Special(File),
}

impl Replacement {
    /// Opens a file that is to take the place of `path`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming `path`.
    pub fn begin(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let destination = destination(&path).at(&path)?;
        Ok(Self { path, destination })
    }

    /// The file to write to.
    pub fn file(&mut self) -> &mut File {
        match &mut self.destination {
            Destination::File(_, temporary) => temporary.as_file_mut(),
            Destination::Special(file) => file,
        }
    }

    /// Puts the file in its place. Without this call nothing changes and nothing is left behind.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file; it then holds what it held before.
    pub fn commit(self) -> Result<()> {
        let Destination::File(target, temporary) = self.destination else {
            return Ok(());
        };
        sync(temporary.as_file()).at(&self.path)?;
        let persisted = temporary.persist(&target);
        persisted.map_err(|error| error.error).at(&self.path)?;
        let folder = folder_of(&target);
        sync_folder(folder).at(folder)
    }
}

/// Writes `path` so that it holds, at any moment and after a crash, either its old content or the
/// whole new one; see [`Replacement`].
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) naming the file. When `write` fails, for instance on a full disk, `path` keeps what it held.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> IoResult<()>) -> Result<()> {
    let mut replacement = Replacement::begin(path)?;
    write(replacement.file()).at(path)?;
    replacement.commit()
}

/// Removes temporary files that a killed process left in a folder: those to which nobody has written for `idle`.
pub(crate) fn sweep_temporaries(folder: &Path, idle: Duration) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|data| data.modified());
        let age = written.map(|written| written.elapsed().unwrap_or_default());
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY)
            && age.is_ok_and(|age| age >= idle)
        {
            // one that stays does no harm but for its size
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn destination(path: &Path) -> IoResult<Destination> {
    let target = follow(path)?;
    let found = match std::fs::metadata(&target) {
        Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => {
            return Ok(Destination::Special(File::options().write(true).open(&target)?));
        }
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let temporary = temporary_in(folder_of(&target))?;
    if let Some(found) = found {
        keep_permissions(&found, temporary.as_file())?;
    }
    Ok(Destination::File(target, temporary))
}

/// Follows links to the target of `path`, which need not exist.
fn follow(path: &Path) -> IoResult<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match std::fs::symlink_metadata(&target) {
            Ok(found) if found.is_symlink() => {
                let next = std::fs::read_link(&target)?;
                // links in /proc that lead to a pipe have no name to follow
                if std::fs::metadata(&target).is_ok_and(|end| !end.is_file() && !end.is_dir()) {
                    return Ok(target);
                }
                target = folder_of(&target).join(next);
            }
            _ => return Ok(target),
        }
    }
    Err(IoError::other("too many symbolic links"))
}

/// A temporary file with the permissions of an ordinary new file: `tempfile` alone makes it
/// readable by its owner only.
fn temporary_in(folder: &Path) -> IoResult<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // the system takes the umask away
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(TEMPORARY).tempfile_in(folder)
}

#[cfg(unix)]
fn keep_permissions(old: &Metadata, new: &File) -> IoResult<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let fresh = new.metadata()?;
    if (fresh.uid(), fresh.gid()) != (old.uid(), old.gid()) {
        // only root may give files away; others keep what they write for themselves
        let _ = fchown(new, Some(old.uid()), Some(old.gid()));
    }
    new.set_permissions(old.permissions())
}

#[cfg(not(unix))]
fn keep_permissions(_: &Metadata, _: &File) -> IoResult<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn write(path: &Path, text: &str) -> Result<()> {
        write_atomic(path, |file| file.write_all(text.as_bytes()))
    }

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, "old").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!("{TEMPORARY}x"));
        std::fs::write(&left, "half").unwrap();
        write(&folder.path().join("a.json"), "whole").unwrap();
        // another process may be writing it
        sweep_temporaries(folder.path(), Duration::from_secs(60));
        assert!(left.exists());
        sweep_temporaries(folder.path(), Duration::ZERO);
        assert!(!left.exists());
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, "old").unwrap();
        let error = write_atomic(&path, |file| {
            file.write_all(b"half")?;
            Err(IoError::other("no space left"))
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.json: no space left"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_has_the_permissions_of_an_ordinary_one_and_an_old_one_keeps_its_own() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
        write(&ours, "").unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ours), mode(&plain));
        for bits in [0o600, 0o664, 0o755] {
            std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(bits)).unwrap();
            write(&ours, "again").unwrap();
            assert_eq!(mode(&ours), bits);
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_target_of_a_link_is_replaced_even_before_it_exists() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("deep")).unwrap();
        symlink("deep/b", path("a")).unwrap();
        symlink("../c", path("deep/b")).unwrap();
        for text in ["made", "replaced"] {
            write(&path("a"), text).unwrap();
            assert_eq!(std::fs::read_to_string(path("c")).unwrap(), text);
        }
        assert!(path("a").is_symlink() && path("deep/b").is_symlink());
        symlink("round", path("round")).unwrap();
        assert!(write(&path("round"), "").unwrap_err().to_string().contains("links"));
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_written_directly() {
        use std::os::unix::fs::FileTypeExt;
        write(Path::new("/dev/null"), "x").unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        write(&link, "x").unwrap();
        assert!(link.is_symlink());
        assert_eq!(entries(folder.path()), 1);

        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, "through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn names_the_path_of_a_missing_folder_and_of_a_folder() {
        let error = write(Path::new("no/such/folder/a.json"), "").unwrap_err();
        assert!(error.to_string().contains("no/such/folder/a.json"));
        let folder = tempfile::tempdir().unwrap();
        assert!(write(folder.path(), "").is_err());
    }
}
