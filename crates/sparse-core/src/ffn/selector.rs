//! Which neurons are computed.

use alloc::vec::Vec;
use core::slice;

use crate::error::same_len;
use crate::{Error, Linear, LowRankPredictor};

/// What decides the active set of a token.
///
/// Whatever the selector, neurons whose activation is exactly zero are left out from where that is known: they
/// contribute nothing.
#[allow(clippy::large_enum_variant, reason = "there is one per layer")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Selector {
    /// Nothing: all neurons are computed.
    Dense,
    /// All gates are computed, and `up` and `down` for the neurons whose gate is not zero. Lossless; for activations
    /// that [give zeros](crate::ActivationType::has_zeros).
    ExactZero,
    /// A predictor's scores choose the neurons; of the others not even the gate is read. The specification's P·Q, as in
    /// PowerInfer (Song et al. 2023, arXiv 2312.12456).
    LowRank {
        /// Gives the scores.
        predictor: LowRankPredictor,
        /// Which scores are high enough.
        rule: Rule,
    },
    /// A copy of `up` in few bits says about what `h` is; the neurons are computed of which that is above their threshold.
    /// For layers without a gate.
    Copy {
        /// `up` in few bits, `[neurons x inputs]`.
        copy: Linear,
        /// A threshold per neuron on `|h|` as the copy has it (less the neuron's [mean](crate::SparseFfn::set_means)).
        hidden: Vec<f32>,
    },
    /// All gates are computed, and `up` for the neurons whose `|act(gate)|` is above their threshold (CATS: Lee et al.
    /// 2024, arXiv 2404.08763); then `down` for those whose `|h|` is above a second one.
    Gate {
        /// A threshold per neuron on `|act(gate)|`.
        gate: Vec<f32>,
        /// A threshold per neuron on `|h|`, `h` being what `down` multiplies.
        hidden: Option<Vec<f32>>,
    },
    /// Everything but `down` is computed for all neurons, and `down` for those whose `|h|` is above their threshold.
    Intermediate {
        /// A threshold per neuron on `|h|`.
        hidden: Vec<f32>,
    },
    /// Always the same neurons: a hot set, or a set to measure with.
    Fixed {
        /// Whether a neuron is in the set.
        active: Vec<bool>,
        /// Whether the gates of the others are left out, too.
        skip_gate: bool,
    },
    /// The neurons with the largest share in the output, `|h|` times their weight. It has to compute all of them to know:
    /// for measurement only, the ceiling of every other selector.
    Oracle {
        /// Which shares are large enough.
        rule: Rule,
        /// A weight per neuron: the norm of its column of `down`.
        norms: Vec<f32>,
    },
}

