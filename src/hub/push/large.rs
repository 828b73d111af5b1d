//! Large files: sent to where the Hub says, by Git LFS.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::header::{ACCEPT, CONTENT_TYPE, ETAG};

use super::{Upload, UploadFile};
use crate::Result;
use crate::hub::Event;
use crate::hub::address::Address;
use crate::hub::failure::{Failure, Place};
use crate::hub::request::Request;

const LFS: &str = "application/vnd.git-lfs+json";
/// Parts of one large file, as S3 has it.
const MAX_PARTS: u64 = 10_000;

impl Upload<'_> {
    /// Asks where large files go.
    pub(super) fn batch(
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
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": "main" },
        });
        let name = format!("{}.git", self.id.name());
        let parts = [self.id.owner(), &name, "info", "lfs", "objects", "batch"];
        let address = self.http.endpoint().url(parts);
        self.http.retry(&self.place(), self.progress, || {
            lfs(self.http.post(address.clone())).json(&body).send()?.json()
        })
    }

    /// Sends a large file to where the Hub said, unless it is there already.
    pub(super) fn large_file(
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
            self.sent.set(self.sent.get() + item.bytes);
            self.tell(self.sent.get());
            return Ok(());
        };
        self.progress.tell(Event::File { name: &item.name, bytes: item.bytes });
        let upload = &actions.upload;
        match upload.header.get("chunk_size") {
            None => {
                let all = (0, item.bytes);
                self.put(&place, item, all, upload, &upload.header).map(drop)?
            }
            Some(size) => self.put_parts(&place, item, hash, upload, size)?,
        }
        let Some(verify) = &actions.verify else {
            return Ok(());
        };
        let address = self.target(&place, &verify.href)?;
        let body = json!({ "oid": hash, "size": item.bytes });
        let verified = self
            .http
            .retry(&place, self.progress, || self.http.post(address.clone()).json(&body).send());
        verified.map(drop)
    }

    /// Sends the bytes of `item` from `start` on as one request; gives the tag they were given.
    fn put(
        &self,
        place: &Place,
        item: &UploadFile,
        (start, length): (u64, u64),
        action: &Action,
        headers: &BTreeMap<String, Value>,
    ) -> Result<Option<String>, Failure> {
        let address = self.target(place, &action.href)?;
        let before = self.sent.get();
        let response = self.http.retry(place, self.progress, || {
            self.sent.set(before);
            let mut request = self.http.put(address.clone());
            for (name, value) in headers {
                request = request.header(name, value.as_str().unwrap_or_default());
            }
            let mut source = Told { upload: self, source: item.open_at(start)?.take(length) };
            request.send_from(&mut source, length)
        })?;
        Ok(response.header(ETAG.as_str()).map(String::from))
    }

    /// Sends a file in parts of `size`, each to its own address, then says that they are all there.
    fn put_parts(
        &self,
        place: &Place,
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
            let href = upload.header.iter().find(is_part).and_then(|(_, href)| href.as_str());
            let href = href.ok_or_else(|| {
                place.error(format!("the Hub did not say where to upload part {number}"))
            })?;
            let start = (number - 1) * size;
            let action = Action { href: href.into(), header: BTreeMap::new() };
            let length = size.min(item.bytes - start);
            let tag = self.put(place, item, (start, length), &action, &action.header)?;
            let tag = tag.ok_or_else(|| place.error(format!("part {number} was given no tag")))?;
            parts.push(json!({ "partNumber": number, "etag": tag }));
        }
        let address = self.target(place, &upload.href)?;
        let body = json!({ "oid": hash, "parts": parts });
        let completed = self.http.retry(place, self.progress, || {
            lfs(self.http.post(address.clone()).unsigned()).json(&body).send()
        });
        completed.map(drop)
    }

    /// An address that the Hub gave, which may leave out its own.
    fn target(&self, place: &Place, href: &str) -> Result<Address> {
        let address = self.http.endpoint().url([]).join(href);
        address.ok_or_else(|| place.error(format!("the Hub gave a wrong address, {href:?}")))
    }
}

/// Bytes of a file, of which whoever watches is told as they are read.
struct Told<'a> {
    upload: &'a Upload<'a>,
    source: std::io::Take<std::fs::File>,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.source.read(buffer)?;
        if n == 0 && !buffer.is_empty() && self.source.limit() > 0 {
            // the rest was promised, and would be waited for without end
            let message = "the file became shorter while it was sent";
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message));
        }
        self.upload.sent.set(self.upload.sent.get() + n as u64);
        self.upload.tell(self.upload.sent.get());
        Ok(n)
    }
}

/// A request in the media type of Git LFS.
fn lfs(request: Request<'_>) -> Request<'_> {
    let request = request.header(ACCEPT.as_str(), LFS);
    request.header(CONTENT_TYPE.as_str(), LFS)
}

/// Where large files go.
#[derive(Deserialize, Default)]
pub(super) struct Batch {
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
