//! The command line.

#[cfg(feature = "calibrate")]
mod calibrate;
#[cfg(feature = "chat")]
mod chat;
#[cfg(feature = "chat")]
mod conversation;
mod convert;
#[cfg(feature = "embed")]
mod embed;
mod generate;
mod models;
mod numbers;
mod parse;
#[cfg(feature = "serve")]
mod serve;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use sparse_gguf::Gguf;
use sparse_model::WeightFormat;
use sparse_model::{CacheKind, FfnActivation, HeadMode, MemoryBudget};

#[cfg(feature = "calibrate")]
use calibrate::{CALIBRATE_EXAMPLES, PERPLEXITY_EXAMPLES, PROFILE_EXAMPLES};
#[cfg(feature = "calibrate")]
pub(crate) use calibrate::{CalibrateArgs, Part, PerplexityArgs, ProfileArgs};
#[cfg(feature = "chat")]
pub(crate) use chat::{AnswerArgs, ChatArgs, ChatTemplateArgs};
#[cfg(feature = "chat")]
pub(crate) use conversation::ConversationArgs;
use convert::CONVERT_EXAMPLES;
pub(crate) use convert::ConvertArgs;
#[cfg(feature = "embed")]
pub(crate) use embed::{EmbedArgs, EncoderArgs, SearchArgs, SimilarityArgs};
pub(crate) use generate::GenerateArgs;
pub(crate) use models::find;
#[cfg(feature = "pull")]
pub(crate) use models::pulled;
#[cfg(feature = "serve")]
pub(crate) use serve::ServeArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failure: a file is missing or damaged, or the model cannot be run
  2    wrong usage of the command line or of SPARSE_SIMD
  130  ended by Ctrl-C (the first ends after the current step and prints what there is, the second at once)

Environment:
  SPARSE_MODEL    the model when none is named
  SPARSE_ENCODER  the embedding model when none is named
  SPARSE_SIMD     instruction set of the kernels, such as scalar or avx2 (default: the best; see `inspect --cpu`)
  RUST_LOG        log filter, instead of -v
  NO_COLOR        no colors";

/// Runs language models from GGUF files, and sentence-embedding models, on the CPU
///
/// Without a command, `sparse "Once upon a time"` is `sparse generate "Once upon a time"`.
#[derive(Debug, Parser)]
#[command(name = "sparse", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log to stderr: -v what happens, -vv more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, for as long as the program runs")]
pub(crate) enum Command {
    #[cfg_attr(feature = "chat", doc = "Continue a prompt, or answer one with --chat")]
    #[cfg_attr(not(feature = "chat"), doc = "Continue a prompt")]
    #[command(after_help = generate::GENERATE_EXAMPLES)]
    Generate(GenerateArgs),
    /// Talk to a model at the terminal
    #[cfg(feature = "chat")]
    #[command(after_help = conversation::EXAMPLES)]
    Chat(ConversationArgs),
    /// Answer requests over HTTP, with OpenAI's interface
    #[cfg(feature = "serve")]
    #[command(after_help = serve::SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Show what is in a GGUF file, or what this CPU can do
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Turn text into token ids, or ids into text
    #[command(after_help = TOKENIZE_EXAMPLES)]
    Tokenize(TokenizeArgs),
    /// Show the prompt that a chat template makes of a conversation
    #[cfg(feature = "chat")]
    #[command(after_help = chat::CHAT_TEMPLATE_EXAMPLES)]
    ChatTemplate(ChatTemplateArgs),
    /// Measure how well a model predicts a text
    #[command(after_help = PERPLEXITY_EXAMPLES)]
    #[cfg(feature = "calibrate")]
    Perplexity(PerplexityArgs),
    /// Measure how fast a model runs, beside how fast this machine reads memory
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Find out which neurons a model can leave out, and what that costs and gains
    #[command(after_help = CALIBRATE_EXAMPLES)]
    #[cfg(feature = "calibrate")]
    Calibrate(CalibrateArgs),
    /// Show how local a model's activations are: which share of the neurons does which share of the work
    #[command(after_help = PROFILE_EXAMPLES)]
    #[cfg(feature = "calibrate")]
    Profile(ProfileArgs),
    /// Store a model's neurons one by one, for running it in less memory than it has
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Turn texts into vectors whose cosine says how alike the texts are
    #[cfg(feature = "embed")]
    #[command(after_help = embed::EMBED_EXAMPLES)]
    Embed(EmbedArgs),
    /// Say how alike two texts are
    #[cfg(feature = "embed")]
    #[command(after_help = embed::SIMILARITY_EXAMPLES)]
    Similarity(SimilarityArgs),
    /// Find the lines of a file that are most like a text
    #[cfg(feature = "embed")]
    #[command(after_help = embed::SEARCH_EXAMPLES)]
    Search(SearchArgs),
    /// Fetch a model from the Hugging Face hub
    #[cfg(feature = "pull")]
    #[command(after_help = PULL_EXAMPLES)]
    Pull(PullArgs),
    /// Print a script that completes this program's arguments in a shell
    #[cfg(feature = "shell")]
    Completions(CompletionsArgs),
    /// Print this program's manual page
    #[cfg(feature = "shell")]
    Man(ManArgs),
}

