//! The Hugging Face Hub: a model's name becomes a local directory, and a directory a repository.
//! The only network code of the crate.
//!
//! Files are kept in the cache that Python's `huggingface_hub` also uses, in its layout:
//!
//! ```text
//! models--org--name/blobs/HASH                       the files, named by their hash
//! models--org--name/refs/main                        the commit that a branch or tag stood at
//! models--org--name/snapshots/COMMIT/config.json     links to the files
//! .locks/models--org--name/HASH.lock                 held by whoever downloads
//! ```
//!
//! The crate `hf-hub` knows the layout. Requests are made here, by the client that it brings along: its own
//! downloads do not look at what arrived, neither at size nor hash, its lists of files lose the SHA-256 of large
//! files, and it uploads nothing. Large files are uploaded by Git LFS.

mod address;
mod cache;
mod config;
mod contents;
mod download;
mod endpoint;
mod explain;
mod failure;
mod http;
mod id;
mod lfs;
mod links;
mod progress;
mod push;
mod remote;
mod request;
mod select;

use std::path::{Path, PathBuf};

use crate::{Error, Result};
use cache::RepoCache;
use download::{cached, fetch};
use failure::Failure;
use http::Http;
use remote::Remote;

pub use config::HubConfig;
pub use contents::{Contents, LeftOut, UploadFile};
pub use download::Inspected;
pub use id::ModelId;
pub use progress::{Event, Progress};

/// The Hub and its cache.
///
/// Its methods wait for the network.
///
/// # Example
///
/// ```
/// use candle_tcn::hub::{Hub, HubConfig, Progress};
///
/// let cache = tempfile::tempdir()?;
/// let hub = Hub::new(HubConfig { offline: true, ..HubConfig::new(cache.path()) })?;
/// let error = hub.pull("songlab/gpn-brassicales@refs/pr/1", &Progress::silent()).unwrap_err();
/// assert!(error.to_string().contains("HF_HUB_OFFLINE"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    /// None where it is offline.
    http: Option<Http>,
}

impl Hub {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// Unless it is offline: [`Error::Invalid`] for an endpoint that is no http address, a token that
    /// cannot be sent, or that others could read on the way; [`Error::Hub`] for a system without certificates to
    /// check servers by.
    pub fn new(config: HubConfig) -> Result<Self> {
        let http = (!config.offline).then(|| Http::new(&config)).transpose()?;
        Ok(Self { config, http })
    }

    /// `true` if a token or password goes over plain HTTP to another machine.
    pub fn is_overheard(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.endpoint.is_overheard)
    }

    /// The directory of the model `org/name` or `org/name@revision` (a branch, a tag, a commit,
    /// `refs/pr/1`), whose files are downloaded where the cache lacks them.
    ///
    /// Only what a model needs: `config.json`; `tokenizer.json`, else `vocab.txt` and
    /// `tokenizer_config.json`; `README.md`; and of the weights the first of `model.safetensors`, the
    /// same in shards, `pytorch_model.bin`, the same in shards. A file is used only if its size and
    /// hash are those that the Hub says, one in the cache too. What an interrupted download left is
    /// continued. Of several processes one downloads, the others wait for it.
    ///
    /// If the Hub cannot be reached, the copy of the cache serves, and `progress` is told.
    ///
    /// # Errors
    /// [`Error::Hub`] naming repository, revision, file, HTTP status and what to do; [`Error::Io`]
    /// naming the file; [`Error::Invalid`] for what is no name.
    pub fn pull(&self, id: &str, progress: &Progress) -> Result<PathBuf> {
        let id: ModelId = id.parse()?;
        let cache = RepoCache::new(&self.config.cache_dir, &id);
        let Some(http) = &self.http else {
            return cached(&self.config, &id, &cache);
        };
        match fetch(Remote { http, id: &id, progress, is_upload: false }, &cache, true) {
            Ok(found) => Ok(found.dir),
            Err(Failure { error, unreachable: true }) => match cached(&self.config, &id, &cache) {
                Ok(dir) => {
                    progress.message(&format!("{error}. Using the copy in the cache"));
                    Ok(dir)
                }
                Err(_) => Err(error),
            },
            Err(failure) => Err(failure.error),
        }
    }

    /// The model `org/name` or `org/name@revision` but for its weights: of them the names and sizes, from the Hub's
    /// list. The small files are kept in the cache; what `revision` was when a whole model was pulled is not forgotten.
    ///
    /// # Errors
    /// As [`Hub::pull`].
    pub fn inspect(&self, id: &str, progress: &Progress) -> Result<Inspected> {
        let id: ModelId = id.parse()?;
        let cache = RepoCache::new(&self.config.cache_dir, &id);
        let Some(http) = &self.http else {
            return Inspected::whole(cached(&self.config, &id, &cache)?);
        };
        let remote = Remote { http, id: &id, progress, is_upload: false };
        fetch(remote, &cache, false).map_err(|failure| failure.error)
    }

    /// Makes the repository `org/name` if there is none, uploads the files of a model directory as
    /// one commit, and gives the repository's address.
    ///
    /// Uploaded are the files of [`Contents::of`] `dir`, of which `progress` is told first.
    ///
    /// # Errors
    /// As [`Hub::pull`]; those of [`Contents::of`]; also where `private` is asked
    /// for and the repository exists and is public.
    pub fn push(
        &self,
        dir: impl AsRef<Path>,
        id: &str,
        private: bool,
        progress: &Progress,
    ) -> Result<String> {
        let parsed = ModelId::without_revision(id)?;
        let Some(http) = &self.http else {
            let message = "uploading needs the network; unset HF_HUB_OFFLINE";
            return Err(Error::hub(parsed.to_string(), None, message));
        };
        let remote = Remote { http, id: &parsed, progress, is_upload: true };
        push::Upload::new(remote, dir.as_ref())?.run(private).map_err(|failure| failure.error)
    }
}
