//! gpt-oss: experts with biases and clamped gates, attention sinks, windows in every other layer.

use sparse_core::Gating;

use super::experts::{self, Rules};
use super::{Architecture, Keys, attentions, set_window_pattern};
use crate::Error;
use crate::activation::FfnActivation;
use crate::config::ModelConfig;
use crate::rope::{RopePairs, RopeScaling};

/// Of two layers, the last sees all tokens.
const PATTERN: usize = 2;

pub(super) const GPT_OSS: Architecture =
    Architecture { name: "gpt-oss", rope: RopePairs::Halves, adapt: gpt_oss };

fn gpt_oss(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    config.ffn_norm = "post_attention_norm";
    // As the model's own code has it. llama.cpp rounds the ends of the ramp.
    if let RopeScaling::Yarn { whole_pairs, .. } = &mut config.ropes[0].scaling {
        *whole_pairs = false;
    }
    let FfnActivation { gate, up } = FfnActivation::SWIGLU_OAI;
    for layer in &mut config.layers {
        (layer.feed_forward.activation, layer.feed_forward.up_activation) = (gate, up);
    }
    attentions(config).for_each(|(_, spec)| spec.sinks = true);
    set_window_pattern(keys, config, PATTERN)?;
    experts::set(keys, config, Rules { gating: Gating::SoftmaxOfChosen, ..Rules::SOFTMAX })
}
