//! `tcn push`: a model directory to the Hub.

use std::path::PathBuf;

use candle_tcn::Error;
use candle_tcn::hub::{Contents, ModelId};
use serde_json::json;

use crate::{hub, print_line};

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

pub fn run(args: PushArgs) -> anyhow::Result<()> {
    if args.dry_run {
        return list(&args);
    }
    let hub = hub::open()?;
    let (bar, progress) = hub::bar("uploading")?;
    let url = hub.push(&args.dir, &args.repository, args.private, &progress);
    bar.finish_and_clear();
    let url = url.map_err(|error| match error {
        Error::Hub { place, status, message } if message.contains("expected a private") => {
            Error::hub(place, status, message + ", or leave out --private")
        }
        other => other,
    })?;
    match args.json {
        true => print_line(json!({ "url": url, "private": args.private })),
        false => print_line(url),
    }
}

/// Prints what would be uploaded.
fn list(args: &PushArgs) -> anyhow::Result<()> {
    ModelId::without_revision(&args.repository)?;
    let contents = Contents::of(&args.dir)?;
    if !args.json {
        return hub::describe(&contents).iter().try_for_each(print_line);
    }
    let files = contents.files.iter();
    let files = files.map(|file| json!({ "name": file.name, "bytes": file.bytes }));
    let left_out = contents.left_out.iter();
    let left_out = left_out.map(|left| json!({ "name": left.name, "why": left.why }));
    print_line(json!({
        "files": files.collect::<Vec<_>>(),
        "left_out": left_out.collect::<Vec<_>>(),
    }))
}
