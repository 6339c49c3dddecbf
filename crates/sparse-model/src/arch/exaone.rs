//! EXAONE 4.

use super::{Architecture, Keys, attentions, set_window_pattern};
use crate::Error;
use crate::config::{ModelConfig, QkNorm};
use crate::rope::RopePairs;

/// Of four layers of a model with windows, the last sees all tokens.
const PATTERN: usize = 4;

pub(super) const EXAONE4: Architecture =
    Architecture { name: "exaone4", rope: RopePairs::Halves, adapt: exaone4 };

/// What a sublayer adds is normalized, and not what it reads. In a model with windows, layers that see all tokens have no
/// positions.
fn exaone4(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    for layer in &mut config.layers {
        layer.norms_before = false;
        layer.norms_after = true;
    }
    set_window_pattern(keys, config, PATTERN)?;
    let windows = attentions(config).any(|(_, spec)| spec.window.is_some());
    for (_, spec) in attentions(config) {
        spec.qk_norm = QkNorm::Heads;
        // The base and the scaling are those of all layers.
        spec.rope = (spec.window.is_some() || !windows).then_some(0);
    }
    Ok(())
}
