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
mod download;
mod endpoint;
mod failure;
mod http;
mod id;
mod links;
mod push;
mod request;
mod select;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Result};
use cache::Repo;
use download::fetch;
use failure::Failure;
use http::Http;

pub use id::ModelId;
pub use push::{Contents, LeftOut, UploadFile};

/// Where the Hub is, where its files are kept, and who asks.
///
/// # Example
///
/// ```
/// use candle_tcn::hub::HubConfig;
/// let config = HubConfig { token: Some("hf_secret".into()), ..HubConfig::new("cache") };
/// assert_eq!(config.endpoint, "https://huggingface.co");
/// // never printed
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq)]
pub struct HubConfig {
    /// The address of the Hub. User and password in it are sent where there is no token, and never printed.
    pub endpoint: String,
    /// The folder of the cache.
    pub cache_dir: PathBuf,
    /// The access token, if there is one.
    pub token: Option<String>,
    /// Use the cache only.
    pub offline: bool,
    /// Send the token, or the endpoint's user and password, over plain HTTP to other machines too.
    pub insecure: bool,
    /// How long a server may be silent before the request is made again.
    pub timeout: Duration,
}

impl HubConfig {
    /// The public Hub, nobody in particular, ten seconds of patience.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            cache_dir: cache_dir.into(),
            token: None,
            offline: false,
            insecure: false,
            timeout: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "(hidden)");
        f.debug_struct("HubConfig")
            .field("endpoint", &endpoint::without_credentials(&self.endpoint))
            .field("cache_dir", &self.cache_dir)
            .field("token", &token)
            .field("offline", &self.offline)
            .field("insecure", &self.insecure)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// What happens during a transfer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The transfer of a file begins.
    File {
        /// Its name in the repository.
        name: &'a str,
        /// Its size.
        bytes: u64,
    },
    /// So much of everything has been transferred.
    Transferred {
        /// Bytes that are there.
        done: u64,
        /// Bytes of all files that have to be transferred.
        total: u64,
    },
    /// The files of an upload, before the first of them is sent.
    Contents(&'a Contents),
    /// Something worth telling: a wait, another try, a copy used instead.
    Message(&'a str),
}

/// Who is told what happens. Called from several threads.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event<'_>) + Send + Sync>);

impl Progress {
    /// Calls `f` with every event.
    pub fn new(f: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Nobody is told.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    fn tell(&self, event: Event<'_>) {
        (self.0)(event);
    }

    fn message(&self, text: &str) {
        self.tell(Event::Message(text));
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

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
    fn whole(dir: PathBuf) -> Result<Self> {
        let weights = crate::weights::open(crate::weights::find(&dir)?)?;
        let sized = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let file = path.metadata().map_err(|e| Error::io(path, e))?;
            Ok((name.into_owned(), file.len()))
        };
        let weights = weights.paths().map(sized).collect::<Result<_>>()?;
        Ok(Self { dir, weights })
    }
}

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
        let http = match config.offline {
            true => None,
            false => Some(Http::new(&config)?),
        };
        Ok(Self { config, http })
    }

    /// `true` if a token or password goes over plain HTTP to another machine.
    pub fn is_overheard(&self) -> bool {
        let http = self.http.as_ref();
        http.is_some_and(|http| http.endpoint().is_overheard())
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
        let repo = Repo::new(&self.config.cache_dir, &id);
        let Some(http) = &self.http else {
            return self.cached(&id, &repo);
        };
        match fetch(http, &id, &repo, progress) {
            Ok(dir) => Ok(dir),
            Err(Failure { error, unreachable: true }) => match self.cached(&id, &repo) {
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
        let repo = Repo::new(&self.config.cache_dir, &id);
        let Some(http) = &self.http else {
            return Inspected::whole(self.cached(&id, &repo)?);
        };
        download::inspect(http, &id, &repo, progress).map_err(|failure| failure.error)
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
            return Err(Error::hub(parsed, None, message));
        };
        let upload = push::Upload::new(http, &parsed, dir.as_ref(), progress)?;
        upload.run(private).map_err(|failure| failure.error)
    }
}
