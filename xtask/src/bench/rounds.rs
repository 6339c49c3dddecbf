//! Whole processes that measure one model in turn.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::program::{built, output};

/// Tokens of the prompt, and of one for which the first token is timed.
pub(super) const PROMPT: usize = 512;
const SHORT_PROMPT: usize = 32;
/// Tokens decoded, and tokens before them.
pub(super) const TOKENS: usize = 128;
const DEPTH: usize = 16;

/// Figures of one process.
#[derive(Clone, Copy, Default)]
pub(super) struct Round {
    pub(super) prefill: f64,
    pub(super) decode: f64,
    /// Milliseconds from opening the file to the token after a prompt of [`SHORT_PROMPT`].
    pub(super) first_token: f64,
    /// Our side only: GB/s of weights, GB/s of a plain loop, bytes per token.
    pub(super) gb: f64,
    pub(super) memory: f64,
    pub(super) bytes_per_token: f64,
}

/// Median, least and greatest over rounds.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let median = f64::midpoint(values[(n - 1) / 2], values[n / 2]);
        Self { median, min: values[0], max: values[n - 1] }
    }
}

/// One round of our program, which has been built, at the best level of this CPU or at `level`. One process times the prompt
/// and decoding, another one the first token.
pub(super) fn ours(model: &Path, threads: usize, level: Option<&str>) -> Result<Round> {
    let bench = |prompt: usize, tokens: usize| -> Result<Value> {
        let mut command = built("sparse");
        command.args(["bench", "--json", "--rounds", "1", "--model"]).arg(model);
        for (option, value) in
            [("--prompt", prompt), ("--tokens", tokens), ("--depth", DEPTH), ("--threads", threads)]
        {
            command.arg(option).arg(value.to_string());
        }
        if let Some(level) = level {
            command.env("SPARSE_SIMD", level);
        }
        json(&mut command)
    };
    let (cold, warm) = (bench(SHORT_PROMPT, 1)?, bench(PROMPT, TOKENS)?);
    let figure = |report: &Value, name: &str| number(&report["threads"][0][name]["median"], name);
    Ok(Round {
        prefill: figure(&warm, "prefill_tokens_per_s")?,
        decode: figure(&warm, "decode_tokens_per_s")?,
        first_token: number(&cold["threads"][0]["load_ms"], "load_ms")?
            + 1e3 * SHORT_PROMPT as f64 / figure(&cold, "prefill_tokens_per_s")?,
        gb: figure(&warm, "decode_gb_per_s")?,
        memory: figure(&warm, "read_gb_per_s")?,
        bytes_per_token: number(&warm["bytes_per_token"], "bytes_per_token")?,
    })
}

/// One round of a peer, whose command `command(prompt, tokens, depth)` makes.
pub(super) fn peer(command: impl Fn(usize, usize, usize) -> Command) -> Result<Round> {
    let (cold, warm) =
        (json(&mut command(SHORT_PROMPT, 1, DEPTH))?, json(&mut command(PROMPT, TOKENS, DEPTH))?);
    let figure = |report: &Value, name: &str| number(&report[name], name);
    Ok(Round {
        prefill: figure(&warm, "prefill_tokens_per_s")?,
        decode: figure(&warm, "decode_tokens_per_s")?,
        first_token: figure(&cold, "load_ms")?
            + 1e3 * SHORT_PROMPT as f64 / figure(&cold, "prefill_tokens_per_s")?,
        ..Round::default()
    })
}

pub(super) fn json(command: &mut Command) -> Result<Value> {
    let printed = output(command.stderr(Stdio::inherit()))?;
    serde_json::from_slice(&printed).with_context(|| format!("{command:?} printed no JSON"))
}

fn number(value: &Value, name: &str) -> Result<f64> {
    value.as_f64().with_context(|| format!("no {name} in a report"))
}
