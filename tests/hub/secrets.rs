//! Tokens and passwords: where they go, and that nobody prints them.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::server::{READER, WRITER};
use crate::{World, model_files, says, stderr};

/// Password of the endpoint.
const PASSWORD: &str = "s3cret";

/// An address with a user and a password.
fn with_password(address: &str) -> String {
    address.replacen("://", &format!("://user:{PASSWORD}@"), 1)
}

/// Runs at this address; what is printed never holds the password.
fn run(world: &World, arguments: &str, endpoint: &str, token: Option<&str>) -> Output {
    let mut command = world.command(arguments);
    command.env("HF_ENDPOINT", endpoint);
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let output = command.output().unwrap();
    let printed = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(!printed.contains(PASSWORD), "{arguments}: {printed}");
    output
}

/// What the Hub was shown by all requests since it was last asked.
fn authorizations(world: &World) -> Vec<Option<String>> {
    let mut state = world.server.state();
    let seen = std::mem::take(&mut state.seen);
    let to_the_hub = seen.iter().filter(|request| !request.line().contains("GET file/"));
    to_the_hub.map(|request| request.header("authorization").map(String::from)).collect()
}

#[test]
fn the_password_of_an_endpoint_is_never_printed() {
    let world = World::new();
    let endpoint = with_password(&world.server.url);
    let output = run(&world, "pull org/model", &endpoint, None);
    says(&stderr(&output), &["HTTP 401", &world.server.url]);
    let basic = Some("Basic dXNlcjpzM2NyZXQ=".to_string());
    let shown = authorizations(&world);
    assert!(!shown.is_empty() && shown.iter().all(|shown| *shown == basic), "{shown:?}");

    // a token goes in its place
    let output = run(&world, "pull org/model", &endpoint, Some(READER));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(world.snapshot(), model_files());
    let bearer = Some(format!("Bearer {READER}"));
    let shown = authorizations(&world);
    assert!(shown.iter().all(|shown| *shown == bearer), "{shown:?}");

    let dir = world.home.path().join("run");
    std::fs::create_dir(&dir).unwrap();
    for (name, bytes) in model_files() {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let output = run(&world, "push run org/new", &endpoint, Some(WRITER));
    assert!(output.status.success(), "{}", stderr(&output));
    let address = String::from_utf8(output.stdout).unwrap();
    assert_eq!(address.trim(), format!("{}/org/new", world.server.url));
    let output = run(&world, "push run org/model --private", &endpoint, Some(WRITER));
    says(&stderr(&output), &["expected a private repository"]);

    for missing in ["org/none", "org/model@v9"] {
        let output = run(&world, &format!("pull {missing}"), &endpoint, Some(READER));
        says(&stderr(&output), &["HTTP 404"]);
    }
}

#[test]
fn not_in_errors_of_addresses_and_connections() {
    let world = World::new();
    for (endpoint, code) in
        [("http://127.0.0.1:9", 1), ("ftp://127.0.0.1", 2), ("http://", 2), ("http://192.0.2.1", 2)]
    {
        let endpoint = with_password(endpoint);
        let output = run(&world, "pull org/model", &endpoint, None);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    }
    let output = run(&world, "pull org/model", &format!("user:{PASSWORD}@host"), None);
    says(&stderr(&output), &["HF_ENDPOINT", "host"]);
}

#[test]
fn a_token_goes_over_plain_http_only_when_asked_for() {
    let world = World::new();
    // an address for documentation, where nobody answers
    let nowhere = "http://192.0.2.1:9";
    let start = Instant::now();
    let output = run(&world, "pull org/model", nowhere, Some(READER));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    says(&stderr(&output), &["HF_ENDPOINT", "https", "TCN_HUB_INSECURE", nowhere]);
    assert!(!stderr(&output).contains(READER));
    assert!(start.elapsed() < Duration::from_secs(5), "nothing was sent");

    let mut command = world.command("pull org/model");
    command
        .env("HF_ENDPOINT", nowhere)
        .env("HF_TOKEN", READER)
        .env("TCN_HUB_INSECURE", "1")
        .env("HF_HUB_DOWNLOAD_TIMEOUT", "0.01");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    says(&stderr(&output), &["goes over plain http", "could not reach"]);

    let mut command = world.command("pull org/model");
    command.env("HF_ENDPOINT", nowhere).env("HF_HUB_DOWNLOAD_TIMEOUT", "0.01");
    let message = stderr(&command.output().unwrap());
    says(&message, &["could not reach"]);
    assert!(!message.contains("plain http"));
}

#[test]
fn a_redirect_does_not_carry_the_token_to_another_server() {
    let world = World::new();
    let output = run(&world, "pull org/model", &world.server.url, Some(READER));
    assert!(output.status.success(), "{}", stderr(&output));
    let state = world.server.state();
    let (store, hub): (Vec<_>, Vec<_>) =
        state.seen.iter().partition(|request| request.line().contains("GET file/"));
    assert!(!store.is_empty() && !hub.is_empty());
    assert!(store.iter().all(|request| request.header("authorization").is_none()));
    assert!(hub.iter().all(|request| request.header("authorization").is_some()));
}
