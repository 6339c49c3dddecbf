//! The sparse engine: a network of two layers, ready to run.

mod demonstration;

use alloc::vec;
use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard, PoisonError};

use demonstration::Demonstration;

#[cfg(feature = "fit")]
use crate::PredictorFit;
use crate::error::{finite, same_len};
use crate::{
    ActivationType, Activations, BatchMode, Compute, Down, Error, FfnCounts, FfnScratch, Linear, Matrix,
    Rule, Selector, SelectorQuality, SparseFfn, SparsityConfig,
};

/// Density of the network that [`SparseInferenceEngine::new_dense`] makes.
const DEMONSTRATION_DENSITY: f32 = 0.1;
/// Gradient steps that refine a fitted predictor.
#[cfg(feature = "fit")]
const STEPS: usize = 200;

/// A feed-forward network, `y = W2 act(W1 x + b1) + b2`, that computes only the neurons that matter for its input.
///
/// How many matter is said by a [`SparsityConfig`], applied to the neurons' **shares** in the output: the share of neuron
/// j is `|h_j|` times the norm of column j of W2, `h` being what W2 is multiplied with. An engine finds those neurons
///
/// - by computing W1 and looking: then only W2 is skipped. That is how [`from_weights`](Self::from_weights) begins;
/// - or by a low-rank predictor, which skips both: [`new_sparse`](Self::new_sparse) knows one, and with the feature `fit`
///   `fit_predictor` finds one for the weights at hand.
///
/// [`calibrate`](Self::calibrate) sets the threshold of either on real inputs, and measures how well it chooses.
///
/// It runs on the calling thread. Threads can share an engine, but take turns.
///
/// ```
/// use sparse_core::SparseInferenceEngine;
///
/// let engine = SparseInferenceEngine::new_sparse(64, 256, 0.1)?;
/// let output = engine.infer(&[0.1; 64])?;
/// assert_eq!(output.len(), 64);
/// let statistics = engine.sparsity_statistics();
/// assert!(statistics.up_density() < 0.2 && statistics.bytes_share() < 0.4);
/// # Ok::<(), sparse_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SparseInferenceEngine {
    compute: Compute,
    ffn: SparseFfn,
    /// Which shares matter.
    sparsity: SparsityConfig,
    quality: Option<SelectorQuality>,
    work: Mutex<Work>,
}

/// What a run changes.
#[derive(Debug)]
struct Work {
    x: Activations,
    scratch: FfnScratch,
    counts: FfnCounts,
}

/// The weights of a plain feed-forward network, row-major. Its dimensions are those of the parts: as many neurons as `b1`
/// has values, as many outputs as `b2` has.
#[derive(Clone, Copy, Debug)]
pub struct FfnWeights<'a> {
    /// `[hidden x inputs]`.
    pub w1: &'a [f32],
    /// A value per neuron.
    pub b1: &'a [f32],
    /// `[outputs x hidden]`.
    pub w2: &'a [f32],
    /// A value per output.
    pub b2: &'a [f32],
}

/// What an engine measured of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SparsityStatistics {
    /// Tokens, neurons and bytes of all calls of `infer` since the engine was made or last calibrated.
    pub counts: FfnCounts,
    /// Neurons of the network.
    pub neurons: usize,
    /// Bytes of weights that a token reads if all neurons are computed.
    pub dense_bytes: usize,
    /// How well the neurons were chosen on the inputs of the last calibration; `None` before the first.
    pub quality: Option<SelectorQuality>,
}

impl SparsityStatistics {
    /// Share of the neurons whose row of W1 was computed; 0 before the first token, as the others.
    pub fn up_density(&self) -> f64 {
        self.per_token(self.counts.up, self.neurons)
    }

    /// Share of the neurons whose column of W2 was used.
    pub fn down_density(&self) -> f64 {
        self.per_token(self.counts.down, self.neurons)
    }

    /// Bytes read, those of the predictor included, relative to computing all neurons.
    pub fn bytes_share(&self) -> f64 {
        self.per_token(self.counts.bytes, self.dense_bytes)
    }

