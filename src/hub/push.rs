//! A directory to the Hub: repository, large files, one commit.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::json;

use super::contents::{Contents, UploadFile};
use super::failure::{Failure, Trouble};
use super::progress::{ByteCounter, Event};
use super::remote::{Remote, RepositoryInfo};
use crate::Result;
use crate::files::sha256_of;

const MESSAGE: &str = "Upload a model with candle-tcn";

/// By its first bytes the Hub tells text from what belongs into large storage.
const SAMPLE: u64 = 512;

/// A file to upload; with its SHA-256 it goes to large storage.
pub type Chosen<'a> = (&'a UploadFile, Option<String>);

/// An upload of a directory.
pub struct Upload<'a> {
    pub(super) remote: Remote<'a>,
    contents: Contents,
    pub(super) sent: ByteCounter<'a>,
}

impl<'a> Upload<'a> {
    /// Lists the files of `dir`.
    pub fn new(remote: Remote<'a>, dir: &Path) -> Result<Self> {
        let contents = Contents::of(dir)?;
        let total = contents.files.iter().map(|item| item.bytes).sum();
        Ok(Self { remote, contents, sent: ByteCounter::new(remote.progress, total) })
    }

    /// Uploads everything, of which it tells first; gives the repository's address.
    pub fn run(&self, private: bool) -> Result<String, Failure> {
        self.remote.progress.tell(Event::Contents(&self.contents));
        self.create(private)?;
        let files = self.wanted()?;
        self.send_large(&files)?;
        self.commit(&files)?;
        Ok(self.page())
    }

    /// The repository's address, for people.
    fn page(&self) -> String {
        let Remote { http, id, .. } = self.remote;
        format!("{}/{}", http.endpoint.shown(), id.repository())
    }

    /// Makes the repository, or finds it as it should be.
    fn create(&self, private: bool) -> Result<(), Failure> {
        let remote = &self.remote;
        let body = json!({
            "type": "model",
            "organization": remote.id.owner,
            "name": remote.id.name,
            "private": private,
        });
        let address = remote.http.endpoint.url(["api", "repos", "create"]);
        remote.retry(None, || match remote.http.post(address.clone()).json(&body).send() {
            Err(Trouble::Http(answer)) if answer.status == 409 => Ok(()),
            // who may not make one may still write to the one that is there
            Err(Trouble::Http(answer)) if answer.status == 403 && remote.exists() => Ok(()),
            other => other.map(drop),
        })?;
        if !private {
            return Ok(());
        }
        let info: RepositoryInfo =
            remote.retry(None, || remote.http.get(remote.api(&[])).send()?.json())?;
        if info.private != Some(false) {
            return Ok(());
        }
        let message = format!(
            "expected a private repository, found a public one; nothing was uploaded. Change it at \
             {}/settings",
            self.page()
        );
        Err(remote.error(None, message).into())
    }

    /// The files that the Hub does not ignore; those with their hash that it wants in large storage, which takes no
    /// empty ones.
    fn wanted(&self) -> Result<Vec<Chosen<'_>>, Failure> {
        let mut files = Vec::new();
        for item in &self.contents.files {
            files.push(json!({
                "path": item.name,
                "size": item.bytes,
                "sample": BASE64.encode(item.start(SAMPLE)?),
            }));
        }
        let body = json!({ "files": files });
        let remote = &self.remote;
        let modes: UploadModes = remote.retry(None, || {
            let address = remote.api(&["preupload", "main"]);
            remote.http.post(address).json(&body).send()?.json()
        })?;
        let mut wanted = Vec::new();
        for item in &self.contents.files {
            let mode = modes.files.iter().find(|mode| mode.path == item.name);
            let is_large = item.bytes > 0 && mode.is_some_and(|mode| mode.upload_mode == "lfs");
            if !mode.is_some_and(|mode| mode.should_ignore) {
                wanted.push((item, is_large.then(|| sha256_of(&item.path)).transpose()?));
            }
        }
        Ok(wanted)
    }

    /// Commits small files as they are and large ones by their hashes.
    fn commit(&self, files: &[Chosen<'_>]) -> Result<(), Failure> {
        let header = json!({ "summary": MESSAGE, "description": "" });
        let mut lines = json!({ "key": "header", "value": header }).to_string() + "\n";
        for (item, hash) in files {
            let line = match hash {
                Some(hash) => json!({ "key": "lfsFile", "value": {
                    "path": item.name, "algo": "sha256", "oid": hash, "size": item.bytes,
                }}),
                None => json!({ "key": "file", "value": {
                    "path": item.name, "encoding": "base64", "content": BASE64.encode(item.start(item.bytes)?),
                }}),
            };
            lines += &(line.to_string() + "\n");
        }
        let remote = &self.remote;
        remote.retry(None, || {
            let request = remote.http.post(remote.api(&["commit", "main"]));
            request.body("application/x-ndjson", lines.as_str()).send()
        })?;
        self.sent.finish();
        Ok(())
    }
}

#[derive(Deserialize)]
struct UploadModes {
    files: Vec<UploadMode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UploadMode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}
