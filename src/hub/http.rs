//! Clients of the Hub: who asks, over which connections.

use ureq::http::Method;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use super::address::Address;
use super::config::HubConfig;
use super::endpoint::Endpoint;
use super::request::Request;
use crate::{Error, Result};

const USER_AGENT: &str = concat!("candle-tcn/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub struct Http {
    pub endpoint: Endpoint,
    client: Agent,
    /// Without a limit on silence: a server says nothing while it is sent a file.
    patient: Agent,
}

impl Http {
    pub fn new(config: &HubConfig) -> Result<Self> {
        let endpoint = Endpoint::new(config)?;
        let (certificates, timeout) = (certificates()?, Some(config.timeout));
        // nor do redirects lead from there to plain HTTP; they are followed by whoever knows who may see them
        let agent = |silence| {
            Agent::config_builder()
                .user_agent(USER_AGENT)
                .accept_encoding("identity")
                .tls_config(TlsConfig::builder().root_certs(certificates.clone()).build())
                .timeout_resolve(timeout)
                .timeout_connect(timeout)
                .timeout_per_read(silence)
                .https_only(endpoint.address.is_secure())
                .proxy(proxy(&endpoint.address, config.plain_proxy))
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .build()
                .new_agent()
        };
        Ok(Self { client: agent(timeout), patient: agent(None), endpoint })
    }

    /// A request for a file or a list.
    pub fn get(&self, address: Address) -> Request<'_> {
        Request::new(&self.endpoint, &self.client, Method::GET, address)
    }

    /// A request that may take its time.
    pub fn post(&self, address: Address) -> Request<'_> {
        Request::new(&self.endpoint, &self.patient, Method::POST, address)
    }

    /// A request that takes a file to where the Hub points: it never sees the token.
    pub fn put(&self, address: Address) -> Request<'_> {
        Request::new(&self.endpoint, &self.patient, Method::PUT, address).unsigned()
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
fn proxy(address: &Address, is_for_plain: bool) -> Option<Proxy> {
    let may_see = address.is_secure() || is_for_plain && !address.is_here();
    may_see.then(Proxy::try_from_env).flatten()
}
