//! Files from the Hub into the cache: resumed where they were cut, used only when they are right.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ureq::http::StatusCode;

use super::cache::{HubFile, RepoCache};
use super::config::HubConfig;
use super::failure::{Failure, Trouble};
use super::id::ModelId;
use super::progress::{ByteCounter, Event};
use super::remote::Remote;
use super::request::Response;
use super::select::select;
use crate::AtPath;
use crate::files::names::MAX_INDEX_BYTES;
use crate::files::shards::read_index;
use crate::files::weights;
use crate::{Error, Result};

/// A try that brought so much was worth it: it does not count.
const WORTH_IT: u64 = 1 << 20;

/// Bytes written at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// A model on the Hub whose weights were not downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The folder with its configuration and tokenizer.
    pub dir: PathBuf,
    /// Names and sizes of its weights.
    pub weights: Vec<(String, u64)>,
}

impl Inspected {
    /// A model whose weights are there.
    pub(super) fn whole(dir: PathBuf) -> Result<Self> {
        let weights = weights::open(weights::find(&dir)?)?;
        let sized = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let file = path.metadata().at(path)?;
            Ok((name.into_owned(), file.len()))
        };
        let weights = weights.paths().map(sized).collect::<Result<_>>()?;
        Ok(Self { dir, weights })
    }
}

/// Downloads a model, or all of it but its weights.
pub fn fetch(
    remote: Remote<'_>,
    cache: &RepoCache,
    with_weights: bool,
) -> Result<Inspected, Failure> {
    let commit = remote.commit()?;
    let files = remote.files(&commit)?;
    let bytes = ByteCounter::new(remote.progress, 0);
    let download = Download { remote, cache, files: &files, commit: &commit, bytes };
    let weights = download.small_files()?;
    if with_weights {
        download.all(weights.iter().map(String::as_str))?;
    }
    let dir = cache.snapshot(&commit);
    cache.check_links(&dir)?;
    if with_weights && remote.id.revision() != commit {
        cache.set_commit(remote.id.revision(), &commit)?;
    }
    let size = |name: &str| files.get(name).map_or(0, |file| file.size);
    Ok(Inspected {
        dir,
        weights: weights.into_iter().map(|name| (name.clone(), size(&name))).collect(),
    })
}

/// The snapshot of a model, if the cache has every file it needs.
pub fn cached(config: &HubConfig, id: &ModelId, cache: &RepoCache) -> Result<PathBuf> {
    let missing = |fault: String| {
        let how = match config.offline {
            true => "unset HF_HUB_OFFLINE to download it",
            false => "it has to be downloaded",
        };
        let dir = config.cache_dir.display();
        Error::hub(id.to_string(), None, format!("{fault} in the cache {dir}; {how}"))
    };
    let cut = |fault: String| missing(format!("the copy is not whole: {fault}"));
    let none = || missing("there is no copy".into());
    let snapshot = cache.snapshot(&cache.commit(id.revision())?.ok_or_else(none)?);
    if !snapshot.is_dir() {
        return Err(none());
    }
    cache.check_links(&snapshot)?;
    let has = |name: &str| snapshot.join(name).is_file();
    let chosen = select(has).map_err(cut)?;
    for name in chosen.files.iter().chain(&[chosen.weights]) {
        cache.check_cached(&snapshot.join(name))?;
    }
    if chosen.is_sharded() {
        for shard in read_index(&snapshot.join(chosen.weights))?.into_keys() {
            if !has(&shard) {
                return Err(cut(format!("there is no {shard}")));
            }
            cache.check_cached(&snapshot.join(shard))?;
        }
    }
    Ok(snapshot)
}

/// The download of one commit.
struct Download<'a> {
    remote: Remote<'a>,
    cache: &'a RepoCache,
    files: &'a BTreeMap<String, HubFile>,
    commit: &'a str,
    bytes: ByteCounter<'a>,
}

