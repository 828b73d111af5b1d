//! Names of models: `org/name`, `org/name@revision`.

use std::str::FromStr;

use crate::Error;

/// A repository on the Hub and a revision of it.
///
/// # Example
///
/// ```
/// use candle_tcn::hub::ModelId;
/// let id: ModelId = "songlab/gpn-brassicales@refs/pr/1".parse()?;
/// assert_eq!(id.repository(), "songlab/gpn-brassicales");
/// assert_eq!(id.revision(), "refs/pr/1");
/// assert!("./models/mine".parse::<ModelId>().is_err());
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    pub(super) owner: String,
    pub(super) name: String,
    revision: String,
}

impl ModelId {
    /// `org/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// A branch, a tag, a commit or a ref such as `refs/pr/1`; `main` unless another was given.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// A repository as a whole: `org/name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, a name with a revision too.
    pub fn without_revision(text: &str) -> Result<Self, Error> {
        match text.contains('@') {
            true => Err(Error::invalid("ORG/NAME", "org/name without a revision", text)),
            false => text.parse(),
        }
    }
}

impl std::fmt::Display for ModelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.owner, self.name, self.revision)
    }
}

impl FromStr for ModelId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const EXPECTED: &str = "org/name or org/name@revision (letters, digits, '-', '_' and '.')";
        let wrong = || Error::invalid("model", EXPECTED, text);
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = repository.split_once('/').ok_or_else(wrong)?;
        if !is_part(owner) || !is_part(name) || !is_revision(revision) {
            return Err(wrong());
        }
        Ok(Self { owner: owner.into(), name: name.into(), revision: revision.into() })
    }
}

/// An owner or a name: by the Hub's own rules, which also make it a safe part of a path.
fn is_part(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = ['-', '.'];
    (1..=96).contains(&text.len())
        && text.chars().all(allowed)
        && !text.contains("--")
        && !text.contains("..")
        && !text.starts_with(edge)
        && !text.ends_with(edge)
}

/// `true` for a name of a ref by git's rules, as far as a path is concerned.
fn is_revision(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    text.len() <= 250
        && text.split('/').all(part)
        && !text.contains("..")
        && !text.chars().any(|c| c.is_control() || c.is_whitespace() || "\\:?*[^~".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_revisions() {
        let id: ModelId = "multimolecule/carp-600k".parse().unwrap();
        assert_eq!(id.to_string(), "multimolecule/carp-600k@main");
        for good in ["a/b", "a/b@v1.0", "o-r.g/n_m@feature/x", "a/b@refs/pr/12"] {
            assert!(good.parse::<ModelId>().is_ok(), "{good}");
        }
    }

    #[test]
    fn nothing_leaves_the_cache() {
        let long = format!("a/{}", "b".repeat(97));
        for bad in [
            "",
            "name",
            "/etc/passwd",
            "a/b/c",
            "../b",
            "a/..",
            "./b",
            "a--b/c",
            "-a/b",
            "a/b@",
            "a/b@../../x",
            "a/b@/x",
            "a/b@x//y",
            "a/b@.hidden",
            "a/b@x y",
            "a b/c",
            "a\\b/c",
            &long,
        ] {
            assert!(bad.parse::<ModelId>().is_err(), "{bad}");
        }
    }
}
