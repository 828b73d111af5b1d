//! What a user is told when the Hub refuses.

use crate::server::{READER, WRITER};
use crate::{World, failed, says};

#[test]
fn who_is_nobody_is_told_of_tokens() {
    let world = World::new();
    let message = world.fails("pull org/secret");
    says(&message, &["org/secret@main", "HTTP 401", "HF_TOKEN", "/settings/tokens"]);
    let message = failed(world.command("pull org/model").env("HF_TOKEN", "hf_wrong"));
    says(&message, &["org/model@main", "HTTP 401", "token was not accepted"]);
    assert!(!message.contains("hf_wrong"));
}

#[test]
fn a_gated_repository_is_told_from_a_private_one() {
    let world = World::new();
    world.server.state().repos.get_mut("org/model").unwrap().gated = true;
    let terms = format!("{}/org/model", world.server.url);
    let message = world.fails("pull org/model");
    says(&message, &["config.json", "HTTP 401", "gated", &terms, "HF_TOKEN"]);
    let message = failed(world.command("pull org/model").env("HF_TOKEN", READER));
    says(&message, &["config.json", "HTTP 403", "accept its terms", &terms]);
    let accepted = world.command("pull org/model").env("HF_TOKEN", WRITER).output().unwrap();
    assert!(accepted.status.success());
}

#[test]
fn which_of_repository_revision_and_file_there_is_not() {
    let world = World::new();
    let message = failed(world.command("pull org/none").env("HF_TOKEN", READER));
    says(&message, &["org/none@main", "HTTP 404", "no repository org/none"]);
    let message = world.fails("pull org/model@v9");
    says(&message, &["org/model@v9", "HTTP 404", "no revision v9"]);
    world.server.add("org/empty", &[("README.md", b"# Soon\n")]);
    says(&world.fails("pull org/empty"), &["org/empty@main", "config.json"]);
    world.server.add("org/plan", &[("config.json", b"{}")]);
    says(&world.fails("pull org/plan"), &["no weights", "model.safetensors", "pytorch_model.bin"]);
    // listed, yet gone
    world.server.fault(
        "GET org/model/resolve",
        1,
        crate::server::What::Status(404, vec![("X-Error-Code", "EntryNotFound")]),
    );
    says(
        &world.fails("pull org/model"),
        &["org/model@main: config.json", "HTTP 404", "no file config.json"],
    );
}

#[test]
fn a_server_that_names_no_reason_is_asked_again() {
    let world = World::new();
    let gone = crate::server::What::Status(404, vec![]);
    world.server.fault("revision/v9", 2, gone.clone());
    says(&world.fails("pull org/model@v9"), &["no revision v9"]);
    world.server.fault("GET api/models/org/lost", 2, gone);
    says(&world.fails("pull org/lost"), &["no repository org/lost"]);
}

#[test]
fn offline_without_a_copy() {
    let world = World::new();
    let message = failed(world.command("pull org/model").env("HF_HUB_OFFLINE", "1"));
    let cache = world.home.path().join("hub");
    says(&message, &["org/model@main", cache.to_str().unwrap(), "unset HF_HUB_OFFLINE"]);
    let message = failed(world.command("push . org/x").env("HF_HUB_OFFLINE", "1"));
    says(&message, &["unset HF_HUB_OFFLINE"]);
    assert!(world.server.state().seen.is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn certificates_are_needed_for_the_network_only() {
    let world = World::new();
    let without = |command: &str| {
        let mut command = world.command(command);
        command.env("SSL_CERT_FILE", "/none").env("SSL_CERT_DIR", "/none");
        command
    };
    says(&failed(&mut without("pull org/model")), &["ca-certificates", "SSL_CERT_FILE"]);
    world.json("pull org/model");
    crate::done(without("pull org/model --json").env("HF_HUB_OFFLINE", "1"));
}

#[test]
fn what_is_no_name_is_wrong_usage() {
    let world = World::new();
    for bad in ["pull model", "pull a/b/c", "pull ../x", "pull a/b@../x", "push . a/b@v1"] {
        let output = world.command(bad).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{bad}: {message}");
        says(&message, &["org/name"]);
    }
    let message = world.fails("generate --model model");
    says(&message, &["model is not a folder", "org/name"]);
    for (variable, value) in [
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", "ftp://huggingface.co"),
        ("HF_TOKEN", "hf token"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
    ] {
        let output = world.command("pull org/model").env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}={value}");
        says(&String::from_utf8_lossy(&output.stderr), &[variable]);
    }
}
