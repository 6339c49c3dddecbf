//! The command line of the commands for sentence embeddings.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use sparse_model::{EncoderFormat, Prompt};
use sparse_precision::PrecisionLane;

use super::{ComputeArgs, models, numbers};

/// Which embedding model.
#[derive(Debug, Args)]
pub(crate) struct EncoderArgs {
    /// Folder of a sentence-transformers model, or GGUF file of architecture `bert`, or the beginning of the
    /// name of one in `models/`
    #[arg(short, long, value_name = "PATH", env = "SPARSE_ENCODER", hide_env_values = true, value_parser = models::path_or_name())]
    pub(crate) model: Option<PathBuf>,
    /// Weights in memory: f32, the reference; int8; a block format such as Q8_0 or Q4_0; or a lane such as Bit5
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub(crate) format: EncoderFormat,
    /// Tokens that a text is cut down to; -1 is the most that the model was made for [default: -1]
    #[arg(long, value_name = "N", default_value = "-1", hide_default_value = true, value_parser = numbers::or_default)]
    pub(crate) max_tokens: usize,
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

/// What stands before the texts.
#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// Put this before every text, such as "query: ", in place of the model's prompt; "" is nothing
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    pub(crate) prompt: Option<String>,
    /// The prompt of that name in the model's folder
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt_name: Option<String>,
}

impl PromptArgs {
    /// The prompt that was asked for, or another.
    pub(crate) fn or(&self, default: Prompt) -> Prompt {
        prompt(self.prompt.as_deref(), self.prompt_name.as_deref(), default)
    }
}

fn prompt(text: Option<&str>, name: Option<&str>, default: Prompt) -> Prompt {
    match (text, name) {
        (Some(text), _) => Prompt::Text(text.to_owned()),
        (None, Some(name)) => Prompt::Named(name.to_owned()),
        (None, None) => default,
    }
}

pub(super) const EMBED_EXAMPLES: &str = "\
Examples:
  sparse embed -m all-MiniLM-L6-v2 \"A cat sleeps.\" \"A kitten is resting.\"
  sparse embed -m all-MiniLM-L6-v2 --file sentences.txt --npy --out sentences.npy
  sparse embed -m all-MiniLM-L6-v2 --json < sentences.txt | jq .embedding[0]
  sparse embed -m multilingual-e5-small --prompt \"passage: \" \"Bees find home by the sun.\"

The model's default prompt, if it has one, is put before every text. Without texts and --file, each line of stdin is a text. An empty line is a text, too. `cargo xtask fetch minilm` fetches
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
    pub(crate) prompt: PromptArgs,
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
    pub(crate) prompt: PromptArgs,
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
  sparse search -m all-MiniLM-L6-v2 --docs notes.txt --index notes.idx \"keys\"
  sparse search -m all-MiniLM-L6-v2 --docs notes.txt --lane bit5 \"keys\"

Compares the query with every line of the file: exact, and fast enough for some ten thousand lines. With --index the lines'
embeddings are kept: a later query only embeds lines that are new. An index of another model, prompt or option is replaced.
The query gets the model's prompt `query`, the lines `document`, `passage` or `corpus`, if it has them.
A lane of few bits keeps the lines' embeddings in less memory, with cosines that are off by a little.";

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What to look for
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// File of texts, one per line; `-` is stdin. Empty lines are left out
    #[arg(long, value_name = "FILE")]
    pub(crate) docs: PathBuf,
    /// Keep the lines' embeddings in this file, from one query to the next; it is made if it is not there
    #[arg(long, value_name = "FILE")]
    pub(crate) index: Option<PathBuf>,
    /// Put this before every line, such as "passage: ", in place of the model's prompt; "" is nothing
    #[arg(long, value_name = "TEXT", conflicts_with = "doc_prompt_name")]
    pub(crate) doc_prompt: Option<String>,
    /// The prompt of that name for the lines
    #[arg(long, value_name = "NAME")]
    pub(crate) doc_prompt_name: Option<String>,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// How the lines' embeddings are held in memory: bit3, bit5, bit7 or float
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

impl SearchArgs {
    /// The prompt of the lines.
    pub(crate) fn document_prompt(&self) -> Prompt {
        prompt(self.doc_prompt.as_deref(), self.doc_prompt_name.as_deref(), Prompt::Document)
    }
}