impl Selector {
    /// Its name in tables and files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::ExactZero => "exact-zero",
            Self::LowRank { .. } => "low-rank",
            Self::Copy { .. } => "copy",
            Self::Gate { .. } => "gate",
            Self::Intermediate { .. } => "intermediate",
            Self::Fixed { .. } => "fixed",
            Self::Oracle { .. } => "oracle",
        }
    }

    /// The same for neurons in another order: neuron i is the one that was `order[i]`.
    ///
    /// # Errors
    /// If a predictor is too large to address, or the selector has a copy of the weights.
    pub(super) fn reordered(&self, order: &[u32]) -> Result<Self, Error> {
        Ok(match self {
            Self::Dense => Self::Dense,
            Self::ExactZero => Self::ExactZero,
            Self::LowRank { predictor, rule } => {
                Self::LowRank { predictor: predictor.reordered(order)?, rule: *rule }
            }
            Self::Gate { gate, hidden } => Self::Gate {
                gate: reordered(order, gate),
                hidden: hidden.as_ref().map(|hidden| reordered(order, hidden)),
            },
            Self::Intermediate { hidden } => Self::Intermediate { hidden: reordered(order, hidden) },
            Self::Fixed { active, skip_gate } => {
                Self::Fixed { active: reordered(order, active), skip_gate: *skip_gate }
            }
            Self::Copy { .. } => {
                return Err(Error::Selector { selector: self.name(), needs: "neurons in their own order" });
            }
            Self::Oracle { rule, norms } => Self::Oracle { rule: *rule, norms: reordered(order, norms) },
        })
    }

    /// Fails unless it fits an FFN of this shape, and its thresholds are numbers: nothing is above NaN.
    pub(super) fn check(&self, inputs: usize, neurons: usize, gated: bool, zeros: bool) -> Result<(), Error> {
        let needs = |needs| Err(Error::Selector { selector: self.name(), needs });
        if self.thresholds().iter().copied().flatten().any(|t| t.is_nan()) {
            return needs("thresholds that are numbers, found NaN");
        }
        match self {
            Self::Dense => Ok(()),
            Self::ExactZero if !zeros => needs("an activation that gives zeros, such as relu"),
            Self::ExactZero => Ok(()),
            Self::LowRank { predictor, .. } => {
                same_len("inputs of the predictor", inputs, predictor.inputs())?;
                same_len("neurons of the predictor", neurons, predictor.neurons())
            }
            Self::Copy { .. } if gated => needs("an FFN without a gate"),
            Self::Copy { copy, hidden } => {
                same_len("inputs of the copy", inputs, copy.weight().cols())?;
                same_len("neurons of the copy", neurons, copy.weight().rows())?;
                same_len("thresholds of h", neurons, hidden.len())
            }
            Self::Gate { .. } if !gated => needs("a gated FFN"),
            Self::Gate { gate, hidden } => {
                same_len("thresholds of the gate", neurons, gate.len())?;
                hidden.as_ref().map_or(Ok(()), |h| same_len("thresholds of h", neurons, h.len()))
            }
            Self::Intermediate { hidden } => same_len("thresholds of h", neurons, hidden.len()),
            Self::Fixed { active, .. } => same_len("fixed active set", neurons, active.len()),
            Self::Oracle { norms, .. } => same_len("norms of the oracle", neurons, norms.len()),
        }
    }

    fn thresholds(&self) -> [&[f32]; 2] {
        match self {
            Self::LowRank { rule: Rule::Threshold(t), .. }
            | Self::Oracle { rule: Rule::Threshold(t), .. } => [slice::from_ref(t), &[]],
            Self::Copy { hidden, .. } | Self::Intermediate { hidden } => [hidden, &[]],
            Self::Gate { gate, hidden } => [gate, hidden.as_deref().unwrap_or_default()],
            _ => [&[], &[]],
        }
    }

    /// Whether it has scores of the neurons before they are computed.
    pub(super) fn has_scores(&self) -> bool {
        matches!(self, Self::LowRank { .. } | Self::Copy { .. })
    }

    /// Whether not even the gates (or `up`, where there is no gate) of all neurons are computed.
    pub fn skips_first(&self) -> bool {
        self.has_scores() || matches!(self, Self::Fixed { skip_gate: true, .. })
    }

    /// Bytes that choosing reads per token.
    pub fn bytes(&self) -> usize {
        match self {
            Self::LowRank { predictor, .. } => predictor.bytes(),
            Self::Copy { copy, .. } => copy.weight().bytes() + copy.bias().map_or(0, size_of_val),
            _ => 0,
        }
    }

    /// Which of all neurons are looked at in the first place; `scores` are the predictor's or the copy's, of all neurons.
    pub(super) fn candidates(&self, neurons: usize, scores: &[f32], active: &mut Vec<u32>) {
        active.clear();
        active.extend(0..neurons as u32);
        match self {
            Self::LowRank { rule, .. } => rule.keep(active, |j| scores[j as usize]),
            Self::Copy { hidden, .. } => {
                retain(active, |j| above(scores[j as usize].abs(), hidden[j as usize]));
            }
            Self::Fixed { active: set, skip_gate: true } => retain(active, |j| set[j as usize]),
            _ => {}
        }
    }

    /// Leaves those neurons in `active` that are worth computing, given their `act(gate)` in `values`.
    pub(super) fn keep_gates(&self, active: &mut Vec<u32>, values: &mut [f32], zeros: bool) {
        match self {
            Self::Gate { gate, .. } => keep(active, values, |j, a| above(a.abs(), gate[j])),
            Self::Fixed { active: set, skip_gate: false } => keep(active, values, |j, _| set[j]),
            // Looks at all neurons.
            Self::Oracle { .. } => {}
            _ if zeros => keep(active, values, |_, a| a != 0.0),
            _ => {}
        }
    }

    /// Leaves those neurons in `active` that `down` is worth reading for, given their `h` in `values`.
    pub(super) fn keep_hidden(&self, active: &mut Vec<u32>, values: &mut [f32], zeros: bool) {
        match self {
            Self::Gate { hidden: Some(hidden), .. } | Self::Intermediate { hidden } => {
                keep(active, values, |j, h| above(h.abs(), hidden[j]));
            }
            Self::Fixed { active: set, .. } => keep(active, values, |j, _| set[j]),
            Self::Oracle { rule, norms } => {
                // All neurons are here: neuron j has value j.
                let all = active.len();
                rule.keep(active, |j| values[j as usize].abs() * norms[j as usize]);
                gather(active, &mut values[..all]);
            }
            _ if zeros => keep(active, values, |_, h| h != 0.0),
            _ => {}
        }
    }
}

/// A value per neuron, for neurons in another order.
pub(super) fn reordered<T: Copy>(order: &[u32], values: &[T]) -> Vec<T> {
    order.iter().map(|j| values[*j as usize]).collect()
}

/// Whether `value` is above a threshold. NaN is above everything, so that it shows.
fn above(value: f32, threshold: f32) -> bool {
    value > threshold || value.is_nan()
}

