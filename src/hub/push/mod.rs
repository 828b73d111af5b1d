//! A directory to the Hub: repository, large files, one commit.

mod contents;
mod large;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hf_hub::RepoTypeModel;
use hf_hub::progress::{ProgressEvent, ProgressHandler, UploadEvent};
use hf_hub::repository::CommitOperation;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::failure::{Failure, Place, Trouble};
use super::http::{Http, answer, json as json_of};
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
    sent: Arc<AtomicU64>,
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
        Ok(Self {
            http,
            id,
            progress,
            contents,
            sent: Arc::default(),
            total,
        })
    }

    /// Uploads everything, of which it tells first; gives the repository's address.
    pub async fn run(&self, private: bool) -> Result<String, Failure> {
        self.progress.tell(Event::Contents(&self.contents));
        self.create(private).await?;
        let modes = self.modes().await?;
        let large: Vec<&UploadFile> = self
            .contents
            .files
            .iter()
            .filter(|item| is_large(&modes, item))
            .collect();
        let mut hashes = HashMap::new();
        for item in &large {
            hashes.insert(item.name.as_str(), sha256_of(item.path())?);
        }
        let batch = match large.is_empty() {
            true => Batch::default(),
            false => self.batch(&large, &hashes).await?,
        };
        if batch.transfer.as_deref() == Some("xet") {
            self.commit_by_xet(&modes).await?;
        } else {
            for item in large {
                self.large_file(item, &hashes[item.name.as_str()], &batch)
                    .await?;
            }
            self.commit(&modes, &hashes).await?;
        }
        Ok(format!(
            "{}/{}",
            self.http.endpoint().shown(),
            self.id.repository()
        ))
    }

    fn place(&self) -> Place<'_> {
        Place {
            writing: true,
            ..self.http.place(self.id)
        }
    }

    /// Makes the repository, or finds it as it should be.
    async fn create(&self, private: bool) -> Result<(), Failure> {
        let place = self.place();
        let model = |client: hf_hub::HFClient| client.model(self.id.owner(), self.id.name());
        let created = self.http.retry(place, self.progress, async || {
            let client = self.http.hf(true)?;
            let repository = self.id.repository();
            let request = client
                .create_repository()
                .repo_id(&repository)
                .repo_type(RepoTypeModel)
                .private(private)
                .exist_ok(true);
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => match Trouble::from(error) {
                    // who may not make one may still write to the one that is there
                    Trouble::Http(answer) if answer.status == 403 => {
                        match model(client).exists().send().await {
                            Ok(true) => Ok(()),
                            _ => Err(Trouble::Http(answer)),
                        }
                    }
                    trouble => Err(trouble),
                },
            }
        });
        created.await?;
        if !private {
            return Ok(());
        }
        let info = self.http.retry(place, self.progress, async || {
            Ok(model(self.http.hf(true)?).info().send().await?)
        });
        match info.await?.private {
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

    fn api(&self, what: &str) -> Url {
        self.http.endpoint().url([
            "api",
            "models",
            self.id.owner(),
            self.id.name(),
            what,
            "main",
        ])
    }

    /// How the Hub wants each file.
    async fn modes(&self) -> Result<BTreeMap<String, Mode>, Failure> {
        let mut files = Vec::new();
        for item in &self.contents.files {
            files.push(json!({
                "path": item.name,
                "size": item.bytes,
                "sample": BASE64.encode(item.read(0, SAMPLE)?),
            }));
        }
        let body = json!({ "files": files });
        let modes: Modes = self
            .http
            .retry(self.place(), self.progress, async || {
                let request = self.http.post(self.api("preupload")).json(&body);
                json_of(answer(request).await?).await
            })
            .await?;
        let by_name = |mode: Mode| (mode.path.clone(), mode);
        Ok(modes.files.into_iter().map(by_name).collect())
    }

    /// Commits small files as they are and large ones by their hashes.
    async fn commit(
        &self,
        modes: &BTreeMap<String, Mode>,
        hashes: &HashMap<&str, String>,
    ) -> Result<(), Failure> {
        let header = json!({ "summary": MESSAGE, "description": "" });
        let mut lines = json!({ "key": "header", "value": header }).to_string() + "\n";
        for item in self
            .contents
            .files
            .iter()
            .filter(|item| !is_ignored(modes, item))
        {
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
        let committed = self.http.retry(self.place(), self.progress, async || {
            let request = self.http.post(self.api("commit"));
            let request = request.header(CONTENT_TYPE, "application/x-ndjson");
            answer(request.body(lines.clone())).await
        });
        committed.await?;
        self.tell(self.total);
        Ok(())
    }

    /// The same by the Hub's own protocol, where it asks for that.
    async fn commit_by_xet(&self, modes: &BTreeMap<String, Mode>) -> Result<(), Failure> {
        let items = self
            .contents
            .files
            .iter()
            .filter(|item| !is_ignored(modes, item));
        let operations: Vec<CommitOperation> = items
            .map(|item| CommitOperation::add_file(&item.name, item.path().to_path_buf()))
            .collect();
        let committed = self.http.retry(self.place(), self.progress, async || {
            let model = self.http.hf(true)?.model(self.id.owner(), self.id.name());
            let request = model
                .create_commit()
                .operations(operations.clone())
                .commit_message(MESSAGE)
                .progress(Forward(self.progress.clone()));
            Ok(request.send().await?)
        });
        committed.await?;
        self.tell(self.total);
        Ok(())
    }

    fn tell(&self, done: u64) {
        self.progress.tell(Event::Transferred {
            done,
            total: self.total,
        });
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

/// `hf-hub`'s events as ours.
struct Forward(Progress);

impl ProgressHandler for Forward {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Upload(UploadEvent::Progress {
            bytes_completed,
            total_bytes,
            ..
        }) = event
        {
            self.0.tell(Event::Transferred {
                done: *bytes_completed,
                total: *total_bytes,
            });
        }
    }
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
