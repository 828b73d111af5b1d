//! Links in a cache: made where the system has them, refused where somebody else may have made them.

use std::fs::File;
use std::io::Result as IoResult;
use std::path::Path;

use crate::AtPath;
use crate::files::TEMPORARY;
use crate::{Error, Result};

/// Makes a link of the second name to the first.
pub type MakeLink = fn(&Path, &Path) -> IoResult<()>;

#[cfg(unix)]
pub fn symbolic_link(target: &Path, new: &Path) -> IoResult<()> {
    std::os::unix::fs::symlink(target, new)
}

/// Other systems leave symbolic links to administrators.
#[cfg(not(unix))]
pub fn symbolic_link(_: &Path, _: &Path) -> IoResult<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Puts a symbolic link to `target` at `path`; on a system without them a second name of `blob`, else a copy.
pub fn place(symlink: MakeLink, target: &Path, blob: &Path, path: &Path) -> Result<()> {
    let make = |new: &Path| {
        let made = symlink(target, new).or_else(|_| std::fs::hard_link(blob, new));
        made.or_else(|_| copy(blob, new))
    };
    // made beside and renamed: at no moment is there no file
    let folder = path.parent().unwrap_or(path);
    let made = tempfile::Builder::new().prefix(TEMPORARY).make_in(folder, make).at(path)?;
    made.persist(path).map_err(|e| e.error).at(path)
}

/// Copies a file to a new one, of which nothing is left where that fails.
fn copy(from: &Path, new: &Path) -> IoResult<()> {
    let (mut from, mut to) = (File::open(from)?, File::create_new(new)?);
    let copied = std::io::copy(&mut from, &mut to);
    copied.map(drop).inspect_err(|_| {
        let _ = std::fs::remove_file(new);
    })
}

/// Refuses a link at `path` and at the folders between it and `base`.
pub fn expect_no_link(base: &Path, path: &Path) -> Result<()> {
    let mut at = base.to_path_buf();
    for part in path.strip_prefix(base).unwrap_or(path) {
        at.push(part);
        if at.is_symlink() {
            return Err(planted(&at));
        }
    }
    Ok(())
}

pub fn planted(link: &Path) -> Error {
    let target = link.read_link().unwrap_or_default();
    let message = format!(
        "expected no link that leads out of the model's folder in the cache, found one to {}: somebody who \
         can write to the cache may have planted it. Remove it, or choose another cache by HF_HUB_CACHE",
        target.display()
    );
    Error::file(link, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_writes_to_nothing_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        std::fs::write(&from, "hello").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"hello");
        std::fs::write(&from, "other").unwrap();
        assert!(copy(&from, &to).is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"hello");
    }
}
