//! Phi-3, Phi-3.5 and Phi-4-mini.
//!
//! Queries, keys and values are one tensor, gate and up another; the loader takes both apart.

use super::{Architecture, Keys, set_window};
use crate::Error;
use crate::config::ModelConfig;
use crate::rope::RopePairs;

pub(super) const PHI3: Architecture = Architecture { name: "phi3", rope: RopePairs::Halves, adapt: phi3 };

/// The window is applied as the model's own code does; llama.cpp ignores it.
fn phi3(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    set_window(keys, config)
}