impl Download<'_> {
    /// Downloads all but the weights, whose names it gives.
    fn small_files(&self) -> Result<Vec<String>, Failure> {
        let (remote, files) = (self.remote, self.files);
        let chosen = select(|name| files.contains_key(name))
            .map_err(|missing| Error::hub(remote.id.to_string(), Some(404), missing))?;
        let index = chosen.weights;
        if !chosen.is_sharded() {
            self.all(chosen.files.into_iter())?;
            return Ok(vec![index.to_string()]);
        }
        if files.get(index).is_some_and(|index| index.size > MAX_INDEX_BYTES) {
            let message = format!("expected an index of at most {MAX_INDEX_BYTES} bytes");
            return Err(remote.error(Some(index), message).into());
        }
        self.all(chosen.files.into_iter().chain([index]))?;
        // what the loader would refuse is refused before its gigabytes come
        let shards = read_index(&self.cache.snapshot(self.commit).join(index))?;
        if let Some(shard) = shards.keys().find(|shard| !files.contains_key(*shard)) {
            let message = format!("named by {index}, but the repository has no such file");
            return Err(remote.error(Some(shard), message).into());
        }
        Ok(shards.into_keys().collect())
    }

    /// Downloads those of `names` that the cache lacks, and links them all.
    fn all<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), Failure> {
        let mut lacking = Vec::new();
        for file in names.filter_map(|name| self.files.get(name)) {
            match self.cache.has(file)? {
                true => self.cache.link(self.commit, file)?,
                false if self.cache.has_copy(self.commit, file)? => {}
                false => {
                    self.bytes.expect(file.size);
                    lacking.push(file);
                }
            }
        }
        for file in lacking {
            self.one(file)?;
            self.cache.link(self.commit, file)?;
        }
        Ok(())
    }

    /// Downloads a file, unless another process does so first.
    fn one(&self, file: &HubFile) -> Result<(), Failure> {
        let _lock = self.cache.lock(file, self.remote.progress)?;
        let before = self.bytes.done();
        if !self.cache.has(file)? {
            self.remote.progress.tell(Event::File { name: &file.path, bytes: file.size });
            self.right_bytes(file)?;
            self.cache.keep(&file.hash)?;
        }
        self.bytes.set(before + file.size);
        Ok(())
    }

    /// Fills the partial file until it is right, however often the connection is cut: the bytes from before may be
    /// wrong, or the new ones damaged on the way, so it is begun anew once.
    fn right_bytes(&self, file: &HubFile) -> Result<(), Failure> {
        let (remote, before) = (self.remote, self.bytes.done());
        let partial = self.cache.partial(&file.hash);
        let (expected, mut is_second) = (&file.hash, false);
        loop {
            while !remote.retry(Some(&file.path), || self.attempt(file, &partial, before))? {}
            let hash = expected.of_same_kind(&partial, file.size).at(&partial)?;
            if hash == *expected {
                return Ok(());
            }
            std::fs::remove_file(&partial).at(&partial)?;
            if std::mem::replace(&mut is_second, true) {
                let message = format!(
                    "expected a file with hash {expected}, found {hash}: it is damaged on the server or on the \
                     way; nothing of it is kept"
                );
                return Err(remote.error(Some(&file.path), message).into());
            }
            let message = "what arrived has the wrong hash; downloading it anew";
            remote.progress.message(&format!("{}: {message}", file.path));
        }
    }

    /// One request for more bytes; `false` if there are more to come, so that the tries are counted anew.
    fn attempt(&self, file: &HubFile, partial: &Path, before: u64) -> Result<bool, Trouble> {
        let start = length(partial);
        match self.more_bytes(file, partial, before) {
            Err(Trouble::Transport { .. }) if length(partial) >= start + WORTH_IT => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// One request for the bytes that are still lacking.
    fn more_bytes(&self, file: &HubFile, partial: &Path, before: u64) -> Result<(), Trouble> {
        let mut output = self.cache.open_partial(&file.hash)?;
        let mut have = length(partial);
        if have > file.size {
            output.set_len(0).at(partial)?;
            have = 0;
        }
        self.bytes.set(before + have);
        if have == file.size {
            return Ok(());
        }
        let response = match self.request(file, have) {
            Err(Trouble::Http(answer)) if answer.status == 416 && have > 0 => {
                output.set_len(0).at(partial)?;
                return Err(Trouble::broken("the server cannot go on from the middle"));
            }
            other => other?,
        };
        // a server that does not know ranges begins at the beginning
        if have > 0 && !continues(&response, have) {
            output.set_len(0).at(partial)?;
            have = 0;
        }
        let (mut body, mut buffer) = (response.reader(), vec![0; BUFFER_BYTES]);
        while let read @ 1.. = body.read(&mut buffer)? {
            have += read as u64;
            if have > file.size {
                output.set_len(0).at(partial)?;
                return Err(Trouble::broken("the file is longer than the Hub said"));
            }
            output.write_all(&buffer[..read]).at(partial)?;
            self.bytes.set(before + have);
        }
        if have < file.size {
            return Err(Trouble::broken("the connection ended too early"));
        }
        Ok(())
    }

    /// Asks for the bytes of a file from `start` on.
    fn request(&self, file: &HubFile, start: u64) -> Result<Response, Trouble> {
        let Remote { http, id, .. } = self.remote;
        let parts = [&*id.owner, &id.name, "resolve", self.commit];
        let request = http.get(http.endpoint.url(parts.into_iter().chain(file.path.split('/'))));
        match start {
            0 => request.send(),
            _ => request.header("range", format!("bytes={start}-")).send(),
        }
    }
}

/// `true` if a response is the part from `start` on.
fn continues(response: &Response, start: u64) -> bool {
    let range = response.header("content-range").unwrap_or("");
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.starts_with(&format!("bytes {start}-"))
}

/// The length of a file, 0 if there is none.
fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}
