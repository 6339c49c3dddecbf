//! The command line of the commands for sentence embeddings.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use sparse_model::EncoderFormat;
use sparse_precision::PrecisionLane;

use super::ComputeArgs;

/// Which embedding model.
#[derive(Debug, Args)]
pub(crate) struct EncoderArgs {
    /// Folder of a sentence-transformers model, or GGUF file of architecture `bert`
    #[arg(short, long, value_name = "PATH", env = "SPARSE_ENCODER", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// Weights in memory: f32, the reference; int8; a block format such as Q8_0 or Q4_0; or a lane such as Bit5
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub(crate) format: EncoderFormat,
    /// Tokens that a text is cut down to [default: what the model was made for]
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<NonZeroUsize>,
    /// Neurons to leave out where that is faster on this machine: the file that `sparse calibrate` wrote for this model.
    /// Timed when the model is loaded; embeddings then depend, a little, on that and on how many texts are computed together
    #[arg(long, value_name = "FILE")]
    pub(crate) sparse: Option<PathBuf>,
    /// Leave them out even where that is slower: to see what it does to the embeddings
    #[arg(long, requires = "sparse")]
    pub(crate) sparse_always: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

pub(super) const EMBED_EXAMPLES: &str = "\
Examples:
  sparse embed -m all-MiniLM-L6-v2 \"A cat sleeps.\" \"A kitten is resting.\"
  sparse embed -m all-MiniLM-L6-v2 --file sentences.txt --npy --out sentences.npy
  sparse embed -m all-MiniLM-L6-v2 --json < sentences.txt | jq .embedding[0]

Without texts and --file, each line of stdin is a text. An empty line is a text, too. `cargo xtask fetch minilm` fetches
a model.";

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Texts, each of which gets a vector
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(crate) texts: Vec<String>,
    /// File of texts, one per line; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) encoder: EncoderArgs,
    /// Write to a file [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// A JSON object with text and embedding per line [default: the values, a line per text]
    #[arg(long, conflicts_with = "npy")]
    pub(crate) json: bool,
    /// One NumPy array of f32, `[texts x values]`
    #[arg(long)]
    pub(crate) npy: bool,
}

pub(super) const SIMILARITY_EXAMPLES: &str = "\
Examples:
  sparse similarity -m all-MiniLM-L6-v2 \"A cat sleeps.\" \"A kitten is resting.\"
  sparse similarity -m all-MiniLM-L6-v2 --format f32 --json \"one\" \"two\"

The cosine of the angle between the texts' embeddings: 1 for the same meaning, about 0 for texts that have nothing in common.";

#[derive(Debug, Args)]
pub(crate) struct SimilarityArgs {
    /// One text
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// The other
    #[arg(value_name = "B")]
    pub(crate) b: String,
    #[command(flatten)]
    pub(crate) encoder: EncoderArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) const SEARCH_EXAMPLES: &str = "\
Examples:
  sparse search -m all-MiniLM-L6-v2 --docs notes.txt \"where did I leave the keys\"
  sparse search -m all-MiniLM-L6-v2 --docs notes.txt --top 3 --json \"keys\" | jq .[0].text
  sparse search -m all-MiniLM-L6-v2 --docs notes.txt --lane bit5 \"keys\"

Embeds every line of the file and compares all of them with the query: exact, and fast enough for some ten thousand lines.
A lane of few bits keeps the lines' embeddings in less memory, with cosines that are off by a little.";

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What to look for
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// File of texts, one per line; `-` is stdin. Empty lines are left out
    #[arg(long, value_name = "FILE")]
    pub(crate) docs: PathBuf,
    /// How the lines' embeddings are kept: bit3, bit5, bit7 or float
    #[arg(long, value_name = "LANE", default_value = "float")]
    pub(crate) lane: PrecisionLane,
    /// Lines to show
    #[arg(short = 'k', long, value_name = "N", default_value = "5")]
    pub(crate) top: NonZeroUsize,
    #[command(flatten)]
    pub(crate) encoder: EncoderArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
