//! Settings of a client of the Hub.

use std::path::PathBuf;
use std::time::Duration;

use super::address::without_credentials;

/// Address of the Hub, folder of its files here, and who asks.
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
    /// Reach an endpoint of plain HTTP through the environment's proxy too: it is meant for that.
    pub plain_proxy: bool,
    /// Longest silence of a server before the request is made again.
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
            plain_proxy: false,
            timeout: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &without_credentials(&self.endpoint))
            .field("cache_dir", &self.cache_dir)
            .finish_non_exhaustive()
    }
}
