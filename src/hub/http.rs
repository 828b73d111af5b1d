//! Requests, tried again where that may help.

use std::collections::BTreeMap;
use std::time::Duration;

use hf_hub::HFClient;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LINK, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::cache::{Entry, Hash, is_commit};
use super::endpoint::{Endpoint, without_credentials};
use super::failure::{Answer, Failure, Place, Trouble};
use super::id::ModelId;
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

/// Answers other than files and pages of lists are small.
const MAX_JSON_BYTES: usize = 64 << 20;
const MAX_ERROR_BYTES: usize = 1 << 16;
const MAX_PAGES: usize = 1000;

#[derive(Debug)]
pub struct Http {
    endpoint: Endpoint,
    token: Option<String>,
    client: Client,
    /// Without a limit on silence: a server says nothing while it is sent a file.
    patient: Client,
}

impl Http {
    pub fn new(config: &HubConfig) -> Result<Self> {
        let endpoint = Endpoint::new(config)?;
        if let Some(token) = &config.token
            && !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(Error::invalid(
                "HF_TOKEN",
                "a token of visible ASCII characters",
                "other characters in it",
            ));
        }
        let builder = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(config.timeout)
                // nor do redirects lead from there to plain HTTP
                .https_only(endpoint.is_secure())
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .build()
                .map_err(|error| Error::hub("the network", None, unprepared(error)))
        };
        Ok(Self {
            token: config.token.clone().filter(|token| !token.is_empty()),
            client: build(builder().read_timeout(config.timeout))?,
            patient: build(builder())?,
            endpoint,
        })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub fn place<'a>(&'a self, id: &'a ModelId) -> Place<'a> {
        Place {
            id,
            file: None,
            endpoint: self.endpoint.shown(),
            token: self.token.is_some(),
            writing: false,
        }
    }

    /// `hf-hub`'s client, which tries everything once: it would not wait as long as it is told to.
    pub fn hf(&self, writing: bool) -> Result<HFClient, Trouble> {
        let client = match writing {
            true => &self.patient,
            false => &self.client,
        };
        // without a token it would look for one in the environment; one that cannot be part of a
        // header is not sent
        let token = self.token.as_deref().unwrap_or("\n");
        Ok(HFClient::builder()
            .endpoint(self.endpoint.address())
            .token(token)
            .client(client.clone())
            .user_agent(USER_AGENT)
            .cache_dir("")
            .cache_enabled(false)
            .retry_max_attempts(0)
            .build()?)
    }

    /// A request that says who asks, if it goes to the Hub itself.
    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        let value = |token: &String| HeaderValue::from_str(&format!("Bearer {token}")).ok();
        match self.token.as_ref().and_then(value) {
            Some(mut value) => {
                value.set_sensitive(true);
                // in the place of user and password of the address
                request.headers(HeaderMap::from_iter([(AUTHORIZATION, value)]))
            }
            None => request,
        }
    }

    /// A request for a file or a list.
    pub fn get(&self, url: Url) -> RequestBuilder {
        self.signed(self.client.get(url))
            .header(ACCEPT_ENCODING, "identity")
    }

    /// A request to the Hub that may take its time.
    pub fn post(&self, url: Url) -> RequestBuilder {
        self.signed(self.patient.post(url))
    }

    /// A request to where the Hub points: it never sees the token.
    pub fn unsigned(&self, method: reqwest::Method, url: Url) -> RequestBuilder {
        self.patient.request(method, url)
    }

    /// Tries `attempt` until it succeeds or another try cannot help, as long apart as the server
    /// says.
    pub async fn retry<T>(
        &self,
        place: Place<'_>,
        progress: &Progress,
        mut attempt: impl AsyncFnMut() -> Result<T, Trouble>,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let trouble = match attempt().await {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            };
            let delay = trouble
                .retry_after()
                .unwrap_or(FIRST_DELAY * (1 << (tries - 1)));
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
                    place.file.unwrap_or(place.endpoint),
                    delay.as_secs()
                ));
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// The commit that a revision is now.
    pub async fn commit(&self, id: &ModelId, progress: &Progress) -> Result<String, Failure> {
        if is_commit(id.revision()) {
            return Ok(id.revision().to_ascii_lowercase());
        }
        let place = self.place(id);
        let info = self.retry(place, progress, async || {
            let model = self.hf(false)?.model(id.owner(), id.name());
            match model.info().revision(id.revision()).send().await {
                Ok(info) => Ok(info),
                Err(error) => Err(self.which_is_missing(&model, error.into()).await),
            }
        });
        match info.await?.sha {
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
    async fn which_is_missing(
        &self,
        model: &hf_hub::HFRepository<hf_hub::RepoTypeModel>,
        trouble: Trouble,
    ) -> Trouble {
        match trouble {
            Trouble::Http(answer) if answer.status == 404 && answer.code.is_none() => {
                let code = match model.exists().send().await {
                    Ok(true) => "RevisionNotFound",
                    _ => "RepoNotFound",
                };
                Trouble::Http(Answer {
                    code: Some(code.into()),
                    ..answer
                })
            }
            other => other,
        }
    }

    /// The files of a commit by their names.
    pub async fn files(
        &self,
        id: &ModelId,
        commit: &str,
        progress: &Progress,
    ) -> Result<BTreeMap<String, Entry>, Failure> {
        let place = self.place(id);
        let parts = ["api", "models", id.owner(), id.name(), "tree", commit];
        let mut url = self.endpoint.url(parts);
        url.set_query(Some("recursive=true"));
        let mut files = BTreeMap::new();
        let mut next = Some(url);
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else {
                return Ok(files);
            };
            let page = self.retry(place, progress, async || {
                let response = answer(self.get(url.clone())).await?;
                let next = next_page(response.headers(), &url);
                Ok((next, json::<Vec<Listed>>(response).await?))
            });
            let (following, listed) = page.await?;
            next = following.and_then(|url| self.endpoint.own(url));
            let entries = listed.into_iter().filter_map(Listed::entry);
            files.extend(entries.map(|entry| (entry.path.clone(), entry)));
        }
        Err(place
            .error(format!(
                "the list of files is longer than {MAX_PAGES} pages"
            ))
            .into())
    }
}

