//! Files from the Hub into the cache: resumed where they were cut, used only when they are right.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_RANGE, RANGE};

use super::cache::{Entry, Repo};
use super::failure::{Failure, Place, Trouble};
use super::http::Http;
use super::id::ModelId;
use super::request::Response;
use super::select::select;
use super::{Event, Hub, Inspected, Progress};
use crate::weights::index::{self, MAX_INDEX_BYTES};
use crate::{Error, Result};

/// A try that brought so much was worth it: it does not count.
const WORTH_IT: u64 = 1 << 20;

/// Bytes written at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// The snapshot of a model, with every file it needs.
pub fn fetch(
    http: &Http,
    id: &ModelId,
    repo: &Repo,
    progress: &Progress,
) -> Result<PathBuf, Failure> {
    let commit = http.commit(id, progress)?;
    let files = http.files(id, &commit, progress)?;
    let mut fetch = Fetch::new(http, id, repo, &commit, progress);
    let small = fetch.small(&files)?;
    fetch.all(&files, small.weights.iter().map(String::as_str))?;
    repo.check_links(&small.snapshot)?;
    if id.revision() != commit {
        repo.set_commit(id.revision(), &commit)?;
    }
    Ok(small.snapshot)
}

/// The snapshot of a model without its weights, whose names and sizes are told.
pub fn inspect(
    http: &Http,
    id: &ModelId,
    repo: &Repo,
    progress: &Progress,
) -> Result<Inspected, Failure> {
    let commit = http.commit(id, progress)?;
    let files = http.files(id, &commit, progress)?;
    let small = Fetch::new(http, id, repo, &commit, progress).small(&files)?;
    repo.check_links(&small.snapshot)?;
    let sized = |name: String| {
        let bytes = files.get(&name).map_or(0, |entry| entry.size);
        (name, bytes)
    };
    Ok(Inspected { dir: small.snapshot, weights: small.weights.into_iter().map(sized).collect() })
}

/// A snapshot that lacks nothing but weights.
struct Small {
    snapshot: PathBuf,
    weights: Vec<String>,
}

impl Hub {
    /// The snapshot of a model, if the cache has every file it needs.
    pub(super) fn cached(&self, id: &ModelId, repo: &Repo) -> Result<PathBuf> {
        let missing = |what: String| {
            let how = match self.config.offline {
                true => "unset HF_HUB_OFFLINE to download it",
                false => "it has to be downloaded",
            };
            Error::hub(
                id.clone(),
                None,
                format!("{what} in the cache {}; {how}", self.config.cache_dir.display()),
            )
        };
        let none = || missing("there is no copy".into());
        let snapshot = repo.snapshot(&repo.commit(id.revision())?.ok_or_else(none)?);
        if !snapshot.is_dir() {
            return Err(none());
        }
        repo.check_links(&snapshot)?;
        let has = |name: &str| snapshot.join(name).is_file();
        let chosen =
            select(has).map_err(|what| missing(format!("the copy is not whole: {what}")))?;
        let mut files: Vec<PathBuf> = chosen.files.iter().map(|name| snapshot.join(name)).collect();
        if chosen.sharded
            && let Some(index) = files.last()
        {
            for shard in index::read(index)?.into_keys() {
                if !has(&shard) {
                    return Err(missing(format!("the copy is not whole: there is no {shard}")));
                }
                files.push(snapshot.join(shard));
            }
        }
        files.iter().try_for_each(|file| repo.check_cached(file))?;
        Ok(snapshot)
    }
}

/// The download of one commit.
struct Fetch<'a> {
    http: &'a Http,
    id: &'a ModelId,
    repo: &'a Repo,
    commit: &'a str,
    progress: &'a Progress,
    done: u64,
    total: u64,
}

impl<'a> Fetch<'a> {
    fn new(
        http: &'a Http,
        id: &'a ModelId,
        repo: &'a Repo,
        commit: &'a str,
        progress: &'a Progress,
    ) -> Self {
        Self { http, id, repo, commit, progress, done: 0, total: 0 }
    }

    /// Downloads all but the weights, and finds out which files those are.
    fn small(&mut self, files: &BTreeMap<String, Entry>) -> Result<Small, Failure> {
        let place = self.place();
        let chosen = select(|name| files.contains_key(name));
        let chosen = chosen.map_err(|missing| Error::hub(self.id.clone(), Some(404), missing))?;
        let snapshot = self.repo.snapshot(self.commit);
        let (&last, small) = chosen.files.split_last().unwrap_or((&"", &[]));
        if !chosen.sharded {
            self.all(files, small.iter().copied())?;
            let weights = vec![last.to_string()];
            return Ok(Small { snapshot, weights });
        }
        if files.get(last).is_some_and(|index| index.size > MAX_INDEX_BYTES) {
            let message = format!("expected an index of at most {MAX_INDEX_BYTES} bytes");
            return Err(place.file(last).error(message).into());
        }
        self.all(files, chosen.files.iter().copied())?;
        // what the loader would refuse is refused before its gigabytes come
        let shards = index::read(&snapshot.join(last))?;
        if let Some(shard) = shards.keys().find(|shard| !files.contains_key(*shard)) {
            let message = format!("named by {last}, but the repository has no such file");
            return Err(place.file(shard).error(message).into());
        }
        let weights = shards.into_keys().collect();
        Ok(Small { snapshot, weights })
    }

