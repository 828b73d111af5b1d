//! Writes that survive an interruption.

use std::fs::File;
use std::path::Path;

use crate::{Error, Result};

/// Writes `path` so that it holds, at any moment and after a crash, either its old content or the
/// whole new one.
///
/// `write` fills a temporary file in the same folder; the file is then synced, renamed to `path`,
/// and the folder is synced so that the rename itself lasts. When `write` fails, for instance on a
/// full disk, the temporary file is removed and `path` keeps what it held.
pub(crate) fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |source| Error::io(path, source);
    let mut temporary = temporary_in(folder).map_err(failed)?;
    write(temporary.as_file_mut()).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary
        .persist(path)
        .map_err(|error| failed(error.error))?;
    sync_folder(folder).map_err(|source| Error::io(folder, source))
}

/// A temporary file with the permissions of an ordinary new file: `tempfile` alone makes it
/// readable by its owner only.
fn temporary_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // the system takes the umask away
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(".tmp-").tempfile_in(folder)
}

/// Makes a rename in `folder` last.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems cannot open a folder as a file; their rename is journalled.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, |file| file.write_all(b"old")).unwrap();
        write_atomic(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, |file| file.write_all(b"old")).unwrap();
        let error = write_atomic(&path, |file| {
            file.write_all(b"half")?;
            Err(std::io::Error::other("no space left"))
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.json: no space left"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn has_the_permissions_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
        write_atomic(&ours, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn names_the_path_of_a_missing_folder() {
        let error = write_atomic(Path::new("no/such/folder/a.json"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("no/such/folder/a.json"));
    }
}
