//! The story model inside the program: long texts with and without its idle neurons.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::program::{output, program};

/// Tokens per text.
const TOKENS: &str = "200";

/// Fails unless the greedy texts of all prompts of the story model's folder are the same with exact zeros left out.
pub(super) fn run(threads: usize) -> Result<()> {
    let path = crate::root().join("crates/sparse-cli/story/prompts.txt");
    let prompts = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = |prompt: &str, sparse: &str| -> Result<Value> {
        let mut command = program("sparse-cli", &["--bin", "sparse"]);
        command.args(["generate", "--greedy", "--json", "--ignore-eos", "--max-tokens", TOKENS]);
        command.args(["--threads", &threads.to_string(), "--sparse", sparse, "--", prompt]);
        Ok(serde_json::from_slice(&output(&mut command)?)?)
    };
    let (mut texts, mut skipped) = (0, 0.0);
    for prompt in prompts.lines() {
        let (dense, exact) = (text(prompt, "none")?, text(prompt, "exact-zero")?);
        if dense["tokens"] != exact["tokens"] {
            bail!("{prompt:?} goes on as {}, but without zeros as {}", dense["text"], exact["text"]);
        }
        texts += 1;
        skipped += exact["skipped"].as_f64().context("no share of skipped neurons")?;
    }
    let skipped = 100.0 * skipped / f64::from(texts.max(1));
    println!(
        "ok   story model: {texts} texts of {TOKENS} tokens, all the same with {skipped:.1} % of the neurons left out"
    );
    Ok(())
}