#[cfg(feature = "shell")]
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(feature = "pull")]
const PULL_EXAMPLES: &str = "\
Examples:
  sparse pull OWNER/NAME                  the file with Q4_K_M in its name, or the only one
  sparse pull OWNER/NAME --quant q8_0
  sparse pull OWNER/NAME/FILE.gguf

It prints the file's name, by which --model knows it from then on. What was begun is continued. HF_ENDPOINT, HF_HOME and
HF_TOKEN are honored.";

#[cfg(feature = "pull")]
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The repository as OWNER/NAME, or one of its files as OWNER/NAME/FILE
    pub(crate) model: String,
    /// What the file's name has to contain
    #[arg(long, value_name = "TEXT", default_value = "Q4_K_M")]
    pub(crate) quant: String,
}

#[cfg(feature = "shell")]
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder instead
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// GGUF file of the model, or the beginning of the name of one in `models/`
    #[cfg_attr(feature = "story", doc = "[default: a small story model, part of this program]")]
    #[arg(short, long, value_name = "FILE", env = "SPARSE_MODEL", hide_env_values = true, value_parser = models::path_or_name())]
    pub(crate) model: Option<PathBuf>,
}

/// Which neurons, and how they are stored.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SparseArgs {
    /// Neurons to leave out: `none`; `exact-zero`, those whose activation is zero; `sidecar`, as the file that `sparse
    /// calibrate` wrote for the model says, which may screen the head, too; or another such FILE [default: what the
    /// model was made for]
    #[arg(long, value_name = "WHICH", value_parser = sparse())]
    pub(crate) sparse: Option<Sparse>,
    /// Output head for decoding: `dense`; `screened`, exact logits of the rows that matter only; or `auto`, screened where
    /// that reads much less, for texts of 128 tokens or more: it takes memory, and time at load
    #[arg(long, value_name = "HOW", default_value_t)]
    pub(crate) head: HeadMode,
    /// Whether too few tokens follow for `auto` to make a screen.
    #[arg(skip)]
    pub(crate) brief: bool,
    #[command(flatten)]
    pub(crate) activation: ActivationArgs,
    /// Round the feed-forward weights first: to a lane, `bit3`, `bit5` or `bit7`, or to a format of GGUF, such as `q4_0`; not
    /// with a sidecar that has lanes
    #[arg(long, value_name = "LANE")]
    pub(crate) ffn_lane: Option<WeightFormat>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// How much memory weights take.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct MemoryArgs {
    /// Memory for weights, such as `512MiB` or `1.5GB`: experts, and neurons that `sparse convert` has stored one by one, are
    /// read when a token needs them if they do not fit. Keys and values come on top [default: all that the model has]
    #[arg(long, value_name = "SIZE", value_parser = numbers::bytes)]
    pub(crate) memory_budget: Option<usize>,
    /// Experts or neurons that leave memory first: `lru`, not used for the longest time, or `lfu`, used least often
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) cache: CacheKind,
    /// Lock the neurons that are in memory, so that the system never pages them out
    #[arg(long, requires = "memory_budget")]
    pub(crate) lock: bool,
}

impl MemoryArgs {
    pub(crate) fn budget(self) -> Option<MemoryBudget> {
        self.memory_budget.map(|bytes| MemoryBudget { bytes, cache: self.cache })
    }
}

