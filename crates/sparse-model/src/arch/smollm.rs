//! SmolLM3.

use super::{Architecture, Keys, attentions};
use crate::Error;
use crate::config::ModelConfig;
use crate::rope::RopePairs;

/// One layer of so many has no positions; files do not say which.
const NO_ROPE_EVERY: usize = 4;

pub(super) const SMOLLM3: Architecture =
    Architecture { name: "smollm3", rope: RopePairs::Adjacent, adapt: smollm3 };

fn smollm3(_: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    for (i, spec) in attentions(config) {
        if (i + 1) % NO_ROPE_EVERY == 0 {
            spec.rope = None;
        }
    }
    Ok(())
}
