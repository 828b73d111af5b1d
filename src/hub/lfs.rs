//! Large files: sent to where the Hub says, by Git LFS.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde_json::{Value, json};

use super::address::Address;
use super::contents::UploadFile;
use super::failure::Failure;
use super::progress::{ByteCounter, Event};
use super::push::{Chosen, Upload};
use super::remote::Remote;
use super::request::Request;
use crate::Result;

const LFS: &str = "application/vnd.git-lfs+json";
/// Parts of one large file, as S3 has it.
const MAX_PARTS: u64 = 10_000;

impl Upload<'_> {
    /// Sends those of `files` that have a hash to where the Hub says.
    pub fn send_large(&self, files: &[Chosen<'_>]) -> Result<(), Failure> {
        let large = files.iter().filter_map(|(item, hash)| Some((*item, hash.as_deref()?)));
        let large: Vec<(&UploadFile, &str)> = large.collect();
        if large.is_empty() {
            return Ok(());
        }
        let object =
            |(item, hash): &(&UploadFile, &str)| json!({ "oid": hash, "size": item.bytes });
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": large.iter().map(object).collect::<Vec<_>>(),
            "hash_algo": "sha256",
            "ref": { "name": "main" },
        });
        let Remote { http, id, .. } = self.remote;
        let name = format!("{}.git", id.name);
        let address = http.endpoint.url([&*id.owner, &name, "info", "lfs", "objects", "batch"]);
        let ask = || lfs(http.post(address.clone()), &body).send()?.json();
        let batch: LfsBatch = self.remote.retry(None, ask)?;
        large.into_iter().try_for_each(|(item, hash)| self.send_one(&batch, item, hash))
    }

    /// Sends a large file to where the Hub said, unless it is there already.
    fn send_one(&self, batch: &LfsBatch, item: &UploadFile, hash: &str) -> Result<(), Failure> {
        let error = |message: &str| self.remote.error(Some(&item.name), message);
        let object = batch.objects.iter().find(|object| object.oid == hash);
        let object = object.ok_or_else(|| error("the Hub did not say where to upload it"))?;
        if let Some(refusal) = &object.error {
            let LfsRefusal { code, message } = refusal;
            return Err(error(&format!("the Hub refuses it: {message} ({code})")).into());
        }
        let Some(actions) = &object.actions else {
            self.sent.set(self.sent.done() + item.bytes);
            return Ok(());
        };
        self.remote.progress.tell(Event::File { name: &item.name, bytes: item.bytes });
        let upload = &actions.upload;
        match upload.header.get("chunk_size") {
            None => drop(self.put(item, (0, item.bytes), &upload.href, &upload.header)?),
            Some(size) => self.put_parts(item, hash, upload, size)?,
        }
        let Some(verify) = &actions.verify else {
            return Ok(());
        };
        let address = self.target(item, &verify.href)?;
        let body = json!({ "oid": hash, "size": item.bytes });
        let http = self.remote.http;
        let verify = || http.post(address.clone()).json(&body).send();
        self.remote.retry(Some(&item.name), verify).map(drop)
    }

    /// Sends the bytes of `item` from `start` on as one request; gives the tag they were given.
    fn put(
        &self,
        item: &UploadFile,
        (start, length): (u64, u64),
        href: &str,
        headers: &BTreeMap<String, Value>,
    ) -> Result<Option<String>, Failure> {
        let address = self.target(item, href)?;
        let before = self.sent.done();
        let response = self.remote.retry(Some(&item.name), || {
            self.sent.set(before);
            let mut request = self.remote.http.put(address.clone());
            for (name, value) in headers {
                request = request.header(name, value.as_str().unwrap_or_default());
            }
            let mut source = CountedRead { sent: &self.sent, source: item.part(start, length)? };
            request.send_from(&mut source, length)
        })?;
        Ok(response.header("etag").map(String::from))
    }

    /// Sends a file in parts of `size`, each to its own address, then says that they are all there.
    fn put_parts(
        &self,
        item: &UploadFile,
        hash: &str,
        upload: &LfsAction,
        size: &Value,
    ) -> Result<(), Failure> {
        let error = |message: String| self.remote.error(Some(&item.name), message);
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok());
        let size = size.filter(|&size| size > 0 && item.bytes.div_ceil(size) <= MAX_PARTS);
        let size = size.ok_or_else(|| error("the Hub names no size of parts".into()))?;
        let mut parts = Vec::new();
        for number in 1..=item.bytes.div_ceil(size) {
            // 1, or 00001
            let is_part = |(name, _): &(&String, &Value)| name.parse() == Ok(number);
            let href = upload.header.iter().find(is_part).and_then(|(_, href)| href.as_str());
            let unknown = || error(format!("the Hub did not say where to upload part {number}"));
            let start = (number - 1) * size;
            let part = (start, size.min(item.bytes - start));
            let tag = self.put(item, part, href.ok_or_else(unknown)?, &BTreeMap::new())?;
            let tag = tag.ok_or_else(|| error(format!("part {number} was given no tag")))?;
            parts.push(json!({ "partNumber": number, "etag": tag }));
        }
        let address = self.target(item, &upload.href)?;
        let body = json!({ "oid": hash, "parts": parts });
        let complete = || lfs(self.remote.http.post(address.clone()).unsigned(), &body).send();
        self.remote.retry(Some(&item.name), complete).map(drop)
    }

    /// An address that the Hub gave, which may leave out its own.
    fn target(&self, item: &UploadFile, href: &str) -> Result<Address> {
        let message = || format!("the Hub gave a wrong address, {href:?}");
        let address = self.remote.http.endpoint.address.join(href);
        address.ok_or_else(|| self.remote.error(Some(&item.name), message()))
    }
}

/// Bytes of a file, counted for the progress as they are read.
struct CountedRead<'a> {
    sent: &'a ByteCounter<'a>,
    source: std::io::Take<std::fs::File>,
}

impl Read for CountedRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.source.read(buffer)?;
        if n == 0 && !buffer.is_empty() && self.source.limit() > 0 {
            // the rest was promised, and would be waited for without end
            let message = "the file became shorter while it was sent";
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message));
        }
        self.sent.set(self.sent.done() + n as u64);
        Ok(n)
    }
}

/// A request with a body of JSON in the media type of Git LFS.
fn lfs<'a>(request: Request<'a>, body: &Value) -> Request<'a> {
    request.header("accept", LFS).body(LFS, body.to_string())
}

/// The Hub's answer: addresses of large files.
#[derive(Deserialize)]
struct LfsBatch {
    #[serde(default)]
    objects: Vec<LfsObject>,
}

#[derive(Deserialize)]
struct LfsObject {
    oid: String,
    actions: Option<LfsActions>,
    error: Option<LfsRefusal>,
}

#[derive(Deserialize)]
struct LfsRefusal {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct LfsActions {
    upload: LfsAction,
    verify: Option<LfsAction>,
}

/// A request that the Hub asks for.
#[derive(Deserialize)]
struct LfsAction {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}
