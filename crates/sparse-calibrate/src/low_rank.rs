//! Predictors of a rank, with a threshold on their logits.

use std::sync::Arc;
use std::time::Instant;

use sparse_core::{
    Activations, LowRankPredictor, Matrix, PredictorFactors, PredictorFit, Rule, Selector, SparseFfn, Storage,
};
use sparse_gguf::{BlockFormat, quantize};
use sparse_model::Model;

use crate::Error;
use crate::family::Family;
use crate::progress::{Progress, step};
use crate::samples::Samples;

/// Gradient steps on the logistic loss.
pub(crate) const STEPS: usize = 200;
/// Logits that the knob goes from and to.
pub(crate) const LOGITS: (f32, f32) = (-7.0, 2.0);
/// Where activations are never zero, the neurons with this share of the largest values count as
/// active.
const ACTIVE: f32 = 0.5;
/// Tokens fitted to, at most.
pub(crate) const TOKENS: usize = 8192;

/// Predictors of one rank for every layer.
pub(crate) struct LowRankFamily {
    rank: usize,
    predictors: Vec<LowRankPredictor>,
}

/// For tables.
pub(crate) fn name(rank: usize) -> String {
    format!("low-rank {rank}")
}

/// Fits predictors of this rank to every layer; or tells how many seconds that would take, if it is
/// more than `most`.
pub(crate) fn fit(
    dense: &Arc<Model>,
    samples: &[Samples],
    rank: usize,
    most: f64,
    progress: &mut dyn Progress,
) -> Result<Result<LowRankFamily, f64>, Error> {
    let mut family = LowRankFamily { rank, predictors: Vec::new() };
    progress.begin(&format!("fitting predictors of rank {rank}"), samples.len());
    let start = Instant::now();
    for (ffn, samples) in dense.ffns().zip(samples) {
        let tokens = samples.fitted().len().min(TOKENS);
        let hidden = samples.neurons(dense.compute(), ffn, 0..tokens).hidden;
        let x = &samples.x[..tokens * samples.inputs];
        let active = active(ffn, &hidden);
        let fit = match ffn.deciding() {
            Some(first) => PredictorFit::above_zero(x, samples.inputs, &active, first)?,
            None => PredictorFit::new(x, samples.inputs, &active, ffn.neurons())?,
        };
        family.predictors.push(int8(&fit.factors(rank, STEPS))?);
        step(progress)?;
        // One layer takes about as long as the next.
        let (done, layers) = (family.predictors.len(), dense.ffns().count());
        let all = start.elapsed().as_secs_f64() / done as f64 * layers as f64;
        if done < layers && all > most {
            return Ok(Err(all));
        }
    }
    Ok(Ok(family))
}

/// Which neurons of each token are to be found: those that are not zero, or the largest.
fn active(ffn: &SparseFfn, hidden: &[f32]) -> Vec<bool> {
    match ffn.activation().has_zeros() {
        true => hidden.iter().map(|h| *h != 0.0).collect(),
        false => largest(hidden, ffn.neurons(), &ffn.down().norms()),
    }
}

/// Which neurons of each token are among the [`ACTIVE`] share with the largest shares in the
/// output.
fn largest(hidden: &[f32], neurons: usize, norms: &[f32]) -> Vec<bool> {
    let mut active = Vec::with_capacity(hidden.len());
    for token in hidden.chunks(neurons) {
        let shares: Vec<f32> = token.iter().zip(norms).map(|(h, n)| h.abs() * n).collect();
        let mut sorted = shares.clone();
        let at = ((1.0 - ACTIVE) * neurons as f32) as usize;
        let (_, bound, _) = sorted.select_nth_unstable_by(at.min(neurons - 1), f32::total_cmp);
        active.extend(shares.iter().map(|s| *s >= *bound));
    }
    active
}

/// The predictor in int8 where inputs come in whole blocks: a quarter of the bytes, and the errors
/// are far below those of the rank. A rank that is no whole number of blocks is filled up with
/// zeros.
pub(crate) fn int8(factors: &PredictorFactors) -> Result<LowRankPredictor, Error> {
    let block = BlockFormat::Q8_0.block_len();
    if !factors.inputs.is_multiple_of(block) {
        return Ok(factors.predictor()?);
    }
    let rank = factors.rank.next_multiple_of(block);
    let mut p = factors.p.clone();
    p.resize(rank * factors.inputs, 0.0);
    let mut q = Vec::with_capacity(rank * factors.bias.len());
    for row in factors.q.chunks(factors.rank) {
        q.extend_from_slice(row);
        q.resize(q.len() + rank - factors.rank, 0.0);
    }
    let matrix = |values: &[f32], cols| -> Result<Matrix, Error> {
        let bytes = quantize(BlockFormat::Q8_0, values)?;
        Ok(Matrix::new(BlockFormat::Q8_0, cols, Storage::Owned(bytes)).map_err(sparse_core::Error::from)?)
    };
    let (p, q) = (matrix(&p, factors.inputs)?, matrix(&q, rank)?);
    Ok(LowRankPredictor::new(p, q, factors.bias.clone())?)
}

