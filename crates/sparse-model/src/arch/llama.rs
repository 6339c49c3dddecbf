//! Llama and its many relatives: TinyLlama, SmolLM2, Mistral, Mixtral.

use super::experts::{self, Rules};
use super::{Architecture, Keys, set_window};
use crate::Error;
use crate::config::ModelConfig;
use crate::rope::RopePairs;

pub(super) const LLAMA: Architecture =
    Architecture { name: "llama", rope: RopePairs::Adjacent, adapt: llama };

/// Mistral's first version has a sliding window in all layers, and Mixtral has experts.
fn llama(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    set_window(keys, config)?;
    match keys.opt_usize("expert_count")? {
        None | Some(0) => Ok(()),
        Some(_) => experts::set(keys, config, Rules { normalized: true, ..Rules::SOFTMAX }),
    }
}
