//! Mixtures of experts: what their keys say.

use sparse_core::Gating;

use super::Keys;
use crate::Error;
use crate::config::{ExpertsSpec, ModelConfig};

/// No layer has more experts; a file that states more is damaged.
const MAX_EXPERTS: usize = 4096;

/// How an architecture routes tokens, where the file does not say otherwise.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) gating: Gating,
    pub(super) normalized: bool,
    pub(super) selection_bias: bool,
    pub(super) routed_early: bool,
}

impl Rules {
    /// Weights are a softmax over all experts.
    pub(super) const SOFTMAX: Self =
        Self { gating: Gating::Softmax, normalized: false, selection_bias: false, routed_early: false };
}

/// Makes mixtures of experts of all layers but the leading dense ones.
pub(super) fn set(keys: &Keys<'_>, config: &mut ModelConfig, rules: Rules) -> Result<(), Error> {
    let (count, used) = (keys.positive("expert_count")?, keys.positive("expert_used_count")?);
    if count > MAX_EXPERTS {
        let problem = format!("{count} experts, expected at most {MAX_EXPERTS}");
        return Err(keys.problem("expert_count", problem));
    }
    if used > count {
        let problem = format!("{used} experts for a token, but there are {count}");
        return Err(keys.problem("expert_used_count", problem));
    }
    let neurons = keys.opt_per_layer("expert_feed_forward_length", config.layers.len())?;
    let spec = ExpertsSpec {
        count,
        used,
        shared_neurons: keys.opt_usize("expert_shared_feed_forward_length")?.unwrap_or(0),
        gating: gating(keys)?.unwrap_or(rules.gating),
        normalized: keys.bool_or("expert_weights_norm", rules.normalized)?,
        scale: keys.nonzero("expert_weights_scale", 1.0)?,
        selection_bias: rules.selection_bias,
        routed_early: rules.routed_early,
    };
    let dense = keys.opt_usize("leading_dense_block_count")?.unwrap_or(0);
    for (i, layer) in config.layers.iter_mut().enumerate().skip(dense) {
        layer.feed_forward.experts = Some(spec.clone());
        // Without the key, the other length is that of an expert.
        if let Some(neurons) = neurons.as_ref().map(|n| n[i]).filter(|n| *n > 0) {
            layer.feed_forward.neurons = neurons;
        }
    }
    Ok(())
}

/// The file's gating function, if it states one; the numbers are llama.cpp's.
fn gating(keys: &Keys<'_>) -> Result<Option<Gating>, Error> {
    const KEY: &str = "expert_gating_func";
    match keys.opt_usize(KEY)? {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Gating::Softmax)),
        Some(2) => Ok(Some(Gating::Sigmoid)),
        Some(3) => Ok(Some(Gating::SoftmaxOfChosen)),
        Some(other) => Err(keys.problem(KEY, format!("{other} is not supported, expected 1 to 3"))),
    }
}
