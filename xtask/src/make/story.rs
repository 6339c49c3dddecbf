//! The story model, eight times as wide.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Family, Idle, LLAMA, Shape};

/// Times that each layer of the story model comes.
const REPEATS: usize = 4;
/// Rank of the gates: enough of it that each input finds about as many neurons active as the next.
const RANK: usize = 64;

/// Shares of the neurons that are active in the story model's layers, on held-out stories.
pub(super) fn densities() -> Result<Vec<f64>> {
    let path = crate::root().join("crates/sparse-cli/story/figures.json");
    let figures = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let figures: Value = serde_json::from_str(&figures)?;
    let zeros = figures["heldout"]["sparsity_per_layer"].as_array();
    let density = |zeros: &Value| zeros.as_f64().map(|zeros| 1.0 - zeros);
    zeros
        .and_then(|zeros| zeros.iter().map(density).collect())
        .with_context(|| format!("no sparsity in {}", path.display()))
}

/// The shape whose layers have the story model's `densities`, in order.
///
/// Its head is not tied, because with random weights a tied one repeats the last token; and its embedding is as large as what
/// layers add to it, so that tokens differ and with them the active sets.
pub(super) fn shape(densities: &[f64]) -> Shape {
    let densities: Vec<f64> = densities.iter().flat_map(|d| [*d; REPEATS]).collect();
    Shape {
        layers: densities.len(),
        width: 2048,
        feed_forward: 16384,
        heads: 32,
        kv_heads: 32,
        vocabulary: 4096,
        context: 512,
        embedding: 1.0,
        neuron_major: true,
        idle: Some(Idle { rank: RANK, densities, spread: 0.0 }),
        family: Family { activation: Some("relu"), ..LLAMA },
    }
}
