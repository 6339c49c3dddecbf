//! How the neurons of a token are chosen, wherever their weights are.

use super::activation::multiply;
use super::hidden_norm::HiddenNorm;
use super::scratch::Chosen;
use super::{ActivationType, FfnCounts, FfnScratch, PredictorInput, Selector};
use crate::{Activations, Compute};

/// What a layer does with its weights.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) gated: bool,
    pub(super) neurons: usize,
    pub(super) activation: ActivationType,
    pub(super) up_activation: ActivationType,
    pub(super) selector: &'a Selector,
    pub(super) means: Option<&'a [f32]>,
    pub(super) hidden_norm: Option<&'a HiddenNorm>,
}

impl Rules<'_> {
    /// The scores of all tokens' neurons, if the selector has any: the predictor's, or what a copy makes of `h` less its mean.
    pub(super) fn predict(self, compute: &Compute, x: &Activations, s: &mut FfnScratch) {
        if self.selector.has_scores() {
            s.scores.resize(x.tokens() * self.neurons, 0.0);
        }
        match self.selector {
            Selector::LowRank { predictor, .. } => {
                s.projected.reshape(x.tokens(), predictor.rank());
                let x = match predictor.input() {
                    PredictorInput::Layer => x,
                    PredictorInput::Own => &s.predictor_input,
                };
                predictor.scores(compute, x, &mut s.projected, &mut s.scores);
            }
            Selector::Copy { copy, .. } => {
                copy.forward(compute, x, &mut s.scores);
                for scores in s.scores.chunks_mut(self.neurons) {
                    self.activation.apply(compute.kernels, scores);
                    if let Some(means) = self.means {
                        subtract(scores, means.iter().copied());
                    }
                }
            }
            _ => {}
        }
    }

    /// Chooses the active set of one token and computes its neurons.
    ///
    /// `first(active, out)` puts the outputs `active` of the projection that is computed first (the gate, or `up` where there
    /// is none) at the beginning of `out`, which has room for all, and says how many bytes single tokens read for that;
    /// `second` does so for `up`.
    ///
    /// # Errors
    /// As the two.
    pub(super) fn choose<E>(
        self,
        compute: &Compute,
        scores: &[f32],
        chosen: Chosen<'_>,
        first: impl FnOnce(&[u32], &mut [f32]) -> Result<usize, E>,
        second: impl FnOnce(&[u32], &mut [f32]) -> Result<usize, E>,
    ) -> Result<FfnCounts, E> {
        let k = compute.kernels;
        let Chosen { active, values, up } = chosen;
        // With a nonzero mean, a skipped zero is not free.
        let zeros = self.activation.has_zeros() && self.means.is_none();
        let mut counts = FfnCounts { tokens: 1, ..FfnCounts::default() };
        counts.bytes += self.selector.bytes() as u64;
        self.selector.candidates(self.neurons, scores, active);
        counts.up = active.len() as u64;
        counts.bytes += first(active, values)? as u64;
        self.activation.apply(k, &mut values[..active.len()]);
        if self.gated {
            counts.gate = counts.up;
            self.selector.keep_gates(active, values, zeros);
            let some = active.len();
            counts.up = some as u64;
            counts.bytes += second(active, up)? as u64;
            self.up_activation.apply(k, &mut up[..some]);
            multiply(&mut values[..some], &up[..some]);
        }
        if let Some(means) = self.means {
            subtract(values, active.iter().map(|j| means[*j as usize]));
        }
        self.selector.keep_hidden(active, values, zeros);
        if let Some(norm) = self.hidden_norm {
            norm.apply_active(k, active, &mut values[..active.len()]);
        }
        counts.down = active.len() as u64;
        Ok(counts)
    }
}

/// `y -= x`, as far as `x` goes.
fn subtract(y: &mut [f32], x: impl Iterator<Item = f32>) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y -= x);
}