/// A predictor of this rank that was fitted to nothing: to be timed.
pub(crate) fn unfitted(inputs: usize, neurons: usize, rank: usize) -> Result<Selector, Error> {
    let (p, q) = (vec![0.0; rank * inputs], vec![0.0; neurons * rank]);
    let factors = PredictorFactors { inputs, rank, p, q, bias: vec![0.0; neurons] };
    Ok(Selector::LowRank { predictor: int8(&factors)?, rule: Rule::Threshold(0.0) })
}

impl Family for LowRankFamily {
    fn name(&self) -> String {
        name(self.rank)
    }

    fn selectors(&self, knob: f32) -> Vec<Selector> {
        let (from, to) = LOGITS;
        let rule = Rule::Threshold(from + knob * (to - from));
        self.predictors.iter().map(|p| Selector::LowRank { predictor: p.clone(), rule }).collect()
    }

    fn range(&self) -> (f32, f32) {
        (0.5, 1.0)
    }
}

/// Predictors whose thresholds were chosen by recall: there is nothing to turn.
pub(crate) struct Recalling {
    name: String,
    selectors: Vec<Selector>,
}

impl Recalling {
    /// Gives each layer of `dense` the threshold with which its predictor of `family` finds the
    /// share `recall` of the active neurons, on tokens that it was not fitted to.
    pub(crate) fn new(
        dense: &Model,
        samples: &[Samples],
        family: LowRankFamily,
        recall: f64,
    ) -> Result<Self, Error> {
        let name = format!("{}, recall {:.1} %", family.name(), 100.0 * recall);
        let mut selectors = Vec::new();
        for ((ffn, samples), predictor) in dense.ffns().zip(samples).zip(family.predictors) {
            let hidden = samples.neurons(dense.compute(), ffn, samples.held()).hidden;
            let x = samples.activations(dense.compute(), samples.held());
            let mut scores = vec![0.0; hidden.len()];
            let mut projected = Activations::with_capacity(x.tokens(), predictor.rank());
            predictor.scores(dense.compute(), &x, &mut projected, &mut scores);
            let active = active(ffn, &hidden);
            let mut found: Vec<f32> =
                scores.iter().zip(active).filter_map(|(s, a)| a.then_some(*s)).collect();
            let missed = ((1.0 - recall) * found.len() as f64) as usize;
            // Where nothing is ever active, nothing is missed.
            let threshold = match missed < found.len() {
                true => *found.select_nth_unstable_by(missed, f32::total_cmp).1,
                false => f32::MAX,
            };
            selectors.push(Selector::LowRank { predictor, rule: Rule::Threshold(threshold) });
        }
        Ok(Self { name, selectors })
    }
}

impl Family for Recalling {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn selectors(&self, _: f32) -> Vec<Selector> {
        self.selectors.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_of_half_a_block_scores_the_same_in_int8() {
        let (inputs, rank, neurons) = (64, 16, 48);
        let values = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<_>>();
        let factors = PredictorFactors {
            inputs,
            rank,
            p: values(rank * inputs),
            q: values(neurons * rank),
            bias: values(neurons),
        };
        let int8 = int8(&factors).unwrap();
        assert_eq!((int8.rank(), int8.inputs(), int8.neurons()), (32, inputs, neurons));
        let compute = sparse_core::Compute::new(1);
        let mut x = Activations::with_capacity(1, inputs);
        x.resize(1);
        x.x_mut().copy_from_slice(&values(inputs));
        x.quantize(compute.kernels);
        let scores = |predictor: &LowRankPredictor| {
            let (mut between, mut scores) =
                (Activations::with_capacity(1, predictor.rank()), vec![0.0; neurons]);
            predictor.scores(&compute, &x, &mut between, &mut scores);
            scores
        };
        let (exact, rounded) = (scores(&factors.predictor().unwrap()), scores(&int8));
        let largest = exact.iter().fold(0.0, |a: f32, s| a.max(s.abs()));
        for (a, b) in exact.iter().zip(&rounded) {
            assert!((a - b).abs() < 0.03 * largest, "{a} {b}");
        }
    }

    #[test]
    fn the_largest_half_is_active() {
        let active = largest(&[1.0, -4.0, 2.0, 3.0, 0.5, 0.1, 0.2, -0.4], 4, &[1.0, 1.0, 1.0, 0.1]);
        assert_eq!(active, [false, true, true, false, true, false, true, false]);
    }
}
