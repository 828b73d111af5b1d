//! `tcn pull`: a model from the Hub into the cache.

use candle_tcn::hub::ModelId;
use serde_json::json;

use crate::{hub, print_line};

#[derive(clap::Args)]
pub struct PullArgs {
    /// org/name or org/name@revision: a branch, a tag, a commit, refs/pr/1
    model: String,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: PullArgs) -> anyhow::Result<()> {
    let id: ModelId = args.model.parse()?;
    let dir = hub::pull(&args.model)?;
    if !args.json {
        return print_line(dir.display());
    }
    print_line(json!({
        "repository": id.repository(),
        "revision": id.revision(),
        "commit": dir.file_name().map(|name| name.to_string_lossy()),
        "path": dir,
    }))
}
