//! The command lines of what measures a model's quality: `sparse calibrate`, `sparse profile` and `sparse perplexity`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sparse_model::{EncoderFormat, KvFormat};

use super::numbers::{or_default, unlimited};
use super::{ActivationArgs, ComputeArgs, ModelArgs, SparseArgs};

pub(super) const CALIBRATE_EXAMPLES: &str = "\
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
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = unlimited)]
    pub(crate) tune_tokens: usize,
    /// Tokens that the result is measured on, at most; -1 is all that the text has
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = unlimited)]
    pub(crate) test_tokens: usize,
    /// Tokens that selectors and screen are fitted to, at most; -1 is all that the text has
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = unlimited)]
    pub(crate) fit_tokens: usize,
    /// Look at this part of the model only
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<Part>,
    /// Greedy texts of 64 tokens to compare with and without the screen of the head; -1 is as many as there are
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = unlimited)]
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

pub(super) const PROFILE_EXAMPLES: &str = "\
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

pub(super) const PERPLEXITY_EXAMPLES: &str = "\
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
    #[arg(long, value_name = "N", value_parser = or_all)]
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

/// A count above 0; 0 and -1 are all there are.
fn or_all(text: &str) -> Result<NonZeroUsize, String> {
    const EXPECTED: &str = "a number above 0; 0 or -1 is all";
    let n = or_default(text).map_err(|_| format!("expected {EXPECTED}"))?;
    Ok(NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MAX))
}

/// A number of minutes above 0.
fn minutes(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(|minutes: f64| 60.0 * minutes).filter(|s| *s > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.min(1e9)).ok())
        .ok_or_else(|| "expected a number of minutes above 0".into())
}

/// A percentage such as `0.5%`, as a ratio. The sign is needed: a plain 1 or 0.5 could be either.
fn percentage(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim_end().parse::<f64>().ok().filter(|x| x.is_finite());
    let Some(percent) = text.strip_suffix('%') else {
        return Err(match number(text) {
            Some(0.0) => return Ok(0.0),
            Some(x) => format!("write {x}% for {x} percent: a number without % is not taken"),
            None => "expected a percentage such as 1% or 0.5%".into(),
        });
    };
    let share = number(percent).map(|x| x * 0.01).filter(|x| (0.0..1.0).contains(x));
    share.ok_or_else(|| "expected a percentage from 0% to below 100%, such as 1% or 0.5%".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_some_or_all() {
        assert_eq!(["0", "7", "-1"].map(|n| or_all(n).unwrap().get()), [usize::MAX, 7, usize::MAX]);
        for text in ["", "x", "1.5", "-3"] {
            assert!(or_all(text).unwrap_err().starts_with("expected a"), "{text}");
        }
    }

    #[test]
    fn minutes_are_above_zero() {
        let seconds = ["10", "0.5", "inf"].map(|m| minutes(m).unwrap().as_secs());
        assert_eq!(seconds, [600, 30, 1_000_000_000]);
        assert!(["0", "-1", "NaN", "x", ""].iter().all(|m| minutes(m).is_err()));
    }

    #[test]
    fn percentages_need_their_sign() {
        assert_eq!(["1%", "0.5 %", "0%", "0"].map(|p| percentage(p).unwrap()), [0.01, 0.005, 0.0, 0.0]);
        for (text, says) in
            [("1", "write 1% for 1 percent"), ("0.01", "write 0.01% for"), ("x", "such as 1%")]
        {
            assert!(percentage(text).unwrap_err().contains(says), "{text}");
        }
        for text in ["100%", "-1%", "nan%", "%"] {
            assert!(percentage(text).unwrap_err().contains("below 100%"), "{text}");
        }
    }
}
