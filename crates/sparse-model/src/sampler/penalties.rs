//! What biases and the tokens before do to logits.

use hashbrown::HashMap;

use super::SamplerConfig;

/// Biases by token, those of the same token added.
#[derive(Debug)]
pub(super) struct Biases(HashMap<u32, f32>);

impl Biases {
    pub(super) fn new(biases: &[(u32, f32)]) -> Self {
        let mut sums = HashMap::new();
        biases.iter().for_each(|(id, bias)| *sums.entry(*id).or_insert(0.0) += bias);
        Self(sums)
    }

    /// What becomes of a token's logit after `history`. Allocates only if there is a penalty.
    pub(super) fn penalties<'a>(
        &'a self,
        config: &SamplerConfig,
        history: &[u32],
    ) -> impl Fn(u32, f32) -> f32 + use<'a> {
        let SamplerConfig { repetition_penalty, frequency_penalty, presence_penalty, .. } = *config;
        let mut counts = HashMap::<u32, u32>::new();
        if (repetition_penalty, frequency_penalty, presence_penalty) != (1.0, 0.0, 0.0) {
            let recent = &history[history.len().saturating_sub(config.penalty_window)..];
            recent.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
        }
        move |id, logit| {
            let logit = if self.0.is_empty() { logit } else { logit + self.0.get(&id).unwrap_or(&0.0) };
            // Nearly all tokens are not among the recent ones.
            let count = if counts.is_empty() { None } else { counts.get(&id) };
            match count {
                None => logit,
                Some(count) => {
                    let repeated =
                        if logit > 0.0 { logit / repetition_penalty } else { logit * repetition_penalty };
                    repeated - *count as f32 * frequency_penalty - presence_penalty
                }
            }
        }
    }
}
