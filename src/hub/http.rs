//! Requests to the Hub, tried again where that may help.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Method;
use ureq::http::header::LINK;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use super::address::Address;
use super::cache::{Entry, Hash, is_commit};
use super::endpoint::Endpoint;
use super::failure::{Answer, Failure, Place, Trouble};
use super::id::ModelId;
use super::request::{Request, Response};
use super::select::is_plain;
use super::{HubConfig, Progress};
use crate::{Error, Result};

const USER_AGENT: &str = concat!("candle-tcn/", env!("CARGO_PKG_VERSION"));

/// Tries of one request; fewer where there is not even a connection.
const TRIES: usize = 5;
const TRIES_TO_CONNECT: usize = 3;
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest a server may make us wait.
const MAX_DELAY: Duration = Duration::from_secs(300);

const MAX_PAGES: usize = 1000;

#[derive(Debug)]
pub struct Http {
    endpoint: Endpoint,
    /// What the header `Authorization` says to the Hub.
    secret: Option<String>,
    has_token: bool,
    client: Agent,
    /// Without a limit on silence: a server says nothing while it is sent a file.
    patient: Agent,
}

impl Http {
    pub fn new(config: &HubConfig) -> Result<Self> {
        let endpoint = Endpoint::new(config)?;
        let token = config.token.as_deref().filter(|token| !token.is_empty());
        if token.is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::invalid(
                "HF_TOKEN",
                "a token of visible ASCII characters",
                "other characters in it",
            ));
        }
        let certificates = certificates()?;
        // in the place of user and password of the address
        let bearer = token.map(|token| format!("Bearer {token}"));
        let secret = bearer.or_else(|| endpoint.basic().map(String::from));
        Ok(Self {
            has_token: token.is_some(),
            client: agent(&endpoint, &certificates, config.timeout, Some(config.timeout)),
            patient: agent(&endpoint, &certificates, config.timeout, None),
            secret,
            endpoint,
        })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub fn place<'a>(&self, id: &'a ModelId) -> Place<'a> {
        Place {
            id,
            file: None,
            endpoint: self.endpoint.shown(),
            token: self.has_token,
            writing: false,
        }
    }

    /// What tells the Hub who asks.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// A request for a file or a list.
    pub fn get(&self, address: Address) -> Request<'_> {
        Request::new(self, &self.client, Method::GET, address)
    }

    /// A request that may take its time.
    pub fn post(&self, address: Address) -> Request<'_> {
        Request::new(self, &self.patient, Method::POST, address)
    }

    /// A request that takes a file to where the Hub points: it never sees the token.
    pub fn put(&self, address: Address) -> Request<'_> {
        Request::new(self, &self.patient, Method::PUT, address).unsigned()
    }

    /// Tries `attempt` until it succeeds or another try cannot help, as long apart as the server
    /// says.
    pub fn retry<T>(
        &self,
        place: &Place,
        progress: &Progress,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let trouble = match attempt() {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            };
            let delay = trouble.retry_after().unwrap_or(FIRST_DELAY * (1 << (tries - 1)));
            let most = match trouble {
                Trouble::Transport { connect: true, .. } => TRIES_TO_CONNECT,
                _ => TRIES,
            };
            if !trouble.is_transient() || tries >= most || delay > MAX_DELAY {
                return Err(place.failure(trouble, tries));
            }
            if delay >= Duration::from_secs(1) {
                progress.message(&format!(
                    "{}: {trouble}; trying again in {} s",
                    place.file.unwrap_or(&place.endpoint),
                    delay.as_secs()
                ));
            }
            std::thread::sleep(delay);
        }
    }

    /// The address of the API for a repository, and of `more` below it.
    pub fn api(&self, id: &ModelId, more: &[&str]) -> Address {
        let parts = ["api", "models", id.owner(), id.name()];
        self.endpoint.url(parts.into_iter().chain(more.iter().copied()))
    }

    /// `true` if there is such a repository.
    pub fn exists(&self, id: &ModelId) -> bool {
        self.get(self.api(id, &[])).send().is_ok()
    }

    /// The commit that a revision is now.
    pub fn commit(&self, id: &ModelId, progress: &Progress) -> Result<String, Failure> {
        if is_commit(id.revision()) {
            return Ok(id.revision().to_ascii_lowercase());
        }
        let place = self.place(id);
        let address = self.api(id, &["revision", id.revision()]);
        let info: Info = self.retry(&place, progress, || {
            let answer = self.get(address.clone()).send();
            answer.map_err(|trouble| self.which_is_missing(id, trouble))?.json()
        })?;
        match info.sha {
            Some(commit) if is_commit(&commit) => Ok(commit.to_ascii_lowercase()),
            other => Err(place
                .error(format!(
                    "expected {} to name a commit of 40 hexadecimal digits, found {other:?}",
                    self.endpoint.shown()
                ))
                .into()),
        }
    }

    /// Finds out, where a server does not say it, whether it is the repository or the revision that
    /// there is not.
    fn which_is_missing(&self, id: &ModelId, trouble: Trouble) -> Trouble {
        match trouble {
            Trouble::Http(answer) if answer.status == 404 && answer.code.is_none() => {
                let code = match self.exists(id) {
                    true => "RevisionNotFound",
                    false => "RepoNotFound",
                };
                Trouble::Http(Answer { code: Some(code.into()), ..answer })
            }
            other => other,
        }
    }

    /// The files of a commit by their names.
    pub fn files(
        &self,
        id: &ModelId,
        commit: &str,
        progress: &Progress,
    ) -> Result<BTreeMap<String, Entry>, Failure> {
        let place = self.place(id);
        let first = self.api(id, &["tree", commit]).with_query("recursive=true");
        let mut files = BTreeMap::new();
        let mut next = Some(first);
        for _ in 0..MAX_PAGES {
            let Some(address) = next.take() else {
                return Ok(files);
            };
            let (following, listed) = self.retry(&place, progress, || {
                let response = self.get(address.clone()).send()?;
                Ok((next_page(&response), response.json::<Vec<Listed>>()?))
            })?;
            next = following.filter(|address| self.endpoint.is_own(address));
            let entries = listed.into_iter().filter_map(Listed::entry);
            files.extend(entries.map(|entry| (entry.path.clone(), entry)));
        }
        Err(place.error(format!("the list of files is longer than {MAX_PAGES} pages")).into())
    }
}

