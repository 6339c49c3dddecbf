//! The command line.

mod chat;
#[cfg(feature = "chat")]
mod conversation;
mod convert;
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
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use sparse_gguf::Gguf;
use sparse_model::WeightFormat;
use sparse_model::{CacheKind, EncoderFormat, FfnActivation, HeadMode, KvFormat, MemoryBudget};

pub(crate) use chat::{ChatArgs, ChatTemplateArgs};
#[cfg(feature = "chat")]
pub(crate) use conversation::ConversationArgs;
use convert::CONVERT_EXAMPLES;
pub(crate) use convert::ConvertArgs;
pub(crate) use embed::{EmbedArgs, EncoderArgs, SearchArgs, SimilarityArgs};
pub(crate) use generate::GenerateArgs;
pub(crate) use models::find;
#[cfg(feature = "pull")]
pub(crate) use models::pulled;
use numbers::{minutes, percentage};
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
    /// Continue a prompt, or answer one with --chat
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
    #[command(after_help = chat::CHAT_TEMPLATE_EXAMPLES)]
    ChatTemplate(ChatTemplateArgs),
    /// Measure how well a model predicts a text
    #[command(after_help = PERPLEXITY_EXAMPLES)]
    Perplexity(PerplexityArgs),
    /// Measure how fast a model runs, beside how fast this machine reads memory
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Find out which neurons a model can leave out, and what that costs and gains
    #[command(after_help = CALIBRATE_EXAMPLES)]
    Calibrate(CalibrateArgs),
    /// Show how local a model's activations are: which share of the neurons does which share of the work
    #[command(after_help = PROFILE_EXAMPLES)]
    Profile(ProfileArgs),
    /// Store a model's neurons one by one, for running it in less memory than it has
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Turn texts into vectors whose cosine says how alike the texts are
    #[command(after_help = embed::EMBED_EXAMPLES)]
    Embed(EmbedArgs),
    /// Say how alike two texts are
    #[command(after_help = embed::SIMILARITY_EXAMPLES)]
    Similarity(SimilarityArgs),
    /// Find the lines of a file that are most like a text
    #[command(after_help = embed::SEARCH_EXAMPLES)]
    Search(SearchArgs),
    /// Fetch a model from the Hugging Face hub
    #[cfg(feature = "pull")]
    #[command(after_help = PULL_EXAMPLES)]
    Pull(PullArgs),
    /// Print a script that completes this program's arguments in a shell
    Completions(CompletionsArgs),
    /// Print this program's manual page
    Man(ManArgs),
}

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

const PERPLEXITY_EXAMPLES: &str = "\
Examples:
  sparse perplexity -m model.gguf --text wiki.test.raw
  sparse perplexity -m model.gguf --text wiki.test.raw --ctx 2048 --windows 20 --json
  sparse perplexity -m model.gguf --text wiki.test.raw --sparse model.sparse.gguf
  sparse perplexity -m model.gguf --text wiki.test.raw --ffn-lane bit5
  sparse perplexity -m model.gguf --text wiki.test.raw --measure-screen

The method is that of llama.cpp's llama-perplexity: the text is cut into windows of --ctx tokens, and the second
half of each is scored. The number after ± is one standard error. Compare results of the same window length only.";

#[derive(Debug, Args)]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text file to predict; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,
    /// Tokens per window
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    pub(crate) ctx: usize,
    /// Stop after this many windows; -1 is all [default: the whole text]
    #[arg(long, value_name = "N", value_parser = numbers::or_all)]
    pub(crate) windows: Option<NonZeroUsize>,
    /// Turn the text of control tokens, such as <|endoftext|>, into these tokens
    #[arg(long)]
    pub(crate) parse_special: bool,
    /// Storage of keys and values: f16, f32 or q8_0
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub(crate) kv: KvFormat,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) sparse: SparseArgs,
    /// Measure the screen of the head instead, whose own losses perplexity does not show: it uses the whole head
    #[arg(long)]
    pub(crate) measure_screen: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
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

const CALIBRATE_EXAMPLES: &str = "\
Examples:
  sparse calibrate -m model.gguf --text wiki.train.raw --test wiki.valid.raw
  sparse calibrate -m model.gguf --text stories.txt --max-loss 0.5% --out model.sparse.gguf
  sparse calibrate -m model.gguf                       on text that the model makes up itself
  sparse calibrate -m model.gguf --text wiki.train.raw --only head --continuations 200
  sparse calibrate -m all-MiniLM-L6-v2 --text sentences.txt --max-loss 3%    a sentence encoder
  sparse calibrate -m model.gguf --text stories.txt --only lanes