/// Leaves the pairs of `active[i]` and `values[i]` that pass the test. Without a branch: sets are unpredictable.
fn keep(active: &mut Vec<u32>, values: &mut [f32], test: impl Fn(usize, f32) -> bool) {
    let mut kept = 0;
    for i in 0..active.len() {
        let (j, value) = (active[i], values[i]);
        (active[kept], values[kept]) = (j, value);
        kept += usize::from(test(j as usize, value));
    }
    active.truncate(kept);
}

/// Leaves those in `active` that pass the test, without a branch.
fn retain(active: &mut Vec<u32>, test: impl Fn(u32) -> bool) {
    let mut kept = 0;
    for i in 0..active.len() {
        let j = active[i];
        active[kept] = j;
        kept += usize::from(test(j));
    }
    active.truncate(kept);
}

/// `values[i] = values[active[i]]`; `active` ascends, so nothing is overwritten before it is read.
pub(super) fn gather(active: &[u32], values: &mut [f32]) {
    for (i, &j) in active.iter().enumerate() {
        values[i] = values[j as usize];
    }
}

/// Which scores are high enough.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// Those above this.
    Threshold(f32),
    /// So many, the highest; of equal ones those of lower neurons. Slower than a threshold, and fixed whatever the token.
    TopK(usize),
}

impl Rule {
    /// Leaves those in `active` (ascending) whose score is high enough, still ascending. NaN scores are the highest.
    pub(crate) fn keep(self, active: &mut Vec<u32>, score: impl Fn(u32) -> f32) {
        match self {
            Self::Threshold(threshold) => retain(active, |j| above(score(j), threshold)),
            Self::TopK(k) if k >= active.len() => {}
            Self::TopK(0) => active.clear(),
            Self::TopK(k) => {
                let key = |j: u32| if score(j).is_nan() { f32::INFINITY } else { score(j) };
                active.select_nth_unstable_by(k - 1, |&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
                active.truncate(k);
                active.sort_unstable();
            }
        }
    }
}

/// How sparse an FFN shall be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparsityConfig(Amount);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Rule(Rule),
    Sparsity(f32),
}

impl SparsityConfig {
    /// The `k` neurons with the highest scores.
    pub fn with_top_k(k: usize) -> Self {
        Self(Amount::Rule(Rule::TopK(k)))
    }

    /// The neurons whose score is above `threshold`.
    pub fn with_threshold(threshold: f32) -> Self {
        Self(Amount::Rule(Rule::Threshold(threshold)))
    }

    /// All but this share of the neurons: 0.95 computes 5 % of them, those with the highest scores.
    pub fn with_target_sparsity(sparsity: f32) -> Self {
        Self(Amount::Sparsity(sparsity))
    }

    /// The rule for an FFN of `neurons`.
    ///
    /// # Errors
    /// If the sparsity is not in 0..=1.
    pub fn rule(self, neurons: usize) -> Result<Rule, Error> {
        match self.0 {
            Amount::Rule(rule) => Ok(rule),
            Amount::Sparsity(s) if (0.0..=1.0).contains(&s) => {
                // Half up, without std's round.
                Ok(Rule::TopK(((1.0 - s) * neurons as f32 + 0.5) as usize))
            }
            Amount::Sparsity(s) => {
                Err(Error::Value { what: "target sparsity", value: s, expected: "a share from 0 to 1" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn rules_keep_the_highest_in_order() {
        let scores = [0.5, f32::NAN, -1.0, 2.0, 0.5, f32::INFINITY];
        let kept = |rule: Rule| {
            let mut active: Vec<u32> = (0..6).collect();
            rule.keep(&mut active, |j| scores[j as usize]);
            active
        };
        assert_eq!(kept(Rule::Threshold(0.5)), [1, 3, 5]);
        assert_eq!(kept(Rule::TopK(0)), []);
        assert_eq!(kept(Rule::TopK(3)), [1, 3, 5]);
        assert_eq!(kept(Rule::TopK(4)), [0, 1, 3, 5]);
        assert_eq!(kept(Rule::TopK(7)), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn thresholds_keep_nan_and_what_is_above() {
        let mut active = vec![1, 4, 7, 9];
        let mut values = vec![0.5, -2.0, f32::NAN, 1.0];
        keep(&mut active, &mut values, |_, v| above(v.abs(), 1.0));
        assert_eq!(active, [4, 7]);
        assert_eq!(values[0], -2.0);
        assert!(values[1].is_nan());
    }

    #[test]
    fn sparsity_is_a_share() {
        let rule = |s| SparsityConfig::with_target_sparsity(s).rule(2048);
        assert_eq!(rule(0.95), Ok(Rule::TopK(102)));
        assert_eq!(rule(0.0), Ok(Rule::TopK(2048)));
        assert_eq!(SparsityConfig::with_top_k(100).rule(64), Ok(Rule::TopK(100)));
        assert_eq!(SparsityConfig::with_threshold(0.01).rule(64), Ok(Rule::Threshold(0.01)));
        let wrong = rule(1.5).unwrap_err().to_string();
        assert_eq!(wrong, "target sparsity is 1.5, expected a share from 0 to 1");
        assert!(rule(f32::NAN).is_err());
    }
}
