//! Models trained with squared ReLU: Arcee's AFM, Nemotron and Minitron, BitNet b1.58.

use sparse_core::ActivationType;

use super::{Architecture, Keys, attentions};
use crate::Error;
use crate::config::{ModelConfig, NormKind};
use crate::rope::RopePairs;

pub(super) const ARCEE: Architecture =
    Architecture { name: "arcee", rope: RopePairs::Adjacent, adapt: arcee };

pub(super) const NEMOTRON: Architecture =
    Architecture { name: "nemotron", rope: RopePairs::Halves, adapt: nemotron };

pub(super) const BITNET: Architecture =
    Architecture { name: "bitnet", rope: RopePairs::Halves, adapt: bitnet };

/// Llama without gates.
fn arcee(_: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    for layer in &mut config.layers {
        layer.feed_forward.activation = ActivationType::Relu2;
        layer.feed_forward.gated = false;
    }
    Ok(())
}

/// Arcee with layer norms. The weights have the 1 that the model adds to them in the file already.
fn nemotron(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    config.norm = NormKind::Layer;
    arcee(keys, config)
}

/// Llama with norms before both output projections, and gates that are squared ReLUs: as trained and
/// as transformers computes it. llama.cpp computes SiLU.
fn bitnet(_: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    for layer in &mut config.layers {
        layer.feed_forward.activation = ActivationType::Relu2;
        layer.feed_forward.sub_norm = true;
    }
    attentions(config).for_each(|(_, spec)| spec.sub_norm = true);
    Ok(())
}
