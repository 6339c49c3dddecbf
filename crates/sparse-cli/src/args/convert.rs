//! The command line of `sparse convert`.

use std::path::PathBuf;

use clap::Args;

use super::{ActivationArgs, ComputeArgs, ModelArgs};

pub(super) const CONVERT_EXAMPLES: &str = "\
Examples:
  sparse convert -m model.gguf
  sparse convert -m model.gguf --text story.txt
  sparse generate -m model.gguf --sparse sidecar --memory-budget 512MiB \"Once upon a time\"

The new file is as large as the feed-forward weights, and is used by itself where a --memory-budget is given. It appears
when it is whole. What Ctrl-C interrupts stays beside it as a .part, which the same command continues.";

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text to learn from which neurons are hot, a page at least, if the model's sidecar does not say; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Begin anew, even if an earlier run was interrupted
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) activation: ActivationArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