/// Why there is no client: nearly always a system without certificates.
fn unprepared(error: reqwest::Error) -> String {
    let trouble = Trouble::from(error);
    format!(
        "{trouble}. Servers are checked by the system's certificates: install them (the package \
         ca-certificates), or name them by SSL_CERT_FILE"
    )
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

/// Sends a request. An answer that is an error becomes one.
pub async fn answer(request: RequestBuilder) -> Result<Response, Trouble> {
    let response = request.send().await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let headers = response.headers();
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_string());
    let seconds = || text(RETRY_AFTER.as_str())?.trim().parse().ok();
    let mut answer = Answer {
        status: response.status().as_u16(),
        code: text("x-error-code"),
        message: text("x-error-message"),
        retry_after: seconds().map(Duration::from_secs),
    };
    if answer.message.is_none() {
        let body = body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        answer.message = body["error"].as_str().map(String::from);
    }
    Err(Trouble::Http(answer))
}

/// The body of a response as JSON.
pub async fn json<T: DeserializeOwned>(response: Response) -> Result<T, Trouble> {
    let url = response.url().clone();
    let body = body(response, MAX_JSON_BYTES).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let url = url.as_str().split('?').next().unwrap_or_default();
        Trouble::Fatal(Error::hub(
            without_credentials(url),
            None,
            format!("the answer is not what a Hub would say: {error}"),
        ))
    })
}

/// The body of a response, of at most `limit` bytes.
async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(Trouble::Fatal(Error::too_large(
                "an answer of the Hub",
                format!("expected at most {limit} bytes"),
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The address of `Link: <...>; rel="next"`.
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let target = next.trim().strip_prefix('<')?.split('>').next()?;
    url.join(target).ok()
}
