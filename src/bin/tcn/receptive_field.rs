//! stand-in until the helper's arrives
#[derive(clap::Args)]
pub struct Args {}
pub fn run(_: Args) -> anyhow::Result<()> {
    Err(crate::usage_error("x"))
}