It tries the selectors that suit the feed-forward layers: first what could save time on this machine, then what that loses,
on text that nothing was fitted to and on text that the model makes up. The fastest inside the budget goes into the sidecar
for --sparse. A model that is not shown to be faster stays dense, and the table says why. --text is best like the text that
the model is for. For the output head it makes a screen: a compact copy that
says which rows matter for a token, so that only these are computed, exactly.

Of a sentence encoder, every line of the text is a sentence; of the options, only --text, --max-loss, --out, --ranks,
--format, --threads and --json count.";

/// A part of a model that calibration can make sparse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The feed-forward layers
    Ffn,
    /// The output head
    Head,
    /// Neurons in lanes: how many bits each is stored in. Keeps the selectors and the screen of the model's sidecar, if there
    /// is one; --max-loss is for both
    Lanes,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text to calibrate on; `-` is stdin [default: text sampled from the model; with --recall, tokens drawn evenly]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Text to measure the result on [default: a part of the text that nothing else uses]
    #[arg(long, value_name = "FILE", requires = "text")]
    pub(crate) test: Option<PathBuf>,
    /// Largest loss, by the upper end of its 95 % confidence interval: exp(KL) - 1, by how much perplexity grows on what the
    /// dense model writes, or for a sentence encoder what is missing of a cosine of 1 to the dense embedding [default: 1%, for
    /// encoders 3%]
    #[arg(long, value_name = "X%", value_parser = percentage)]
    pub(crate) max_loss: Option<f64>,
    /// Choose predictors that find this share of the active neurons, whatever the loss: for files of random weights
    #[arg(long, value_name = "X%", conflicts_with = "max_loss", value_parser = percentage)]
    pub(crate) recall: Option<f64>,
    /// The sidecar to write [default: beside the model, MODEL.sparse.gguf; where nothing can be written, in the cache folder]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Time to take, about; what there is no time for is not tried
    #[arg(long, value_name = "N", default_value = "10", value_parser = minutes)]
    pub(crate) minutes: Duration,
    /// Keep selectors that make the model slower, to look at them; everything is tried, whether it can pay or not
    #[arg(long)]
    pub(crate) keep: bool,
    /// Tokens per window; the second half of each is scored
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    pub(crate) ctx: usize,
    /// Tokens that settings are chosen by, at most; -1 is all that the text has
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = numbers::unlimited)]
    pub(crate) tune_tokens: usize,
    /// Tokens that the result is measured on, at most; -1 is all that the text has
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = numbers::unlimited)]
    pub(crate) test_tokens: usize,
    /// Tokens that selectors and screen are fitted to, at most; -1 is all that the text has
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = numbers::unlimited)]
    pub(crate) fit_tokens: usize,
    /// Look at this part of the model only
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<Part>,
    /// Greedy texts of 64 tokens to compare with and without the screen of the head; -1 is as many as there are
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = numbers::unlimited)]
    pub(crate) continuations: usize,
    /// Ranks of the predictors to try; without a value, none
    #[arg(long, value_name = "R,...", value_delimiter = ',', num_args = 0.., default_value = "32,64,128")]
    pub(crate) ranks: Vec<NonZeroUsize>,
    /// Weights of a sentence encoder, whose times are measured
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub(crate) format: EncoderFormat,
    #[command(flatten)]
    pub(crate) activation: ActivationArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const PROFILE_EXAMPLES: &str = "\
Examples:
  sparse profile -m model.gguf --text story.txt
  sparse profile -m model.gguf --text story.txt --svg locality.svg
  sparse profile -m model.gguf --text story.txt --json | jq '.layers[].zeros'

A neuron's mass is |h| times the norm of its column of the down projection: its part in the output. If few neurons have
most of it for each token, an oracle could skip the rest; only if the same few have it for all tokens is there a hot set.";

#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text to read, some pages at least; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,
    /// Draw the curves into an SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Tokens per window
    #[arg(short, long, value_name = "N", default_value_t = 256)]
    pub(crate) ctx: usize,
    #[command(flatten)]
    pub(crate) activation: ActivationArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Print the curves as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
