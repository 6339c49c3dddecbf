//! Granite 3 and 4, with and without experts, and MiniCPM: llama with factors.

use super::experts::{self, Rules};
use super::{Architecture, Keys, attentions};
use crate::Error;
use crate::config::ModelConfig;
use crate::rope::RopePairs;

pub(super) const GRANITE: Architecture =
    Architecture { name: "granite", rope: RopePairs::Adjacent, adapt: granite };

pub(super) const GRANITEMOE: Architecture =
    Architecture { name: "granitemoe", rope: RopePairs::Adjacent, adapt: granitemoe };

pub(super) const MINICPM: Architecture =
    Architecture { name: "minicpm", rope: RopePairs::Adjacent, adapt: minicpm };

/// Granite 4 has models without positions. Their files say so with a key of another meaning.
fn granite(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    if !keys.bool_or("rope.scaling.finetuned", true)? {
        attentions(config).for_each(|(_, spec)| spec.rope = None);
    }
    factors(keys, config, [1.0; 3])
}

fn granitemoe(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    granite(keys, config)?;
    experts::set(keys, config, Rules { normalized: true, ..Rules::SOFTMAX })
}

/// Files of the first models have no factors; these are MiniCPM-1B's and 2B's.
fn minicpm(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    let (layers, width) = (config.layers.len() as f32, config.embedding as f32);
    factors(keys, config, [12.0, 1.4 / layers.sqrt(), width / 256.0])
}

/// Factors of embeddings and residuals, and the divisor of the logits.
fn factors(keys: &Keys<'_>, config: &mut ModelConfig, default: [f32; 3]) -> Result<(), Error> {
    let [embedding, residual, logits] = default;
    config.embedding_scale = keys.nonzero("embedding_scale", embedding)?;
    config.residual_scale = keys.nonzero("residual_scale", residual)?;
    config.logit_scale = 1.0 / keys.nonzero("logit_scale", logits)?;
    Ok(())
}
