//! The command line of `sparse serve`.

use std::path::PathBuf;

use clap::Args;
use sparse_model::KvFormat;

use super::{ComputeArgs, ModelArgs, SparseArgs, models, numbers};

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  sparse serve -m model.gguf                       on http://127.0.0.1:8080, for this machine alone
  sparse serve -m model.gguf --encoder all-MiniLM-L6-v2
  SPARSE_API_KEY=secret sparse serve -m model.gguf --host 0.0.0.0

  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'

The interface is OpenAI's: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models; and /health, and /metrics
for Prometheus. Ctrl-C lets the answers that have begun come to their end, for half a minute at most.";

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Model for embeddings: a folder of a sentence-transformers model, or a GGUF file of architecture `bert`
    #[arg(long, value_name = "PATH", env = "SPARSE_ENCODER", hide_env_values = true, value_parser = models::path_or_name())]
    pub(crate) encoder: Option<PathBuf>,
    /// Name of the model for clients [default: that of the file]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Address to listen on; others than the loopback let other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 is a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
    /// What clients have to send as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "SPARSE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Tokens of prompt and text together [default: 4096, or what the model was trained for if that is less]
    #[arg(short, long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = numbers::or_default)]
    pub(crate) context: usize,
    /// Storage of keys and values: f16, f32 or q8_0
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub(crate) kv: KvFormat,
    /// Texts that are computed together at most
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) parallel: usize,
    /// Texts that may wait; further requests are answered with 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) queue: usize,
    /// Megabytes of keys and values that are kept for prompts that begin like earlier ones
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) prefix_mb: usize,
    /// Read the names of control tokens in what clients send, such as <|im_end|>, as those tokens
    #[arg(long)]
    pub(crate) parse_special: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) sparse: SparseArgs,
}