    fn per_token(&self, count: u64, all: usize) -> f64 {
        count as f64 / (self.counts.tokens.max(1) as f64 * all as f64)
    }
}

impl SparseInferenceEngine {
    /// A demonstration: a ReLU network of made-up weights, with `input_dim` outputs, of which about the share `density`
    /// of the neurons is active for standard normal inputs, and the predictor that follows from how it was made.
    ///
    /// Random weights would have nothing to predict, so these are of low rank but for a little noise, and a few neurons
    /// are active far more often than the others. It shows how the engine works and what sparsity is worth; it has learnt
    /// nothing. The same arguments give the same network.
    ///
    /// # Errors
    /// If a dimension is zero or too large, or the density is not above 0 and at most 1.
    pub fn new_sparse(input_dim: usize, hidden_dim: usize, density: f32) -> Result<Self, Error> {
        let network = Demonstration::new(input_dim, hidden_dim, density)?;
        let predictor = network.predictor.clone();
        let selector = Selector::LowRank { predictor, rule: Rule::Threshold(0.0) };
        Self::demonstration(network, SparsityConfig::with_target_sparsity(1.0 - density), selector)
    }

    /// The network of `new_sparse(input_dim, hidden_dim, 0.1)`, all of whose neurons are computed.
    ///
    /// # Errors
    /// If a dimension is zero or too large.
    pub fn new_dense(input_dim: usize, hidden_dim: usize) -> Result<Self, Error> {
        let network = Demonstration::new(input_dim, hidden_dim, DEMONSTRATION_DENSITY)?;
        Self::demonstration(network, SparsityConfig::with_target_sparsity(0.0), Selector::Dense)
    }

    fn demonstration(
        network: Demonstration,
        sparsity: SparsityConfig,
        selector: Selector,
    ) -> Result<Self, Error> {
        let inputs = network.predictor.inputs();
        let up = Linear::new(Matrix::from_f32(inputs, network.w1)?, Some(network.b1))?;
        let down = Down::Neurons(Matrix::from_f32(inputs, network.w2)?.into());
        Self::new(SparseFfn::plain(up, down, ActivationType::Relu)?, sparsity, selector)
    }

