//! The address of the Hub, what of it may be shown, and what it may be told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;

use super::address::{Address, without_credentials};
use super::config::HubConfig;
use crate::{Error, Result};

/// The address of the Hub. User and password in it are sent, but never shown.
#[derive(Clone)]
pub struct Endpoint {
    pub address: Address,
    /// Value of the header `Authorization`: the token, else user and password of the address.
    pub secret: Option<String>,
    pub has_token: bool,
    /// `true` if a token or password goes where others can read it.
    pub is_overheard: bool,
}

impl Endpoint {
    /// The address of a configuration, which must be safe for the secrets that go there.
    pub fn new(config: &HubConfig) -> Result<Self> {
        let wrong = |expected| {
            let found = without_credentials(&config.endpoint);
            Error::invalid("HF_ENDPOINT", expected, found)
        };
        let parsed = Address::parse(&config.endpoint);
        let (address, user) =
            parsed.ok_or_else(|| wrong("an address such as https://huggingface.co"))?;
        let token = config.token.as_deref().filter(|token| !token.is_empty());
        let has_secret = token.is_some() || user.is_some();
        let is_overheard = has_secret && !address.is_secure() && !address.is_here();
        if is_overheard && !config.insecure {
            return Err(wrong(
                "https, since everybody on the way can read the token or password that goes along. Without \
                 one (unset HF_TOKEN, HF_TOKEN_PATH=/dev/null) plain http will do; TCN_HUB_INSECURE=1 sends it \
                 all the same",
            ));
        }
        if token.is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let expected = "a token of visible ASCII characters";
            return Err(Error::invalid("HF_TOKEN", expected, "other characters in it"));
        }
        let basic = user.map(|user| {
            let plain: Vec<u8> = percent_decode_str(&user).collect();
            format!("Basic {}", BASE64.encode(plain))
        });
        let secret = token.map(|token| format!("Bearer {token}")).or(basic);
        let has_token = token.is_some();
        Ok(Self { address: address.below([]), secret, has_token, is_overheard })
    }

    /// The address for people, without a slash at its end.
    pub fn shown(&self) -> String {
        self.address.text().trim_end_matches('/').to_string()
    }

    /// The address of `parts` below it, each one part however it is spelt.
    pub fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Address {
        self.address.below(parts)
    }

    /// `true` for an address of the same server, which may see the secrets that go there.
    pub fn is_own(&self, address: &Address) -> bool {
        self.address.is_same_server(address)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, token: Option<&str>, insecure: bool) -> Result<Endpoint> {
        Endpoint::new(&HubConfig {
            endpoint: address.into(),
            token: token.map(String::from),
            insecure,
            ..HubConfig::new("cache")
        })
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let endpoint = endpoint("https://me:s3cret@hub.example/mirror/", Some(""), false).unwrap();
        assert_eq!(endpoint.shown(), "https://hub.example/mirror");
        assert_eq!(format!("{endpoint:?}"), "https://hub.example/mirror");
        assert_eq!(endpoint.secret.as_deref(), Some("Basic bWU6czNjcmV0")); // me:s3cret
        assert_eq!(endpoint.url(["api", "a b"]).text(), "https://hub.example/mirror/api/a%20b");
        for (text, shown) in [
            ("ftp://me:s3cret@host/x", "ftp://host/x"),
            ("me:s3cret@host", "host"),
            ("no answer (http://me:s3cret@host/x)", "no answer (http://host/x)"),
            ("https://me:s3/cr@et@host", "https://host"),
            ("https://host", "https://host"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }

    #[test]
    fn what_is_its_own() {
        let endpoint = endpoint("https://me:s3cret@hub.example/mirror", None, false).unwrap();
        let own = |address: &str| endpoint.is_own(&Address::parse(address).unwrap().0);
        assert!(own("https://hub.example/x?a=1"));
        for other in ["http://hub.example/x", "https://hub.example:444/x", "https://example/x"] {
            assert!(!own(other), "{other}");
        }
    }

    #[test]
    fn secrets_go_over_plain_http_to_this_machine_only() {
        let token = Some("hf_x");
        for here in [
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://hub.localhost:1",
            "http://[::1]:5",
            "http://me:s3cret@127.3.2.1",
            "https://hub.example",
        ] {
            assert!(endpoint(here, token, false).is_ok(), "{here}");
        }
        for other in [
            "http://hub.example",
            "http://192.0.2.1:8080",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://[2001:db8::1]",
        ] {
            let message = endpoint(other, token, false).unwrap_err().to_string();
            assert!(message.contains("TCN_HUB_INSECURE"), "{message}");
            assert!(endpoint(other, token, true).is_ok(), "{other}");
            assert!(endpoint(other, None, false).is_ok(), "{other}");
            assert!(endpoint(other, Some(""), false).is_ok(), "{other}");
        }
        let message = endpoint("http://me:s3cret@hub.example", None, false).unwrap_err();
        assert!(!message.to_string().contains("s3cret"));
    }
}
