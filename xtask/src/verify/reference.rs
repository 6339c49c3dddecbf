//! The reference file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What `tools/reference/make_reference.py` wrote.
#[derive(Deserialize)]
pub(super) struct Reference {
    /// File name of the model.
    pub(super) model: String,
    /// Every how many positions log-probabilities are kept.
    pub(super) stride: usize,
    /// How far llama.cpp's quantized run is from its exact one.
    pub(super) llama_cpp_quantized_against_exact: Noise,
    /// All tokens of the prose.
    pub(super) prose_ids: Vec<u32>,
    /// How many of them were run.
    pub(super) tokens: usize,
    /// Texts and ids.
    pub(super) tokenize: Vec<Case>,
    /// The same with control tokens recognized.
    pub(super) tokenize_special: Vec<Case>,
    /// The file as it is.
    pub(super) quantized: Run,
    /// The same weights in F32.
    pub(super) exact: Run,
}

#[derive(Deserialize)]
pub(super) struct Noise {
    pub(super) kl_mean: f64,
    pub(super) top1: f64,
}

#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
}

/// Results of llama.cpp on one file.
#[derive(Deserialize)]
pub(super) struct Run {
    /// The best ids of each position kept, best first.
    pub(super) top_ids: Vec<Vec<usize>>,
    /// Their log-probabilities.
    pub(super) top_logprobs: Vec<Vec<f64>>,
    pub(super) greedy: Vec<Greedy>,
}

/// A greedy continuation.
#[derive(Deserialize)]
pub(super) struct Greedy {
    pub(super) prompt: String,
    pub(super) ids: Vec<u32>,
    /// Distance of the two best logits at each step.
    pub(super) gaps: Vec<f64>,
}

/// The part of `sparse generate --json` that is compared.
#[derive(Deserialize)]
pub(super) struct Generated {
    pub(super) tokens: Vec<u32>,
}

impl Reference {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let reference: Self = serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("{} is no reference file", path.display()))?;
        ensure!(reference.stride > 0, "{} has a stride of 0", path.display());
        Ok(reference)
    }
}