    /// An engine over `weights`, which computes the neurons whose share in the output is as large as `sparsity` asks for.
    ///
    /// # Errors
    /// If the lengths do not fit together, a weight is not finite or too large for its column to have a norm, or the sparsity
    /// is out of range.
    pub fn from_weights(
        weights: FfnWeights<'_>,
        activation: ActivationType,
        sparsity: SparsityConfig,
    ) -> Result<Self, Error> {
        let FfnWeights { w1, b1, w2, b2 } = weights;
        for (what, values) in [("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)] {
            finite(what, values)?;
            if values.is_empty() {
                return Err(Error::Length { what, expected: 1, found: 0 });
            }
        }
        let (hidden, outputs) = (b1.len(), b2.len());
        let inputs = w1.len().div_ceil(hidden);
        same_len("w1", hidden * inputs, w1.len())?;
        same_len("w2", outputs.saturating_mul(hidden), w2.len())?;
        numbered(hidden)?;
        let rule = sparsity.rule(hidden)?;
        if let Rule::Threshold(value) = rule
            && value.is_nan()
        {
            return Err(Error::Value { what: "threshold", value, expected: "a number" });
        }
        // Neuron by neuron, so that skipping one saves its bytes.
        let columns = (0..w2.len()).map(|i| w2[i % outputs * hidden + i / outputs]);
        let up = Linear::new(Matrix::from_f32(inputs, w1.iter().copied())?, Some(b1.to_vec()))?;
        let down = Down::Neurons(Matrix::from_f32(outputs, columns)?.into());
        let norms = down.norms();
        finite("norm of a column of w2", &norms)?;
        let selector = Selector::Oracle { rule, norms };
        let ffn = SparseFfn::plain(up, down, activation)?.with_down_bias(b2.to_vec())?;
        Self::new(ffn, sparsity, selector)
    }

    fn new(mut ffn: SparseFfn, sparsity: SparsityConfig, selector: Selector) -> Result<Self, Error> {
        ffn.set_selector(selector)?;
        let work = Mutex::new(Work::new(&ffn));
        Ok(Self { compute: Compute::new(1), ffn, sparsity, quality: None, work })
    }

    /// The network's output for one input.
    ///
    /// # Errors
    /// If the input has another length than the network's, or a value that is not finite.
    pub fn infer(&self, input: &[f32]) -> Result<Vec<f32>, Error> {
        self.check(input)?;
        let mut work = self.work();
        let Work { x, scratch, counts } = &mut *work;
        x.x_mut().copy_from_slice(input);
        let mut out = vec![0.0; self.ffn.outputs()];
        *counts += self.ffn.forward(&self.compute, x, BatchMode::Dense, scratch, &mut out);
        Ok(out)
    }

    /// Sets the threshold so that on inputs like `samples` as many neurons are computed, on average, as the
    /// [`SparsityConfig`] asks for (a density of [`new_sparse`](Self::new_sparse) is one, too), and measures how well they
    /// are chosen: see [`SparsityStatistics::quality`], in which a neuron mattered if it is one of those that the
    /// configuration means and its share is not zero. Counting starts again.
    ///
    /// A fixed number of neurons per token thereby becomes that number on average, and nothing has to be sorted any more.
    /// A dense engine stays dense; its quality says how many neurons were not zero.
    ///
    /// # Errors
    /// If there are no samples, one is no valid input, or one is so large that a neuron's share or score is not finite. The
    /// engine then stays as it is.
    pub fn calibrate(&mut self, samples: &[Vec<f32>]) -> Result<(), Error> {
        let seen = self.observe(samples)?;
        let scores = match self.ffn.selector() {
            Selector::LowRank { predictor, .. } => {
                let mut projected = Activations::with_capacity(samples.len(), predictor.rank());
                let mut scores = vec![0.0; seen.shares.len()];
                predictor.scores(&self.compute, &seen.x, &mut projected, &mut scores);
                scores
            }
            _ => seen.shares.clone(),
        };
        finite("score of a neuron", &scores)?;
        let threshold = threshold(&scores, seen.count);
        let mut quality = SelectorQuality::default();
        for ((score, wanted), share) in scores.iter().zip(&seen.wanted).zip(&seen.shares) {
            quality.add(*score > threshold, *wanted, *share);
        }
        let rule = Rule::Threshold(threshold);
        let selector = match self.ffn.selector().clone() {
            Selector::LowRank { predictor, .. } => Selector::LowRank { predictor, rule },
            Selector::Oracle { norms, .. } => Selector::Oracle { norms, rule },
            dense => dense,
        };
        self.ffn.set_selector(selector)?;
        self.quality = Some(quality);
        self.work = Mutex::new(Work::new(&self.ffn));
        Ok(())
    }

    /// Fits a low-rank predictor of rank `rank` (at most the width of the input) to which neurons mattered for `samples`,
    /// and [calibrates](Self::calibrate) it on them. From then on W1 is skipped, too.
    ///
    /// What it measured flatters a predictor that has few samples: calibrate again, on others, to know. Some networks
    /// cannot be predicted, and their recall says so.
    ///
    /// # Errors
    /// As [`calibrate`](Self::calibrate), or if the engine is dense. The engine then stays as it is.
    #[cfg(feature = "fit")]
    pub fn fit_predictor(&mut self, samples: &[Vec<f32>], rank: usize) -> Result<(), Error> {
        if let Selector::Dense = self.ffn.selector() {
            return Err(Error::Selector { selector: "low-rank", needs: "a sparse engine" });
        }
        let seen = self.observe(samples)?;
        let fit = PredictorFit::new(seen.x.x(), self.input_dim(), &seen.wanted, self.ffn.neurons())?;
        let predictor = fit.factors(rank, STEPS).predictor()?;
        let before = self.ffn.set_selector(Selector::LowRank { predictor, rule: Rule::Threshold(0.0) })?;
        let calibrated = self.calibrate(samples);
        if calibrated.is_err() {
            self.ffn.set_selector(before)?;
        }
        calibrated
    }

    /// What was measured so far.
    pub fn sparsity_statistics(&self) -> SparsityStatistics {
        SparsityStatistics {
            counts: self.work().counts,
            neurons: self.ffn.neurons(),
            dense_bytes: self.ffn.bytes(),
            quality: self.quality,
        }
    }

    /// Width of the input.
    pub fn input_dim(&self) -> usize {
        self.ffn.inputs()
    }

    /// Width of the output.
    pub fn output_dim(&self) -> usize {
        self.ffn.outputs()
    }

    fn check(&self, input: &[f32]) -> Result<(), Error> {
        same_len("input", self.ffn.inputs(), input.len())?;
        finite("a value of the input", input)
    }

    /// A run that panicked left nothing behind that the next one reads.
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all neurons make of `samples`.
    fn observe(&self, samples: &[Vec<f32>]) -> Result<Observed, Error> {
        if samples.is_empty() {
            return Err(Error::Value { what: "number of samples", value: 0.0, expected: "at least 1" });
        }
        samples.iter().try_for_each(|sample| self.check(sample))?;
        let neurons = self.ffn.neurons();
        let rule = self.sparsity.rule(neurons)?;
        let mut x = Activations::with_capacity(samples.len(), self.ffn.inputs());
        x.resize(samples.len());
        x.x_mut()
            .chunks_mut(self.ffn.inputs())
            .zip(samples)
            .for_each(|(x, sample)| x.copy_from_slice(sample));

        let (mut gate, mut shares) = (vec![0.0; samples.len() * neurons], vec![0.0; samples.len() * neurons]);
        self.ffn.neuron_values(&self.compute, &x, &mut gate, &mut shares);
        let norms = self.ffn.down().norms();
        let mut wanted = vec![false; shares.len()];
        let (mut count, mut active) = (0, Vec::with_capacity(neurons));
        for (shares, wanted) in shares.chunks_mut(neurons).zip(wanted.chunks_mut(neurons)) {
            shares.iter_mut().zip(&norms).for_each(|(h, norm)| *h = h.abs() * norm);
            finite("share of a neuron", shares)?;
            active.clear();
            active.extend(0..neurons as u32);
            rule.keep(&mut active, |j| shares[j as usize]);
            count += active.len();
            active.iter().for_each(|&j| wanted[j as usize] = shares[j as usize] > 0.0);
        }
        Ok(Observed { x, shares, wanted, count })
    }
}

impl Work {
    fn new(ffn: &SparseFfn) -> Self {
        let mut x = Activations::with_capacity(1, ffn.inputs());
        x.resize(1);
        Self { x, scratch: FfnScratch::new(1, [ffn]), counts: FfnCounts::default() }
    }
}

/// Samples and what all neurons made of them.
struct Observed {
    x: Activations,
    /// Shares in the output, `[samples x neurons]`.
    shares: Vec<f32>,
    /// Which of them mattered.
    wanted: Vec<bool>,
    /// How many neurons the configuration asks for, added over samples.
    count: usize,
}

/// Fails unless neurons can have numbers of 32 bits.
fn numbered(neurons: usize) -> Result<(), Error> {
    match u32::try_from(neurons) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Value {
            what: "hidden_dim",
            value: neurons as f32,
            expected: "no more than 32 bits can count",
        }),
    }
}

/// The threshold that `count` of the scores are above, halfway to the next one; fewer if some are equal.
fn threshold(scores: &[f32], count: usize) -> f32 {
    if count >= scores.len() {
        return f32::NEG_INFINITY;
    }
    let mut scores = scores.to_vec();
    let (above, &mut next, _) = scores.select_nth_unstable_by(count, |a, b| b.total_cmp(a));
    above.iter().copied().min_by(f32::total_cmp).map_or(next, |last| next.midpoint(last))
}
