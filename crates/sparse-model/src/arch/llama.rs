//! Llama and its many relatives: TinyLlama, SmolLM2, Mistral.

use super::{Architecture, Keys};
use crate::Error;
use crate::config::{Mixer, ModelConfig};
use crate::rope::RopePairs;

pub(super) const LLAMA: Architecture =
    Architecture { name: "llama", rope: RopePairs::Adjacent, adapt: window };

/// Mistral's first version has a sliding window in all layers.
fn window(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    let window = keys.opt_usize("attention.sliding_window")?.filter(|w| *w > 0);
    for layer in &mut config.layers {
        if let Mixer::Attention(spec) = &mut layer.mixer {
            spec.window = window;
        }
    }
    Ok(())
}
