//! The command line of `sparse chat`.

use clap::Args;
use sparse_model::KvFormat;

use super::generate::SamplerArgs;
use super::{ChatArgs, ComputeArgs, ModelArgs, SparseArgs, numbers};

pub(super) const EXAMPLES: &str = "\
Examples:
  sparse chat -m model.gguf
  sparse chat -m model.gguf --system \"Answer in one sentence.\"

/help lists what can be typed beside messages. Ctrl-C stops an answer, Ctrl-D ends the program.";

#[derive(Debug, Args)]
pub(crate) struct ConversationArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) template: ChatArgs,
    /// Most tokens of an answer; -1 is no limit but the context
    #[arg(short = 'n', long, value_name = "N", default_value = "-1", hide_default_value = true, value_parser = numbers::unlimited)]
    pub(crate) max_tokens: usize,
    /// Tokens of the conversation; the oldest messages go when it is full [default: 4096, or what the model was trained for if
    /// that is less]
    #[arg(short, long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = numbers::or_default)]
    pub(crate) context: usize,
    /// Storage of keys and values: f16, f32 or q8_0
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub(crate) kv: KvFormat,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) sparse: SparseArgs,
    // The last, because its help heading would go on for what follows.
    #[command(flatten)]
    pub(crate) sampler: SamplerArgs,
}
