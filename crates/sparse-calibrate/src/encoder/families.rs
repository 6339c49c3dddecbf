//! Three ways to choose an encoder's neurons, each with one knob from 0, nothing is left out, to 1, nearly everything is.
//!
//! What it costs to leave out neuron j, and take it for its mean m_j over the tokens that do so, is `|h_j - m_j|` times the
//! norm of its column of `down`. One bound on that for all layers gives each neuron its threshold.

use sparse_core::{
    ActivationType, Activations, Compute, Linear, LowRankPredictor, PredictorFit, Rule, Selector, SparseFfn,
};
use sparse_model::Encoder;
use sparse_model::internal::low_bit_copy;

use crate::Error;
use crate::low_rank::{LOGITS, STEPS, TOKENS, int8};
use crate::progress::{Progress, step};
use crate::samples::{Samples, stride};

/// Most memory for what the neurons of all layers give; each predictor and the copy take as much.
const MAX_BYTES: usize = 128 << 20;
/// Rounds in which means and what is skipped are fitted to each other.
const ROUNDS: usize = 4;
/// Costs that the knob's quantiles are taken from, at most, per layer.
const SOME: usize = 1 << 16;

/// What a selector and the neurons' means are for one layer.
type Choice = (Selector, Option<Vec<f32>>);

/// Samples of one layer.
pub(super) struct Layer {
    pub(super) samples: Samples,
    /// What its neurons make of the [fitted](Samples::fitted) tokens, `[tokens x neurons]`.
    hidden: Vec<f32>,
    /// Norms of the columns of `down`.
    norms: Vec<f32>,
    activation: ActivationType,
}

/// Selectors with one knob.
pub(super) trait Family {
    fn name(&self) -> String;
    fn layers(&self, knob: f32) -> Vec<Choice>;
}

/// Tokens that may be sampled.
pub(super) fn tokens(encoder: &Encoder) -> usize {
    let config = encoder.config();
    (MAX_BYTES / (4 * config.layers * (config.feed_forward + config.embedding))).clamp(1, TOKENS)
}

/// All ways that suit the encoder.
pub(super) fn families<'a>(
    encoder: &Encoder,
    layers: &'a [Layer],
    ranks: &[usize],
    progress: &mut dyn Progress,
) -> Result<Vec<Box<dyn Family + 'a>>, Error> {
    let costs = Costs::new(layers);
    let middle = costs.bound(0.5);
    let mut low_rank: Vec<LowRank> =
        ranks.iter().map(|&rank| LowRank { rank, layers, predictors: Vec::new() }).collect();
    let mut copies = Vec::new();
    progress.begin("fitting predictors", layers.len());
    for ((_, ffn), layer) in encoder.ffns().zip(layers) {
        let mean = layer.mean(|_, _| true);
        let active: Vec<bool> =
            layer.tokens().flat_map(|h| layer.costs(h, &mean).map(|cost| cost > middle)).collect();
        let inputs = layer.samples.inputs;
        let fit = PredictorFit::new(layer.x(), inputs, &active, layer.norms.len())?;
        for family in &mut low_rank {
            let predictor = int8(&fit.factors(family.rank, STEPS))?;
            let scores = scores(encoder.compute(), &predictor, layer);
            family.predictors.push((predictor, scores));
        }
        if inputs.is_multiple_of(32) {
            let copy = low_bit_copy(ffn.up())?;
            let mut guesses = vec![0.0; layer.hidden.len()];
            copy.forward(encoder.compute(), &layer.activations(encoder.compute()), &mut guesses);
            layer.activation.apply(encoder.compute().kernels, &mut guesses);
            copies.push((copy, guesses));
        }
        step(progress)?;
    }
    let mut families: Vec<Box<dyn Family>> = vec![Box::new(Exact { layers, costs: costs.clone() })];
    families.extend(low_rank.into_iter().map(|family| -> Box<dyn Family> { Box::new(family) }));
    if copies.len() == layers.len() {
        families.push(Box::new(Copies { layers, costs, copies }));
    }
    Ok(families)
}

/// The predictor's scores of all fitted tokens.
fn scores(compute: &Compute, predictor: &LowRankPredictor, layer: &Layer) -> Vec<f32> {
    let x = layer.activations(compute);
    let mut scores = vec![0.0; layer.hidden.len()];
    let mut projected = Activations::with_capacity(x.tokens(), predictor.rank());
    predictor.scores(compute, &x, &mut projected, &mut scores);
    scores
}

impl Layer {
    pub(super) fn new(compute: &Compute, ffn: &SparseFfn, samples: Samples) -> Self {
        let hidden = samples.neurons(compute, ffn, samples.fitted()).hidden;
        Self { hidden, norms: ffn.down().norms(), activation: ffn.activation(), samples }
    }

    fn x(&self) -> &[f32] {
        &self.samples.x[..self.samples.fitted().len() * self.samples.inputs]
    }

    fn activations(&self, compute: &Compute) -> Activations {
        self.samples.activations(compute, self.samples.fitted())
    }

