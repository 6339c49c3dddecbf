//! Qwen 2, 2.5 and 3, with and without experts.

use super::experts::{self, Rules};
use super::{Architecture, Keys, attentions};
use crate::Error;
use crate::config::{ModelConfig, QkNorm};
use crate::rope::RopePairs;

/// Queries, keys and values have biases, which are read wherever a file has them.
pub(super) const QWEN2: Architecture =
    Architecture { name: "qwen2", rope: RopePairs::Halves, adapt: |_, _| Ok(()) };

pub(super) const QWEN3: Architecture = Architecture { name: "qwen3", rope: RopePairs::Halves, adapt: qwen3 };

pub(super) const QWEN3MOE: Architecture =
    Architecture { name: "qwen3moe", rope: RopePairs::Halves, adapt: qwen3moe };

fn qwen3(_: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    attentions(config).for_each(|(_, spec)| spec.qk_norm = QkNorm::Heads);
    Ok(())
}

fn qwen3moe(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    qwen3(keys, config)?;
    experts::set(keys, config, Rules { normalized: true, ..Rules::SOFTMAX })
}