impl SparseArgs {
    /// Its name in tables, if anything was asked for.
    pub(crate) fn name(&self) -> Option<String> {
        let sparse = self.sparse.as_ref().map(Sparse::name);
        let head = (self.head != HeadMode::Auto).then(|| format!("{} head", self.head));
        let lane = self.ffn_lane.map(|f| f.to_string());
        let memory = self.memory.budget().map(|b| format!("{} MiB, {}", b.bytes >> 20, b.cache));
        let parts: Vec<String> = sparse.into_iter().chain(lane).chain(head).chain(memory).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Which activation.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ActivationArgs {
    /// Function of the feed-forward layers, where the file does not name the one that the model was trained with: `relu`,
    /// `relu2`, `drelu`, `fatrelu:0.03`, `silu`, `gelu`, `gelu_tanh`, `swiglu_oai` [default: what the file or its
    /// name says]
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) activation: Option<FfnActivation>,
}

impl ActivationArgs {
    /// Writes the activation where the file would have named it.
    pub(crate) fn set(self, gguf: &mut Gguf) -> anyhow::Result<()> {
        if let Some(activation) = self.activation {
            let architecture = gguf.metadata().string("general.architecture")?;
            let key = format!("{architecture}.hidden_activation");
            gguf.metadata_mut().insert(key, activation.to_string());
        }
        Ok(())
    }
}

/// Neurons to leave out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sparse {
    None,
    /// None, and `down` is stored as dense models have it.
    DenseRows,
    ExactZero,
    /// As the model's own sidecar says.
    Sidecar,
    /// As this sidecar says.
    File(PathBuf),
}

impl Sparse {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::None => "none".into(),
            Self::DenseRows => "dense-rows".into(),
            Self::ExactZero => "exact-zero".into(),
            Self::Sidecar => "sidecar".into(),
            Self::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }
}

fn sparse() -> impl TypedValueParser<Value = Sparse> {
    PathBufValueParser::new().map(|path| match path.to_str() {
        Some("none") => Sparse::None,
        Some("dense-rows") => Sparse::DenseRows,
        Some("exact-zero") => Sparse::ExactZero,
        Some("sidecar") => Sparse::Sidecar,
        _ => Sparse::File(path),
    })
}

/// What to compute on.
#[derive(Debug, Default, Args)]
pub(crate) struct ComputeArgs {
    /// Threads to compute on; 0 is all cores [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = numbers::threads)]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl ComputeArgs {
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(numbers::cores).get()
    }
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  sparse inspect model.gguf                 what it is, and what its parts weigh
  sparse inspect model.gguf --tensors       one line per tensor
  sparse inspect model.gguf --json | jq '.metadata[\"tokenizer.chat_template\"]' -r
  sparse inspect model.gguf --check-activation
  sparse inspect model.gguf --set-activation relu --out model.relu.gguf
  sparse inspect --cpu                      instruction sets for SPARSE_SIMD";

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// GGUF file, of any architecture, or the beginning of the name of one in `models/`
    #[cfg_attr(feature = "story", doc = "[default: the story model]")]
    #[arg(value_parser = models::path_or_name())]
    pub(crate) file: Option<PathBuf>,
    /// List the tensors: name, type, shape (row length first), bytes
    #[arg(long)]
    pub(crate) tensors: bool,
    /// List the metadata; long arrays and texts are shortened
    #[arg(long)]
    pub(crate) metadata: bool,
    /// Find out which activation the model was trained with: score a short text with each
    #[arg(long, conflicts_with_all = ["tensors", "metadata", "cpu"])]
    pub(crate) check_activation: bool,
    /// Write a copy of the file that names this activation
    #[arg(long, value_name = "FUNCTION", requires = "out", conflicts_with_all = ["tensors", "metadata", "check_activation"])]
    pub(crate) set_activation: Option<FfnActivation>,
    /// Where the copy goes
    #[arg(short, long, value_name = "FILE", requires = "set_activation")]
    pub(crate) out: Option<PathBuf>,
    /// Show this CPU's instruction sets
    #[arg(long, conflicts_with_all = ["file", "tensors", "metadata"])]
    pub(crate) cpu: bool,
    /// Print JSON; of long arrays only length and first items
    #[arg(long)]
    pub(crate) json: bool,
}

