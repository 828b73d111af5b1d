//! Who may ask: keys, hosts, and pages of other origins.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::api_error::{ApiError, ServerFault};
use super::app::{App, Client};
use super::{AccessRecord, PeerAddress};

/// Routes that need no key: whoever finds the server may see that it is there, and its page.
const OPEN: [&str; 3] = ["/", "/health", "/openapi.json"];

/// Checks a request, answers it, and counts it.
pub(super) async fn guard(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let route = route.unwrap_or_else(|| "other".into());
    let (method, path) = (request.method().to_string(), request.uri().path().to_string());
    let response = match check(&app, &request, &route) {
        Ok(key) => {
            let address = peer.map_or_else(|| "unknown".into(), |peer| peer.ip().to_string());
            request.extensions_mut().insert(Client(key.unwrap_or(address)));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let status = response.status().as_u16();
    app.meters.count_request(&route, status);
    if let Some(log) = &app.config.log {
        let peer = peer.map(|peer| peer.to_string());
        let fault = response.extensions().get::<ServerFault>().map(|fault| fault.0.to_string());
        let seconds = begun.elapsed().as_secs_f64();
        log(&AccessRecord { peer, method, path, status, seconds, fault });
    }
    response
}

/// The name of the key that was given, where keys are needed.
fn check(app: &App, request: &Request, route: &str) -> Result<Option<String>, ApiError> {
    let headers = request.headers();
    check_host(app, headers)?;
    check_origin(app, headers)?;
    let keys = &app.config.api_keys;
    // a browser asks with OPTIONS before it may send the key
    if keys.is_empty() || OPEN.contains(&route) || request.method() == Method::OPTIONS {
        return Ok(None);
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // hashes have one length, and comparing them tells nothing of what a key begins with
    let hash = Sha256::digest(given.trim());
    let mut known = None;
    for (number, key) in keys.iter().enumerate() {
        if bool::from(Sha256::digest(key).ct_eq(&hash)) {
            known = Some(format!("key {number}"));
        }
    }
    known.map(Some).ok_or_else(ApiError::unauthorized)
}

/// Refuses names under which this server is not known: a stranger's page can give its own name this server's address.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(hosts) = &app.config.hosts else {
        return Ok(());
    };
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = without_port(host);
    if hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let message = format!("the host {name:?} is none of this server's: {}", hosts.join(", "));
    Err(ApiError::forbidden(message))
}

/// Refuses pages of other origins, unless they were allowed.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or("?");
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host));
    let allowed = app.config.origins.iter().any(|known| known == "*" || known == origin);
    if own || allowed {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("pages of {origin} may not use this server")))
}

/// `localhost` of `localhost:8080`, `[::1]` of `[::1]:8080`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::without_port;

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (host, name) in [
            ("localhost:8080", "localhost"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.example", "a.example"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
