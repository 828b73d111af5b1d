//! `tcn push`: a model directory to the Hub.

use std::path::PathBuf;

use serde_json::json;

use crate::{hub, print_line};

#[derive(clap::Args)]
pub struct Args {
    /// The model directory; its own folders (checkpoints) and hidden files stay here
    dir: PathBuf,
    /// Where it goes: org/name; made if there is no such repository
    #[arg(value_name = "ORG/NAME")]
    repository: String,
    /// Let nobody else see it
    #[arg(long)]
    private: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let hub = hub::open()?;
    let (bar, progress) = hub::bar("uploading")?;
    let url = hub.push(&args.dir, &args.repository, args.private, &progress);
    bar.finish_and_clear();
    let url = url?;
    match args.json {
        true => print_line(json!({ "url": url, "private": args.private })),
        false => print_line(url),
    }
}
