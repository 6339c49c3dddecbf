//! The command line of `sparse generate`, and how tokens are chosen.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use sparse_model::{GenerateOptions, KvFormat, Overflow, SamplerConfig};

#[cfg(feature = "chat")]
use super::AnswerArgs;
use super::numbers::{self, finite, not_negative, positive, probability, random_seed};
use super::{ComputeArgs, ModelArgs, SparseArgs};

pub(super) const GENERATE_EXAMPLES: &str = "\
Examples:
  sparse generate \"Once upon a time\"                   the story model, inside this program
  sparse generate \"Once upon a time\" --sparse none     the same with all its neurons
  sparse \"Once upon a time\"                            the same, without the command's name
  sparse generate -m model.gguf \"Once upon a time\"
  sparse generate -m smollm2 \"Once upon a time\"        a file in models/, by the beginning of its name
  sparse generate -m model.gguf --chat \"Why is the sky blue?\"
  sparse generate -m model.gguf --greedy -n 50 < prompt.txt
  sparse generate -m model.gguf --chat --json-schema cat.json \"Describe a cat as JSON\"
  sparse generate -m model.gguf --stop \"\n\n\" --stop \"THE END\" \"A short story:\"
  sparse generate -m model.gguf --json --seed 7 \"The sea\" | jq .timings
  sparse generate -m model.gguf --sparse model.sparse.gguf --stats \"The sea\"
  sparse generate -m model.gguf --head screened --stats \"The sea\"
  sparse generate --neurons neurons.svg -n 48 \"Once upon a time\"

Text goes to stdout as it comes; a line about speed goes to stderr when that is a terminal. On a terminal a
prompt given as argument is shown before its continuation.";

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The prompt; from stdin when absent or `-` (one line break at its end is dropped)
    pub(crate) prompt: Option<OsString>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[cfg(feature = "chat")]
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
    /// Most tokens to generate; -1 is no limit but the context
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256, value_parser = numbers::unlimited)]
    pub(crate) max_tokens: usize,
    /// Tokens of prompt and text together that memory is kept for [default: as many as needed]
    #[arg(short, long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = numbers::or_default)]
    pub(crate) context: usize,
    /// Storage of keys and values: f16, f32 or q8_0; layers with values beyond f16 go on in f32 by themselves
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub(crate) kv: KvFormat,
    /// Go on when the model says that the text is over
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Text that ends the generation and is left out; may be given several times. \n, \t and \\ are read as in C
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    pub(crate) stop: Vec<String>,
    /// When the context is full, go on without the older half of what follows the first N tokens
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    pub(crate) shift: Option<usize>,
    /// Show with --json how probable each token was, and the N most probable ones beside it
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0", requires = "json")]
    pub(crate) logprobs: Option<usize>,
    /// File with a JSON schema that the text has to match; - is stdin, and JSON itself is taken as the schema
    #[cfg(feature = "grammar")]
    #[arg(long, value_name = "FILE|JSON", conflicts_with_all = ["regex", "lark"])]
    pub(crate) json_schema: Option<OsString>,
    /// Regular expression that the whole text has to match
    #[cfg(feature = "grammar")]
    #[arg(long, value_name = "REGEX", conflicts_with = "lark")]
    pub(crate) regex: Option<String>,
    /// File with a grammar in Lark's notation that the text has to match
    #[cfg(feature = "grammar")]
    #[arg(long, value_name = "FILE")]
    pub(crate) lark: Option<PathBuf>,
    /// Compute token by token: do not guess what follows from what followed the same tokens before. The text is the same
    #[arg(long)]
    pub(crate) no_lookup: bool,
    /// File that keeps what was computed of the prompt: a later prompt that begins in the same way begins sooner
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) sparse: SparseArgs,
    /// Show what each layer computed and read, and where the time went (to stderr; with --json among the rest)
    #[arg(long)]
    pub(crate) stats: bool,
    /// Draw which neurons fire for each token, and what leaving out the others saves, as an SVG picture. For dense layers,
    /// not for experts
    #[arg(long, value_name = "FILE", conflicts_with = "memory_budget")]
    pub(crate) neurons: Option<PathBuf>,
    /// Print the prompt before the text
    #[arg(long, conflicts_with = "json")]
    pub(crate) echo: bool,
    /// Print one JSON object at the end: text, tokens, timings
    #[arg(long)]
    pub(crate) json: bool,
    // The last, because its help heading would go on for what follows.
    #[command(flatten)]
    pub(crate) sampler: SamplerArgs,
}