    fn place(&self) -> Place<'a> {
        self.http.place(self.id)
    }

    /// Downloads those of `names` that the cache lacks, and links them all.
    fn all<'n>(
        &mut self,
        files: &BTreeMap<String, Entry>,
        names: impl Iterator<Item = &'n str>,
    ) -> Result<(), Failure> {
        let mut lacking = Vec::new();
        for entry in names.filter_map(|name| files.get(name)) {
            match self.repo.has(entry)? {
                true => self.repo.link(self.commit, entry)?,
                false if self.repo.has_copy(self.commit, entry)? => {}
                false => {
                    self.total = self.total.saturating_add(entry.size);
                    lacking.push(entry);
                }
            }
        }
        for entry in lacking {
            self.one(entry)?;
            self.repo.link(self.commit, entry)?;
        }
        Ok(())
    }

    /// Downloads a file, unless another process does so first.
    fn one(&mut self, entry: &Entry) -> Result<(), Failure> {
        let _lock = self.repo.lock(entry, self.progress)?;
        let before = self.done;
        if !self.repo.has(entry)? {
            self.progress.tell(Event::File { name: &entry.path, bytes: entry.size });
            self.right_bytes(entry)?;
            self.repo.keep(&entry.hash)?;
        }
        self.arrived(before + entry.size);
        Ok(())
    }

    /// Fills the partial file until it is right: what was there before may be wrong, or what arrived
    /// damaged on the way, so it is begun anew once.
    fn right_bytes(&mut self, entry: &Entry) -> Result<(), Failure> {
        let partial = self.repo.partial(&entry.hash);
        let found = |size| entry.hash.of_same_kind(&partial, size);
        self.all_bytes(entry, &partial)?;
        let mut hash = found(entry.size).map_err(|e| Error::io(&partial, e))?;
        if hash != entry.hash {
            self.progress.message(&format!(
                "{}: what arrived has the wrong hash; downloading it anew",
                entry.path
            ));
            remove(&partial)?;
            self.all_bytes(entry, &partial)?;
            hash = found(entry.size).map_err(|e| Error::io(&partial, e))?;
        }
        if hash != entry.hash {
            remove(&partial)?;
            let message = format!(
                "expected a file with hash {}, found {hash}: it is damaged on the server or on the way; nothing \
                 of it is kept",
                entry.hash
            );
            return Err(self.place().file(&entry.path).error(message).into());
        }
        Ok(())
    }

    /// Fills the partial file up to its size, however often the connection is cut.
    fn all_bytes(&mut self, entry: &Entry, partial: &Path) -> Result<(), Failure> {
        let place = self.place().file(&entry.path);
        let (http, progress) = (self.http, self.progress);
        let before = self.done;
        loop {
            let attempt = || {
                let start = length(partial);
                match self.more_bytes(entry, partial, before) {
                    // worth it: begin to count the tries anew
                    Err(Trouble::Transport { .. }) if length(partial) >= start + WORTH_IT => {
                        Ok(false)
                    }
                    other => other.map(|()| true),
                }
            };
            if http.retry(&place, progress, attempt)? {
                return Ok(());
            }
        }
    }

    /// One request for what is still lacking.
    fn more_bytes(&mut self, entry: &Entry, partial: &Path, before: u64) -> Result<(), Trouble> {
        let io = |error| Trouble::Fatal(Error::io(partial, error));
        let mut file = self.repo.open_partial(&entry.hash)?;
        let mut have = length(partial);
        if have > entry.size {
            file.set_len(0).map_err(io)?;
            have = 0;
        }
        self.arrived(before + have);
        if have == entry.size {
            return Ok(());
        }
        let parts = [self.id.owner(), self.id.name(), "resolve", self.commit];
        let parts = parts.into_iter().chain(entry.path.split('/'));
        let request = self.http.get(self.http.endpoint().url(parts));
        let request = match have {
            0 => request,
            _ => request.header(RANGE.as_str(), format!("bytes={have}-")),
        };
        let response = match request.send() {
            Err(Trouble::Http(answer)) if answer.status == 416 && have > 0 => {
                file.set_len(0).map_err(io)?;
                return Err(Trouble::broken("the server cannot go on from the middle"));
            }
            other => other?,
        };
        // a server that does not know ranges begins at the beginning
        if have > 0 && !continues(&response, have) {
            file.set_len(0).map_err(io)?;
            have = 0;
        }
        let (mut body, mut buffer) = (response.reader(), vec![0; BUFFER_BYTES]);
        loop {
            let chunk = match body.read(&mut buffer)? {
                0 => break,
                n => &buffer[..n],
            };
            have += chunk.len() as u64;
            if have > entry.size {
                file.set_len(0).map_err(io)?;
                return Err(Trouble::broken("the file is longer than the Hub said"));
            }
            file.write_all(chunk).map_err(io)?;
            self.arrived(before + have);
        }
        match have == entry.size {
            true => Ok(()),
            false => Err(Trouble::broken("the connection ended too early")),
        }
    }

    fn arrived(&mut self, done: u64) {
        self.done = done;
        self.progress.tell(Event::Transferred { done, total: self.total });
    }
}

/// Whether a response is the part from `start` on.
fn continues(response: &Response, start: u64) -> bool {
    let range = response.header(CONTENT_RANGE.as_str()).unwrap_or("");
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.starts_with(&format!("bytes {start}-"))
}

/// The length of a file, 0 if there is none.
fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(|e| Error::io(path, e))
}
