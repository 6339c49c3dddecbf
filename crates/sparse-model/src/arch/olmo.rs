//! OLMo 2 and 3, and OLMoE.

use super::experts::{self, Rules};
use super::{Architecture, Keys, attentions, set_local_rope, set_window_pattern};
use crate::Error;
use crate::config::{ModelConfig, QkNorm};
use crate::rope::RopePairs;

/// Of four layers of OLMo 3, the last sees all tokens.
const PATTERN: usize = 4;

pub(super) const OLMO2: Architecture = Architecture { name: "olmo2", rope: RopePairs::Halves, adapt: olmo2 };

pub(super) const OLMOE: Architecture = Architecture { name: "olmoe", rope: RopePairs::Halves, adapt: olmoe };

/// What a sublayer adds is normalized, and not what it reads.
fn olmo2(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    for layer in &mut config.layers {
        layer.norms_before = false;
        layer.norms_after = true;
    }
    attentions(config).for_each(|(_, spec)| spec.qk_norm = QkNorm::Width);
    set_window_pattern(keys, config, PATTERN)?;
    let base = config.ropes[0].base;
    set_local_rope(keys, config, base)
}

/// Llama with experts, and a norm of all queries and of all keys.
fn olmoe(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    attentions(config).for_each(|(_, spec)| spec.qk_norm = QkNorm::Width);
    experts::set(keys, config, Rules::SOFTMAX)
}
