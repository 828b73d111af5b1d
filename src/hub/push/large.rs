//! Large files: sent to where the Hub says, by Git LFS.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::atomic::Ordering;

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use reqwest::{Method, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Upload, UploadFile};
use crate::Result;
use crate::hub::Event;
use crate::hub::failure::{Failure, Place};
use crate::hub::http::{answer, json as json_of};

const LFS: &str = "application/vnd.git-lfs+json";
const CHUNK: u64 = 1 << 18;
/// Parts of one large file, as S3 has it.
const MAX_PARTS: u64 = 10_000;

impl Upload<'_> {
    /// Asks where large files go.
    pub(super) async fn batch(
        &self,
        large: &[&UploadFile],
        hashes: &HashMap<&str, String>,
    ) -> Result<Batch, Failure> {
        let objects: Vec<Value> = large
            .iter()
            .map(|item| json!({ "oid": hashes[item.name.as_str()], "size": item.bytes }))
            .collect();
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart", "xet"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": "main" },
        });
        let name = format!("{}.git", self.id.name());
        let url =
            self.http
                .endpoint()
                .url([self.id.owner(), &name, "info", "lfs", "objects", "batch"]);
        self.http
            .retry(self.place(), self.progress, async || {
                let request = lfs(self.http.post(url.clone())).json(&body);
                json_of(answer(request).await?).await
            })
            .await
    }

    /// Sends a large file to where the Hub said, unless it is there already.
    pub(super) async fn large_file(
        &self,
        item: &UploadFile,
        hash: &str,
        batch: &Batch,
    ) -> Result<(), Failure> {
        let place = self.place().file(&item.name);
        let object = batch.objects.iter().find(|object| object.oid == hash);
        let object = object.ok_or_else(|| place.error("the Hub did not say where to upload it"))?;
        if let Some(error) = &object.error {
            let message = format!("the Hub refuses it: {} ({})", error.message, error.code);
            return Err(place.error(message).into());
        }
        let Some(actions) = &object.actions else {
            self.tell(self.sent.fetch_add(item.bytes, Ordering::Relaxed) + item.bytes);
            return Ok(());
        };
        self.progress.tell(Event::File {
            name: &item.name,
            bytes: item.bytes,
        });
        let upload = &actions.upload;
        match upload.header.get("chunk_size") {
            None => self
                .put(place, item, 0, item.bytes, upload, &upload.header)
                .await
                .map(drop)?,
            Some(size) => self.put_parts(place, item, hash, upload, size).await?,
        }
        let Some(verify) = &actions.verify else {
            return Ok(());
        };
        let url = self.target(place, &verify.href)?;
        let body = json!({ "oid": hash, "size": item.bytes });
        let verified = self.http.retry(place, self.progress, async || {
            let request = match self.http.endpoint().own(url.clone()) {
                Some(own) => self.http.post(own),
                None => self.http.unsigned(Method::POST, url.clone()),
            };
            answer(request.json(&body)).await
        });
        verified.await.map(drop)
    }

    /// Sends the bytes of `item` from `start` on as one request; gives the tag they were given.
    async fn put(
        &self,
        place: Place<'_>,
        item: &UploadFile,
        start: u64,
        length: u64,
        action: &Action,
        headers: &BTreeMap<String, Value>,
    ) -> Result<Option<String>, Failure> {
        let url = self.target(place, &action.href)?;
        let before = self.sent.load(Ordering::Relaxed);
        let response = self.http.retry(place, self.progress, async || {
            self.sent.store(before, Ordering::Relaxed);
            let mut request = self
                .http
                .unsigned(Method::PUT, url.clone())
                .header(CONTENT_LENGTH, length)
                .body(self.body(item, start, length)?);
            for (name, value) in headers {
                request = request.header(name, value.as_str().unwrap_or_default());
            }
            answer(request).await
        });
        let tag = response.await?.headers().get(ETAG).cloned();
        Ok(tag.and_then(|tag| tag.to_str().ok().map(String::from)))
    }

    /// Sends a file in parts of `size`, each to its own address, then says that they are all there.
    async fn put_parts(
        &self,
        place: Place<'_>,
        item: &UploadFile,
        hash: &str,
        upload: &Action,
        size: &Value,
    ) -> Result<(), Failure> {
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok());
        let size = size.filter(|&size| size > 0 && item.bytes.div_ceil(size) <= MAX_PARTS);
        let size = size.ok_or_else(|| place.error("the Hub names no size of parts"))?;
        let mut parts = Vec::new();
        for number in 1..=item.bytes.div_ceil(size) {
            // 1, or 00001
            let is_part = |(name, _): &(&String, &Value)| name.parse() == Ok(number);
            let href = upload
                .header
                .iter()
                .find(is_part)
                .and_then(|(_, href)| href.as_str());
            let href = href.ok_or_else(|| {
                place.error(format!("the Hub did not say where to upload part {number}"))
            })?;
            let start = (number - 1) * size;
            let action = Action {
                href: href.into(),
                header: BTreeMap::new(),
            };
            let length = size.min(item.bytes - start);
            let tag = self
                .put(place, item, start, length, &action, &action.header)
                .await?;
            let tag = tag.ok_or_else(|| place.error(format!("part {number} was given no tag")))?;
            parts.push(json!({ "partNumber": number, "etag": tag }));
        }
        let url = self.target(place, &upload.href)?;
        let body = json!({ "oid": hash, "parts": parts });
        let completed = self.http.retry(place, self.progress, async || {
            let request = lfs(self.http.unsigned(Method::POST, url.clone()));
            answer(request.json(&body)).await
        });
        completed.await.map(drop)
    }

    /// An address that the Hub gave, which may leave out its own.
    fn target(&self, place: Place<'_>, href: &str) -> Result<Url> {
        let url = self.http.endpoint().url([]).join(href);
        url.map_err(|error| place.error(format!("the Hub gave a wrong address, {href:?}: {error}")))
    }

    /// The bytes of a file as they are asked for.
    fn body(&self, item: &UploadFile, start: u64, length: u64) -> Result<reqwest::Body> {
        let file = item.open_at(start)?;
        let (progress, sent, total) = (self.progress.clone(), self.sent.clone(), self.total);
        let mut source = file.take(length);
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            match source.by_ref().take(CHUNK).read_to_end(&mut chunk) {
                Ok(0) => None,
                Ok(n) => {
                    let done = sent.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
                    progress.tell(Event::Transferred { done, total });
                    Some(Ok(chunk))
                }
                Err(error) => Some(Err(error)),
            }
        });
        Ok(reqwest::Body::wrap_stream(futures_util::stream::iter(
            chunks,
        )))
    }
}

/// A request in the media type of Git LFS.
fn lfs(request: RequestBuilder) -> RequestBuilder {
    request.header(ACCEPT, LFS).header(CONTENT_TYPE, LFS)
}

/// Where large files go.
#[derive(Deserialize, Default)]
pub(super) struct Batch {
    pub(super) transfer: Option<String>,
    #[serde(default)]
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Action,
    verify: Option<Action>,
}

/// A request that the Hub asks for.
#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}