    fn tokens(&self) -> impl Iterator<Item = &[f32]> {
        self.hidden.chunks(self.norms.len())
    }

    /// What each neuron costs if it is left out, given what it gives.
    fn costs<'a>(&'a self, h: &'a [f32], mean: &'a [f32]) -> impl Iterator<Item = f32> {
        h.iter().zip(mean).zip(&self.norms).map(|((h, m), norm)| (h - m).abs() * norm)
    }

    /// The mean of every neuron over the tokens that skip it, `skipped(token, neuron)`; zero if none does.
    fn mean(&self, skipped: impl Fn(usize, usize) -> bool) -> Vec<f32> {
        let n = self.norms.len();
        let (mut sums, mut counts) = (vec![0.0_f64; n], vec![0_u32; n]);
        for (t, h) in self.tokens().enumerate() {
            for (j, h) in h.iter().enumerate().filter(|(j, _)| skipped(t, *j)) {
                sums[j] += f64::from(*h);
                counts[j] += 1;
            }
        }
        sums.iter().zip(counts).map(|(sum, n)| (sum / f64::from(n.max(1))) as f32).collect()
    }

    /// Thresholds on `|guess - mean|` that leave out what costs up to `bound`, and the means of what is then left out.
    fn settle(&self, guesses: &[f32], bound: f32) -> (Vec<f32>, Vec<f32>) {
        let n = self.norms.len();
        let thresholds: Vec<f32> =
            self.norms.iter().map(|norm| bound / norm.max(f32::MIN_POSITIVE)).collect();
        let mut mean = self.mean(|_, _| true);
        for _ in 0..ROUNDS {
            let next = self.mean(|t, j| (guesses[t * n + j] - mean[j]).abs() <= thresholds[j]);
            mean = next;
        }
        (thresholds, mean)
    }
}

/// Costs of leaving neurons out, of all layers, in order.
#[derive(Clone)]
struct Costs(Vec<f32>);

impl Costs {
    fn new(layers: &[Layer]) -> Self {
        let mut all = Vec::new();
        for layer in layers {
            let mean = layer.mean(|_, _| true);
            let stride = stride(layer.hidden.len().div_ceil(SOME), layer.norms.len());
            let costs: Vec<f32> =
                layer.tokens().flat_map(|h| layer.costs(h, &mean)).step_by(stride).collect();
            all.extend(costs);
        }
        all.sort_by(f32::total_cmp);
        Self(all)
    }

    /// What this share of the neurons costs at most.
    fn bound(&self, share: f32) -> f32 {
        let i = (share.clamp(0.0, 1.0) * self.0.len() as f32) as usize;
        if share <= 0.0 {
            0.0
        } else {
            self.0.get(i.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0.0)
        }
    }
}

/// All of `up` is computed, `down` for what matters.
struct Exact<'a> {
    layers: &'a [Layer],
    costs: Costs,
}

impl Family for Exact<'_> {
    fn name(&self) -> String {
        "exact up, sparse down".into()
    }

    fn layers(&self, knob: f32) -> Vec<Choice> {
        let bound = self.costs.bound(knob);
        let choose = |layer: &Layer| {
            let (hidden, mean) = layer.settle(&layer.hidden, bound);
            (Selector::Intermediate { hidden }, Some(mean))
        };
        self.layers.iter().map(choose).collect()
    }
}

/// A predictor of a rank.
struct LowRank<'a> {
    rank: usize,
    layers: &'a [Layer],
    /// And their scores of the fitted tokens.
    predictors: Vec<(LowRankPredictor, Vec<f32>)>,
}

impl Family for LowRank<'_> {
    fn name(&self) -> String {
        format!("low-rank {}", self.rank)
    }

    fn layers(&self, knob: f32) -> Vec<Choice> {
        let threshold = LOGITS.0 + knob * (LOGITS.1 - LOGITS.0);
        let choose = |(layer, (predictor, scores)): (&Layer, &(LowRankPredictor, Vec<f32>))| {
            let n = layer.norms.len();
            let mean = layer.mean(|t, j| scores[t * n + j] <= threshold);
            let rule = Rule::Threshold(threshold);
            (Selector::LowRank { predictor: predictor.clone(), rule }, Some(mean))
        };
        self.layers.iter().zip(&self.predictors).map(choose).collect()
    }
}

/// A copy of `up` in few bits says what matters.
struct Copies<'a> {
    layers: &'a [Layer],
    costs: Costs,
    /// And what they take the fitted tokens' neurons for.
    copies: Vec<(Linear, Vec<f32>)>,
}

impl Family for Copies<'_> {
    fn name(&self) -> String {
        "copy of up in 3 bits".into()
    }

    fn layers(&self, knob: f32) -> Vec<Choice> {
        let bound = self.costs.bound(knob);
        let choose = |(layer, (copy, guesses)): (&Layer, &(Linear, Vec<f32>))| {
            let (hidden, mean) = layer.settle(guesses, bound);
            (Selector::Copy { copy: copy.clone(), hidden }, Some(mean))
        };
        self.layers.iter().zip(&self.copies).map(choose).collect()
    }
}
