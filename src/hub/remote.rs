//! A repository on the Hub as one operation sees it: its addresses, commits and files, asked for again where
//! another try may help.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::address::Address;
use super::cache::{Hash, HubFile, is_commit};
use super::failure::{Answer, Failure, Trouble};
use super::http::Http;
use super::id::ModelId;
use super::progress::Progress;
use super::request::Response;
use super::select::is_plain;
use crate::Error;

/// Tries of one request; fewer where there is not even a connection.
const TRIES: usize = 5;
const TRIES_TO_CONNECT: usize = 3;
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest a server may make us wait.
const MAX_DELAY: Duration = Duration::from_secs(300);

const MAX_PAGES: usize = 1000;

/// A repository, who asks for it, and who is told.
#[derive(Clone, Copy)]
pub struct Remote<'a> {
    pub http: &'a Http,
    pub id: &'a ModelId,
    pub progress: &'a Progress,
    /// An upload, whose refusals mean something else.
    pub is_upload: bool,
}

impl Remote<'_> {
    /// An error here that is no answer of the server.
    pub fn error(&self, file: Option<&str>, message: impl Into<String>) -> Error {
        Error::hub(self.name(file), None, message)
    }

    /// The repository, with its revision and `file`, for messages.
    pub fn name(&self, file: Option<&str>) -> String {
        let id = if self.is_upload { self.id.repository() } else { self.id.to_string() };
        file.map_or(id.clone(), |file| format!("{id}: {file}"))
    }

    /// Tries `attempt` until it succeeds or another try cannot help, as long apart as the server says.
    pub fn retry<T>(
        &self,
        file: Option<&str>,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let trouble = match attempt() {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            };
            let (most, asked) = match &trouble {
                Trouble::Transport { connect: true, .. } => (TRIES_TO_CONNECT, None),
                Trouble::Http(answer) => (TRIES, answer.retry_after),
                _ => (TRIES, None),
            };
            let delay = asked.unwrap_or(FIRST_DELAY * (1 << (tries - 1)));
            if !trouble.is_transient() || tries >= most || delay > MAX_DELAY {
                return Err(self.failure(file, trouble, tries));
            }
            if delay >= Duration::from_secs(1) {
                self.progress.message(&format!(
                    "{}: {trouble}; trying again in {} s",
                    file.unwrap_or(&self.http.endpoint.shown()),
                    delay.as_secs()
                ));
            }
            std::thread::sleep(delay);
        }
    }

    /// The address of the API for the repository, and of `more` below it.
    pub fn api(&self, more: &[&str]) -> Address {
        let parts = ["api", "models", &self.id.owner, &self.id.name];
        self.http.endpoint.url(parts.into_iter().chain(more.iter().copied()))
    }

    /// `true` if there is such a repository.
    pub fn exists(&self) -> bool {
        self.http.get(self.api(&[])).send().is_ok()
    }

    /// The commit that the revision is now.
    pub fn commit(&self) -> Result<String, Failure> {
        let revision = self.id.revision();
        if is_commit(revision) {
            return Ok(revision.to_ascii_lowercase());
        }
        let address = self.api(&["revision", revision]);
        let info: RepositoryInfo = self.retry(None, || {
            let answer = self.http.get(address.clone()).send();
            answer.map_err(|trouble| self.which_is_missing(trouble))?.json()
        })?;
        if let Some(sha) = info.sha.as_ref().filter(|sha| is_commit(sha)) {
            return Ok(sha.to_ascii_lowercase());
        }
        let message = format!(
            "expected {} to name a commit of 40 hexadecimal digits, found {:?}",
            self.http.endpoint.shown(),
            info.sha
        );
        Err(self.error(None, message).into())
    }

    /// Finds out, where a server does not say it, whether the repository or the revision is missing.
    fn which_is_missing(&self, trouble: Trouble) -> Trouble {
        match trouble {
            Trouble::Http(answer) if answer.status == 404 && answer.code.is_none() => {
                let code = if self.exists() { "RevisionNotFound" } else { "RepoNotFound" };
                Trouble::Http(Answer { code: Some(code.into()), ..answer })
            }
            other => other,
        }
    }

    /// The files of a commit by their names.
    pub fn files(&self, commit: &str) -> Result<BTreeMap<String, HubFile>, Failure> {
        let mut files = BTreeMap::new();
        let mut next = Some(self.api(&["tree", commit]).with_query("recursive=true"));
        for _ in 0..MAX_PAGES {
            let Some(address) = next.take() else {
                return Ok(files);
            };
            let (following, listed) = self.retry(None, || {
                let response = self.http.get(address.clone()).send()?;
                Ok((next_page(&response), response.json::<Vec<TreeEntry>>()?))
            })?;
            next = following.filter(|address| self.http.endpoint.is_own(address));
            let listed = listed.into_iter().filter_map(TreeEntry::file);
            files.extend(listed.map(|file| (file.path.clone(), file)));
        }
        let message = format!("the list of files is longer than {MAX_PAGES} pages");
        Err(self.error(None, message).into())
    }
}

/// The Hub's answer about a repository.
#[derive(Deserialize)]
pub struct RepositoryInfo {
    sha: Option<String>,
    pub private: Option<bool>,
}

/// An entry of the Hub's list of files.
#[derive(Deserialize)]
struct TreeEntry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: Option<String>,
    lfs: Option<LfsPointer>,
}

/// Of a file that git has only a pointer to.
#[derive(Deserialize)]
struct LfsPointer {
    oid: String,
    size: u64,
}

impl TreeEntry {
    /// A file with a name that is safe and a hash.
    fn file(self) -> Option<HubFile> {
        let (hash, size) = match self.lfs {
            Some(large) => (large.oid, large.size),
            None => (self.oid?, self.size),
        };
        let hash = Hash::parse(&hash)?;
        let is_file = self.r#type == "file" && is_plain(&self.path);
        is_file.then_some(HubFile { path: self.path, size, hash })
    }
}

/// The address of `Link: <...>; rel="next"`.
fn next_page(response: &Response) -> Option<Address> {
    let links = response.header("link")?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let target = next.trim().strip_prefix('<')?.split('>').next()?;
    response.address.join(target)
}
