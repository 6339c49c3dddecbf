//! Gemma 3, text only.
//!
//! The norms' weights have the 1 that the model adds to them in the file already.

use sparse_core::ActivationType;

use super::{Architecture, Keys, attentions, set_local_rope, set_window_pattern};
use crate::Error;
use crate::config::{ModelConfig, QkNorm};
use crate::rope::RopePairs;

/// Of six layers, the last sees all tokens.
const PATTERN: usize = 6;
/// Base of the layers with a window.
const LOCAL_BASE: f32 = 10_000.0;
/// The 27B model, the only one whose scores are divided by another width than its heads'.
const LAYERS_27B: usize = 62;

pub(super) const GEMMA3: Architecture =
    Architecture { name: "gemma3", rope: RopePairs::Halves, adapt: gemma3 };

fn gemma3(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    config.embedding_scale = (config.embedding as f32).sqrt();
    config.logit_softcap = keys.opt_f32("final_logit_softcapping")?.filter(|cap| *cap != 0.0);
    if config.layers.len() == LAYERS_27B && keys.opt_f32("attention.scale")?.is_none() {
        let width = config.embedding as f32;
        attentions(config).for_each(|(_, spec)| spec.scale = (spec.heads as f32 / width).sqrt());
    }
    for layer in &mut config.layers {
        layer.norms_after = true;
        layer.feed_forward.activation = ActivationType::GeluTanh;
    }
    attentions(config).for_each(|(_, spec)| spec.qk_norm = QkNorm::Heads);
    set_window_pattern(keys, config, PATTERN)?;
    set_local_rope(keys, config, LOCAL_BASE)
}
