//! One request: who sees the token, where it is sent on to, and what an error is.

use std::io::Read;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{self, Method, StatusCode};
use ureq::{Agent, AsSendBody, Body, SendBody};

use super::address::{Address, without_credentials};
use super::endpoint::Endpoint;
use super::failure::{Answer, Trouble};
use crate::Error;

/// Answers other than files and pages of lists are small.
const MAX_JSON_BYTES: u64 = 64 << 20;
const MAX_ERROR_BYTES: u64 = 1 << 16;

const MAX_REDIRECTS: usize = 10;

/// A request that is not sent yet.
pub struct Request<'a> {
    endpoint: &'a Endpoint,
    agent: &'a Agent,
    method: Method,
    address: Address,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    /// Says who asks, as long as it stays with the Hub.
    is_signed: bool,
}

impl<'a> Request<'a> {
    pub fn new(endpoint: &'a Endpoint, agent: &'a Agent, method: Method, address: Address) -> Self {
        let is_signed = endpoint.is_own(&address);
        let (headers, body) = (Vec::new(), None);
        Self { endpoint, agent, method, address, headers, body, is_signed }
    }

    /// The request of nobody in particular.
    pub fn unsigned(self) -> Self {
        Self { is_signed: false, ..self }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body of this type.
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", media_type)
    }

    /// With a body of JSON.
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// Sends it, and sends it on where the server says so. An answer that is an error becomes one.
    pub fn send(mut self) -> Result<Response, Trouble> {
        for _ in 0..=MAX_REDIRECTS {
            let response = match &self.body {
                Some(body) => self.once(&body[..])?,
                None => self.once(())?,
            };
            let Some(target) = self.sent_on(&response) else {
                return response.succeeded();
            };
            // who has left does not come back with the token
            self.is_signed &= self.endpoint.is_own(&target);
            self.address = target;
        }
        Err(Trouble::broken("the server sends the request on and on"))
    }

    /// Sends it with the next `length` bytes of `source`.
    pub fn send_from(self, source: &mut dyn Read, length: u64) -> Result<Response, Trouble> {
        // a refusal comes before the bytes go
        let request =
            self.header("expect", "100-continue").header("content-length", length.to_string());
        request.once(SendBody::from_reader(source))?.succeeded()
    }

    fn once(&self, body: impl AsSendBody) -> Result<Response, Trouble> {
        let mut request = http::Request::builder().method(&self.method).uri(self.address.text());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(secret) = self.endpoint.secret.as_ref().filter(|_| self.is_signed) {
            request = request.header("authorization", secret);
        }
        let request = request.body(body).map_err(|error| Trouble::broken(error.to_string()))?;
        Ok(Response { address: self.address.clone(), inner: self.agent.run(request)? })
    }

    /// The address that a request is redirected to.
    fn sent_on(&self, response: &Response) -> Option<Address> {
        let again = match response.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            status => status.is_redirection() && self.method == Method::GET,
        };
        let target = response.header("location").filter(|_| again)?;
        self.address.join(target)
    }
}

/// An answer.
pub struct Response {
    /// The address that answered.
    pub address: Address,
    inner: http::Response<Body>,
}

impl Response {
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, Trouble> {
        let address = self.address.text();
        let body = self.bytes(MAX_JSON_BYTES)?;
        serde_json::from_slice(&body).map_err(|error| {
            let place = without_credentials(address.split('?').next().unwrap_or_default());
            let message = format!("the answer is not what a Hub would say: {error}");
            Error::hub(place, None, message).into()
        })
    }

    /// The body as it comes.
    pub fn reader(self) -> impl Read {
        self.inner.into_body().into_reader()
    }

    /// The body, of at most `limit` bytes.
    fn bytes(self, limit: u64) -> Result<Vec<u8>, Trouble> {
        Ok(self.inner.into_body().into_with_config().limit(limit).read_to_vec()?)
    }

    /// The answer, unless it is an error.
    fn succeeded(self) -> Result<Self, Trouble> {
        if self.status().is_success() {
            return Ok(self);
        }
        let text = |name: &str| self.header(name).map(String::from);
        let seconds = text("retry-after").and_then(|text| text.trim().parse().ok());
        let mut answer = Answer {
            status: self.status().as_u16(),
            code: text("x-error-code"),
            message: text("x-error-message"),
            retry_after: seconds.map(Duration::from_secs),
        };
        if answer.message.is_none() {
            let body = self.bytes(MAX_ERROR_BYTES).unwrap_or_default();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            answer.message = body["error"].as_str().map(String::from);
        }
        Err(Trouble::Http(answer))
    }
}