/// How tokens are chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplerArgs {
    /// Always take the most probable token
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Below 1 more probable, above 1 more surprising text; 0 is --greedy
    #[arg(long, value_name = "X", default_value_t = SamplerConfig::default().temperature, value_parser = not_negative)]
    temperature: f32,
    /// Choose among the K most probable tokens; 0 or -1 is off
    #[arg(long, value_name = "K", default_value_t = SamplerConfig::default().top_k, value_parser = numbers::off_below_one)]
    top_k: usize,
    /// Choose among the most probable tokens that have probability P together; 1 is off
    #[arg(long, value_name = "P", default_value_t = SamplerConfig::default().top_p, value_parser = probability)]
    top_p: f32,
    /// Leave out tokens less probable than P times the best one; 0 is off
    #[arg(long, value_name = "P", default_value_t = SamplerConfig::default().min_p, value_parser = probability)]
    min_p: f32,
    /// Make recent tokens less probable when above 1
    #[arg(long, value_name = "X", default_value_t = SamplerConfig::default().repetition_penalty, value_parser = positive)]
    repeat_penalty: f32,
    /// Subtract X from the logit of a recent token for every time that it occurs
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = finite)]
    frequency_penalty: f32,
    /// Subtract X from the logit of a recent token once
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = finite)]
    presence_penalty: f32,
    /// Add BIAS to the logit of the token with this id; -inf excludes it. May be given several times
    #[arg(long, value_name = "ID=BIAS", value_parser = numbers::bias)]
    logit_bias: Vec<(u32, f32)>,
    /// How many tokens the penalties look back; -1 is all
    #[arg(long, value_name = "N", default_value_t = SamplerConfig::default().penalty_window, value_parser = numbers::unlimited)]
    repeat_window: usize,
    /// Seed: the same seed gives the same text, with neurons left out as the sidecar says, even where that should be slower
    /// here [default: random]
    #[arg(long, value_name = "N", value_parser = numbers::seed)]
    seed: Option<u64>,
}

impl SamplerArgs {
    /// Whether the same text is wanted every time.
    pub(crate) fn repeatable(&self) -> bool {
        self.seed.is_some() || self.config().temperature == 0.0
    }

    pub(crate) fn config(&self) -> SamplerConfig {
        SamplerConfig {
            logit_bias: self.logit_bias.clone(),
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            repetition_penalty: self.repeat_penalty,
            penalty_window: self.repeat_window,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            temperature: if self.greedy { 0.0 } else { self.temperature },
            seed: self.seed.unwrap_or_else(random_seed),
        }
    }
}

impl GenerateArgs {
    /// Whether the prompt is a message of a chat.
    pub(crate) fn chat(&self) -> bool {
        #[cfg(feature = "chat")]
        return self.answer.chat;
        #[cfg(not(feature = "chat"))]
        false
    }

    /// What to generate and when to stop, but for what the text has to match.
    pub(crate) fn options(&self) -> GenerateOptions {
        let mut options = GenerateOptions::new(self.max_tokens)
            .sampler(self.sampler.config())
            .ignore_end(self.ignore_eos)
            .stop(&self.stop);
        options.logprobs = self.logprobs;
        // Tokens that are computed together have no picture.
        options.lookup = !self.no_lookup && self.neurons.is_none();
        if let Some(keep) = self.shift {
            options.overflow = Overflow::Shift { keep };
        }
        options
    }
}

/// Reads `\\n`, `\\t`, `\\r` and `\\\\` as in C.
fn unescape(text: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (c, false) => c,
            (_, true) => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('\\') => '\\',
                _ => return Err("expected n, t, r or \\ behind \\".into()),
            },
        });
    }
    match out.is_empty() {
        true => Err("expected a text that is not empty".into()),
        false => Ok(out),
    }
}