/// Those of the system, or of the file that SSL_CERT_FILE names.
fn certificates() -> Result<RootCerts> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        let message = format!(
            "found no certificates to check servers by{why}: install those of the system (the package \
             ca-certificates), or name them by SSL_CERT_FILE"
        );
        return Err(Error::hub("the network", None, message));
    }
    Ok(RootCerts::new_with_certs(
        &found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>(),
    ))
}

/// The proxy of the environment: for plain http only one that is meant for it, and none to this machine, since
/// whoever runs it would read the token.
fn proxy(endpoint: &Endpoint) -> Option<Proxy> {
    if endpoint.is_secure() {
        return Proxy::try_from_env();
    }
    let named = ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
    let is_meant = named.iter().any(|name| std::env::var_os(name).is_some());
    Proxy::try_from_env().filter(|_| is_meant && !endpoint.is_here())
}

/// A client that bears `silence` between two bytes; redirects are followed by whoever knows who may see what.
fn agent(
    endpoint: &Endpoint,
    certificates: &RootCerts,
    timeout: Duration,
    silence: Option<Duration>,
) -> Agent {
    let certificates = TlsConfig::builder().root_certs(certificates.clone());
    Agent::config_builder()
        .user_agent(USER_AGENT)
        .accept_encoding("identity")
        .tls_config(certificates.build())
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_per_read(silence)
        // nor do redirects lead from there to plain HTTP
        .https_only(endpoint.is_secure())
        .proxy(proxy(endpoint))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .new_agent()
}

/// What the Hub says of a repository.
#[derive(Deserialize)]
pub struct Info {
    sha: Option<String>,
    pub private: Option<bool>,
}

/// An entry of the Hub's list of files.
#[derive(Deserialize)]
struct Listed {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: Option<String>,
    lfs: Option<Large>,
}

/// Of a file that git has only a pointer to.
#[derive(Deserialize)]
struct Large {
    oid: String,
    size: u64,
}

impl Listed {
    /// A file with a name that is safe and a hash.
    fn entry(self) -> Option<Entry> {
        let (hash, size) = match self.lfs {
            Some(large) => (large.oid, large.size),
            None => (self.oid?, self.size),
        };
        let hash = Hash::parse(&hash)?;
        (self.r#type == "file" && is_plain(&self.path)).then_some(Entry {
            path: self.path,
            size,
            hash,
        })
    }
}

/// The address of `Link: <...>; rel="next"`.
fn next_page(response: &Response) -> Option<Address> {
    let links = response.header(LINK.as_str())?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let target = next.trim().strip_prefix('<')?.split('>').next()?;
    response.address().join(target)
}
