//! SmallThinker: ReLU inside experts, which are chosen before attention.

use sparse_core::{ActivationType, Gating};

use super::experts::{self, Rules};
use super::{Architecture, Keys, attentions, window};
use crate::Error;
use crate::config::ModelConfig;
use crate::rope::RopePairs;

/// Of four layers of a model with windows, the first sees all tokens.
const PATTERN: usize = 4;

pub(super) const SMALLTHINKER: Architecture =
    Architecture { name: "smallthinker", rope: RopePairs::Halves, adapt: smallthinker };

/// In a model with windows, layers that see all tokens have no positions.
fn smallthinker(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    config.layers.iter_mut().for_each(|layer| layer.feed_forward.activation = ActivationType::Relu);
    if let Some(window) = window(keys)? {
        for (i, spec) in attentions(config) {
            let all = i % PATTERN == 0;
            (spec.window, spec.rope) = if all { (None, None) } else { (Some(window), Some(0)) };
        }
    }
    // Files of the first converters do not say it.
    let rules = Rules { gating: Gating::Sigmoid, normalized: true, routed_early: true, ..Rules::SOFTMAX };
    experts::set(keys, config, rules)
}
