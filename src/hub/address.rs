//! Addresses of the web: parsed, put together, and joined to others.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// Bytes of one part of a path that are escaped: all but those that RFC 3986 leaves unreserved.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An http address without user, password and fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct Address(Uri);

impl Address {
    /// The address, and user and password in it.
    pub fn parse(text: &str) -> Option<(Self, Option<String>)> {
        let text = text.split('#').next().unwrap_or_default();
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme().filter(|s| **s == Scheme::HTTP || **s == Scheme::HTTPS)?;
        let authority = uri.authority().filter(|a| !a.host().is_empty())?.as_str();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_string()), host),
            None => (None, authority),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = host.to_ascii_lowercase();
        let plain = format!("{scheme}://{host}{path}").parse().ok()?;
        Some((Self(plain), user))
    }

    /// The address as text.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// The same address with `parts` below it, each one part however it is spelt.
    pub fn below<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut path = self.0.path().trim_end_matches('/').to_string();
        for part in parts {
            path.push('/');
            path.extend(utf8_percent_encode(part, PART));
        }
        self.with_path(&path).unwrap_or_else(|| self.clone())
    }

    /// The same address with this query.
    pub fn with_query(&self, query: &str) -> Self {
        let path = format!("{}?{query}", self.0.path());
        self.with_path(&path).unwrap_or_else(|| self.clone())
    }

    /// The target of `reference`, found here; user and password in it are dropped.
    pub fn join(&self, reference: &str) -> Option<Self> {
        if let Some(rest) = reference.strip_prefix("//") {
            return Some(Self::parse(&format!("{}://{rest}", self.0.scheme_str()?))?.0);
        }
        if reference.contains("://") {
            return Some(Self::parse(reference)?.0);
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let path = self.0.path();
        match reference.as_bytes().first() {
            None => Some(self.clone()),
            Some(b'/') => self.with_path(reference),
            Some(b'?') => self.with_path(&format!("{path}{reference}")),
            _ => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                self.with_path(&format!("{folder}/{reference}"))
            }
        }
    }

    fn with_path(&self, path: &str) -> Option<Self> {
        let (scheme, authority) = (self.0.scheme_str()?, self.0.authority()?);
        Some(Self(format!("{scheme}://{authority}{path}").parse().ok()?))
    }

    /// `true` for https.
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// `true` if the server is on this machine.
    pub fn is_here(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let number = host.trim_start_matches('[').trim_end_matches(']');
        match number.parse::<std::net::IpAddr>() {
            Ok(number) => number.to_canonical().is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    /// `true` for another address of the same server.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let server = |address: &Self| {
            let usual = if address.is_secure() { 443 } else { 80 };
            let port = address.0.port_u16().unwrap_or(usual);
            (address.is_secure(), address.0.host().map(str::to_string), port)
        };
        server(self) == server(other)
    }
}

/// An address, or a text with one, without user and password, however they are spelt.
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let before = &rest[..at];
        let after = |sign: &str| before.rfind(sign).map(|start| start + sign.len());
        let start = after("://").or_else(|| after(" ")).unwrap_or(0);
        shown += &before[..start];
        rest = &rest[at + 1..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap().0
    }

    #[test]
    fn parts_and_references() {
        let base = address("http://me:x@Host:81/a/b/?q#f");
        assert_eq!(base.text(), "http://host:81/a/b/?q");
        assert_eq!(
            base.below(["c d", "e/f", "龍%"]).text(),
            "http://host:81/a/b/c%20d/e%2Ff/%E9%BE%8D%25"
        );
        for (reference, expected) in [
            ("https://other/x?y", "https://other/x?y"),
            ("//other:1/x", "http://other:1/x"),
            ("/x?y=1", "http://host:81/x?y=1"),
            ("?z", "http://host:81/a/b/?z"),
            ("c#d", "http://host:81/a/b/c"),
            ("https://me:secret@other/", "https://other/"),
        ] {
            assert_eq!(base.join(reference).unwrap().text(), expected);
        }
        assert_eq!(base.join("ftp://x/y"), None);
        for wrong in ["", "host", "ftp://host", "http://", "/a", "http:///a"] {
            assert!(Address::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn servers() {
        let base = address("https://hub.example/x");
        for same in ["https://hub.example:443/y", "https://HUB.example"] {
            assert!(base.is_same_server(&address(same)), "{same}");
        }
        for other in ["http://hub.example/x", "https://hub.example:444/x", "https://example/x"] {
            assert!(!base.is_same_server(&address(other)), "{other}");
        }
    }
}
