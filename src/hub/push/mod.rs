//! A directory to the Hub: repository, large files, one commit.

mod contents;
mod large;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::json;
use ureq::http::header::CONTENT_TYPE;

use super::failure::{Failure, Place, Trouble};
use super::http::{Http, Info};
use super::id::ModelId;
use super::{Event, Progress};
use crate::Result;
use crate::files::sha256_of;
use large::Batch;

pub use contents::{Contents, LeftOut, UploadFile};

const MESSAGE: &str = "Upload a model with candle-tcn";

/// By its first bytes the Hub tells text from what belongs into large storage.
const SAMPLE: u64 = 512;

/// An upload of a directory.
pub struct Upload<'a> {
    http: &'a Http,
    id: &'a ModelId,
    progress: &'a Progress,
    contents: Contents,
    /// Bytes sent, and of how many.
    sent: Cell<u64>,
    total: u64,
}

impl<'a> Upload<'a> {
    /// Looks what is in `dir`.
    pub fn new(
        http: &'a Http,
        id: &'a ModelId,
        dir: &Path,
        progress: &'a Progress,
    ) -> Result<Self> {
        let contents = Contents::of(dir)?;
        let total = contents.files.iter().map(|item| item.bytes).sum();
        Ok(Self { http, id, progress, contents, sent: Cell::new(0), total })
    }

    /// Uploads everything, of which it tells first; gives the repository's address.
    pub fn run(&self, private: bool) -> Result<String, Failure> {
        self.progress.tell(Event::Contents(&self.contents));
        self.create(private)?;
        let modes = self.modes()?;
        let large: Vec<&UploadFile> =
            self.contents.files.iter().filter(|item| is_large(&modes, item)).collect();
        let mut hashes = HashMap::new();
        for item in &large {
            hashes.insert(item.name.as_str(), sha256_of(item.path())?);
        }
        let batch = match large.is_empty() {
            true => Batch::default(),
            false => self.batch(&large, &hashes)?,
        };
        for item in large {
            self.large_file(item, &hashes[item.name.as_str()], &batch)?;
        }
        self.commit(&modes, &hashes)?;
        Ok(format!("{}/{}", self.http.endpoint().shown(), self.id.repository()))
    }

    fn place(&self) -> Place<'_> {
        Place { writing: true, ..self.http.place(self.id) }
    }

    /// Makes the repository, or finds it as it should be.
    fn create(&self, private: bool) -> Result<(), Failure> {
        let place = self.place();
        let body = json!({
            "type": "model",
            "organization": self.id.owner(),
            "name": self.id.name(),
            "private": private,
        });
        let address = self.http.endpoint().url(["api", "repos", "create"]);
        self.http.retry(&place, self.progress, || {
            match self.http.post(address.clone()).json(&body).send() {
                Err(Trouble::Http(answer)) if answer.status == 409 => Ok(()),
                // who may not make one may still write to the one that is there
                Err(Trouble::Http(answer)) if answer.status == 403 && self.http.exists(self.id) => {
                    Ok(())
                }
                other => other.map(drop),
            }
        })?;
        if !private {
            return Ok(());
        }
        let address = self.http.api(self.id, &[]);
        let info: Info = self
            .http
            .retry(&place, self.progress, || self.http.get(address.clone()).send()?.json())?;
        match info.private {
            Some(false) => Err(place
                .error(format!(
                    "expected a private repository, found a public one; nothing was uploaded. Change it at \
                     {}/{}/settings, or leave out --private",
                    self.http.endpoint().shown(),
                    self.id.repository()
                ))
                .into()),
            _ => Ok(()),
        }
    }

    /// How the Hub wants each file.
    fn modes(&self) -> Result<BTreeMap<String, Mode>, Failure> {
        let mut files = Vec::new();
        for item in &self.contents.files {
            files.push(json!({
                "path": item.name,
                "size": item.bytes,
                "sample": BASE64.encode(item.read(0, SAMPLE)?),
            }));
        }
        let body = json!({ "files": files });
        let address = self.http.api(self.id, &["preupload", "main"]);
        let modes: Modes = self.http.retry(&self.place(), self.progress, || {
            self.http.post(address.clone()).json(&body).send()?.json()
        })?;
        let by_name = |mode: Mode| (mode.path.clone(), mode);
        Ok(modes.files.into_iter().map(by_name).collect())
    }

    /// Commits small files as they are and large ones by their hashes.
    fn commit(
        &self,
        modes: &BTreeMap<String, Mode>,
        hashes: &HashMap<&str, String>,
    ) -> Result<(), Failure> {
        let header = json!({ "summary": MESSAGE, "description": "" });
        let mut lines = json!({ "key": "header", "value": header }).to_string() + "\n";
        for item in self.contents.files.iter().filter(|item| !is_ignored(modes, item)) {
            let line = match hashes.get(item.name.as_str()) {
                Some(hash) => json!({ "key": "lfsFile", "value": {
                    "path": item.name, "algo": "sha256", "oid": hash, "size": item.bytes,
                }}),
                None => json!({ "key": "file", "value": {
                    "path": item.name, "encoding": "base64", "content": BASE64.encode(item.read(0, item.bytes)?),
                }}),
            };
            lines += &(line.to_string() + "\n");
        }
        let address = self.http.api(self.id, &["commit", "main"]);
        self.http.retry(&self.place(), self.progress, || {
            let request = self.http.post(address.clone());
            let request = request.header(CONTENT_TYPE.as_str(), "application/x-ndjson");
            request.body(lines.clone().into_bytes()).send()
        })?;
        self.tell(self.total);
        Ok(())
    }

    fn tell(&self, done: u64) {
        self.progress.tell(Event::Transferred { done, total: self.total });
    }
}

/// Large storage takes no empty files.
fn is_large(modes: &BTreeMap<String, Mode>, item: &UploadFile) -> bool {
    let mode = modes.get(&item.name);
    item.bytes > 0 && mode.is_some_and(|mode| mode.upload_mode == "lfs" && !mode.should_ignore)
}

fn is_ignored(modes: &BTreeMap<String, Mode>, item: &UploadFile) -> bool {
    modes.get(&item.name).is_some_and(|mode| mode.should_ignore)
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}
