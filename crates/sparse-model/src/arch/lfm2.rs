//! LFM2, with and without experts: short convolutions, and attention in some layers.

use sparse_core::Gating;

use super::experts::{self, Rules};
use super::{Architecture, Keys, attentions, set_window};
use crate::Error;
use crate::config::{Mixer, ModelConfig, QkNorm};
use crate::rope::RopePairs;

pub(super) const LFM2: Architecture = Architecture { name: "lfm2", rope: RopePairs::Halves, adapt: lfm2 };

pub(super) const LFM2MOE: Architecture =
    Architecture { name: "lfm2moe", rope: RopePairs::Halves, adapt: lfm2moe };

/// Layers without key-value heads are convolutions.
fn lfm2(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    let taps = keys.positive("shortconv.l_cache")?;
    for layer in &mut config.layers {
        if matches!(&layer.mixer, Mixer::Attention(spec) if spec.kv_heads == 0) {
            layer.mixer = Mixer::ShortConv { taps };
        }
    }
    attentions(config).for_each(|(_, spec)| spec.qk_norm = QkNorm::Heads);
    config.output_norm = "token_embd_norm";
    set_window(keys, config)
}

fn lfm2moe(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    lfm2(keys, config)?;
    let rules = Rules { gating: Gating::Sigmoid, normalized: true, selection_bias: true, ..Rules::SOFTMAX };
    experts::set(keys, config, rules)
}
