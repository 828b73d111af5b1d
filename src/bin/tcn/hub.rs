//! `tcn pull` and `tcn push`: the Hub as the environment describes it, with a progress bar.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use candle_tcn::Error;
use candle_tcn::hub::{Contents, Event, Hub, HubConfig, ModelId, Progress};
use indicatif::{HumanBytes, ProgressBar};
use serde_json::json;

use crate::flags::counted;
use crate::progress::{self, Pace};
use crate::terminal::escaped;
use crate::{print_result, usage_error};

/// The Hub and cache that Python's `huggingface_hub` would use.
fn open() -> anyhow::Result<Hub> {
    let home = match folder("HF_HOME") {
        Some(folder) => folder,
        None => cache_home()?.join("huggingface"),
    };
    let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
    let mut config = HubConfig::new(cache.unwrap_or_else(|| home.join("hub")));
    if let Some(endpoint) = text("HF_ENDPOINT") {
        config.endpoint = endpoint;
    }
    config.token = token(&home)?;
    config.offline = is_set("HF_HUB_OFFLINE");
    config.insecure = is_set("TCN_HUB_INSECURE");
    let for_plain = ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
    config.plain_proxy = for_plain.iter().any(|name| std::env::var_os(name).is_some());
    if let Some(seconds) = text("HF_HUB_DOWNLOAD_TIMEOUT") {
        config.timeout = timeout(&seconds)?;
    }
    let hub = Hub::new(config)?;
    if hub.is_overheard() {
        say!(
            "HF_ENDPOINT: the token or password goes over plain http, where everybody on the way can read it"
        );
    }
    Ok(hub)
}

/// The value of a variable that is set to something.
fn text(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok()?;
    Some(value.trim().to_string()).filter(|value| !value.is_empty())
}

/// A variable that names a folder, `~` being the user's own.
fn folder(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).filter(|value| !value.is_empty())?;
    let folder = PathBuf::from(folder);
    match (folder.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(folder),
    }
}

fn cache_home() -> anyhow::Result<PathBuf> {
    let home = || Some(std::env::home_dir()?.join(".cache"));
    folder("XDG_CACHE_HOME").or_else(home).ok_or_else(|| {
        usage_error("HF_HOME: expected a folder for models, since there is no home folder")
    })
}

/// The token itself, or what the token file holds.
fn token(home: &Path) -> anyhow::Result<Option<String>> {
    if let Some(token) = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
        return Ok(Some(token));
    }
    let path = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(Some(token.trim().to_string()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error).into()),
    }
}

fn is_set(variable: &str) -> bool {
    let yes = |value: String| matches!(&*value.to_uppercase(), "1" | "ON" | "YES" | "TRUE");
    text(variable).is_some_and(yes)
}

fn timeout(seconds: &str) -> anyhow::Result<Duration> {
    let valid = |seconds: &f64| (0.001..=86_400.0).contains(seconds);
    match seconds.parse().ok().filter(valid) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err(usage_error(format!(
            "HF_HUB_DOWNLOAD_TIMEOUT: expected seconds from 0.001 to 86400, found {seconds:?}"
        ))),
    }
}

/// A bar on standard error that is drawn once there is something to transfer. `verb` says what happens.
fn bar(verb: &'static str) -> anyhow::Result<(ProgressBar, Progress)> {
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let bar = progress::bar(Some(0), &format!("{verb} {style}"))?;
    let (drawn, pace) = (bar.clone(), Mutex::new(Pace::new()));
    let progress = Progress::new(move |event| match event {
        Event::File { name, .. } => drawn.set_message(escaped(name).into_owned()),
        Event::Transferred { done, total } => {
            drawn.set_length(total);
            drawn.set_position(done);
            if let Ok(mut pace) = pace.lock() {
                pace.tell_bytes(verb, &drawn);
            }
        }
        Event::Contents(contents) => drawn.suspend(|| say!("{}", describe(contents))),
        Event::Message(text) => drawn.suspend(|| say!("{text}")),
        _ => {}
    });
    Ok((bar, progress))
}

/// A line for each file that is uploaded or stays.
fn describe(contents: &Contents) -> String {
    let size = |bytes| HumanBytes(bytes).to_string();
    let line = |first: &str, rest: String| format!("{first:>12}  {rest}");
    let total = size(contents.files.iter().map(|file| file.bytes).sum());
    let files = contents.files.iter().map(|file| line(&size(file.bytes), file.name.clone()));
    let count = line(&total, format!("in {}", counted(contents.files.len(), "file")));
    let left_out = contents.left_out.iter();
    let left_out = left_out.map(|left| line("stays here", format!("{}: {}", left.name, left.why)));
    files.chain([count]).chain(left_out).collect::<Vec<_>>().join("\n")
}

/// The local directory of a model on the Hub.
pub fn pull(id: &str) -> anyhow::Result<PathBuf> {
    let hub = open()?;
    let (bar, progress) = bar("downloading")?;
    let dir = hub.pull(id, &progress);
    bar.finish_and_clear();
    Ok(dir?)
}

/// A model on the Hub, without its weights.
pub fn inspect(id: &str) -> anyhow::Result<candle_tcn::hub::Inspected> {
    let progress = Progress::new(|event| {
        if let Event::Message(text) = event {
            say!("{text}");
        }
    });
    Ok(open()?.inspect(id, &progress)?)
}

#[derive(clap::Args)]
pub struct PullArgs {
    /// org/name or org/name@revision: a branch, a tag, a commit, refs/pr/1
    model: String,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// `tcn pull`: a model from the Hub into the cache.
pub fn run_pull(args: PullArgs) -> anyhow::Result<()> {
    let id: ModelId = args.model.parse()?;
    let dir = pull(&args.model)?;
    let facts = json!({
        "repository": id.repository(),
        "revision": id.revision(),
        "commit": dir.file_name().map(|name| name.to_string_lossy()),
        "path": dir,
    });
    print_result(args.json, facts, dir.display())
}

#[derive(clap::Args)]
pub struct PushArgs {
    /// The model directory; its own folders (checkpoints), hidden files and run.json, which has paths of this
    /// machine, stay here
    dir: PathBuf,
    /// The repository, org/name; created if it does not exist. HF_TOKEN has to be a token with write access
    #[arg(value_name = "ORG/NAME")]
    repository: String,
    /// Make the repository private
    #[arg(long)]
    private: bool,
    /// Only list the files that would be uploaded, with their sizes; needs no network
    #[arg(long)]
    dry_run: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// `tcn push`: a model directory to the Hub.
pub fn run_push(args: PushArgs) -> anyhow::Result<()> {
    if args.dry_run {
        ModelId::without_revision(&args.repository)?;
        let contents = Contents::of(&args.dir)?;
        return print_result(args.json, json!(contents), describe(&contents));
    }
    let hub = open()?;
    let (bar, progress) = bar("uploading")?;
    let url = hub.push(&args.dir, &args.repository, args.private, &progress);
    bar.finish_and_clear();
    let url = url?;
    print_result(args.json, json!({ "url": url, "private": args.private }), url)
}