const TOKENIZE_EXAMPLES: &str = "\
Examples:
  sparse tokenize -m model.gguf \"Hello, world\"
  sparse tokenize -m model.gguf --ids --file text.txt
  sparse tokenize -m model.gguf --lines < lines.txt        an array of ids per line
  sparse tokenize -m model.gguf --decode \"[19556, 28, 905]\"

Text is taken as it is: a line break at the end of a file or of stdin is part of it.";

#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// The text; from stdin when absent or `-`
    #[arg(conflicts_with = "file")]
    pub(crate) text: Option<OsString>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Read the text from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print only the ids, as a JSON array
    #[arg(long)]
    pub(crate) ids: bool,
    /// Print ids and pieces as JSON
    #[arg(long, conflicts_with_all = ["ids", "lines", "decode"])]
    pub(crate) json: bool,
    /// Tokenize every line (without its line break) on its own and print an array of ids for each
    #[arg(long, conflicts_with = "decode")]
    pub(crate) lines: bool,
    /// Do not add the tokens that begin or end a text; with --decode, leave control tokens out
    #[arg(long)]
    pub(crate) no_special: bool,
    /// Turn the text of control tokens, such as <|im_end|>, into these tokens
    #[arg(long, conflicts_with = "decode")]
    pub(crate) parse_special: bool,
    /// Print the text of ids (numbers with spaces, commas or brackets between)
    #[arg(long, conflicts_with = "ids")]
    pub(crate) decode: bool,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  sparse bench -m model.gguf
  sparse bench -m model.gguf --threads 1,2 --rounds 9
  sparse bench -m model.gguf --prompt 32 --tokens 64 --depth 1000 --json
  sparse bench --sparse dense-rows,exact-zero,sidecar  the story model, all its neurons and some by turns
  sparse bench -m model.gguf --sparse none,model.sparse.gguf

Decoding a token reads all weights of the model once, so that memory bandwidth bounds it: `of roofline` is the
share of the bandwidth measured in the same rounds. Above 100 % the weights fit a cache. Figures are medians.";

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Tokens of the prompt that is computed in one go
    #[arg(short, long, value_name = "N", default_value = "512")]
    pub(crate) prompt: NonZeroUsize,
    /// Tokens to decode one by one
    #[arg(short = 'n', long, value_name = "N", default_value = "128")]
    pub(crate) tokens: NonZeroUsize,
    /// Tokens in the context before decoding starts
    #[arg(short, long, value_name = "N", default_value = "16")]
    pub(crate) depth: NonZeroUsize,
    /// Thread counts to measure, in turn; 0 is all cores [default: 1 and all cores]
    #[arg(short, long, value_name = "N,...", value_delimiter = ',', value_parser = numbers::threads)]
    pub(crate) threads: Vec<NonZeroUsize>,
    /// Neurons to leave out, as for `generate`; of several, the others are compared with the first. `dense-rows` leaves out
    /// none, and stores the weights of a file that is made for skipping as dense files have them, which is faster
    #[arg(long, value_name = "WHICH,...", value_delimiter = ',', value_parser = sparse())]
    pub(crate) sparse: Vec<Sparse>,
    /// Lanes or formats to round the feed-forward weights to, as for `generate`; each with each of --sparse
    #[arg(long, value_name = "LANE,...", value_delimiter = ',')]
    pub(crate) ffn_lane: Vec<WeightFormat>,
    /// Text to decode, which decides how many neurons can be left out [default: what the model makes up]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Times to measure everything
    #[arg(short, long, value_name = "N", default_value = "5")]
    pub(crate) rounds: NonZeroUsize,
    /// Output heads, as for `generate`: each with each of --sparse [default: auto]
    #[arg(long, value_name = "HOW,...", value_delimiter = ',')]
    pub(crate) head: Vec<HeadMode>,
    /// Memory for weights, as for `generate`: each with each --cache
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = numbers::bytes)]
    pub(crate) memory_budget: Vec<usize>,
    /// Experts that leave memory first, as for `generate`
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',')]
    pub(crate) cache: Vec<CacheKind>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) activation: ActivationArgs,
}
