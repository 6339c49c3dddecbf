//! Feed-forward layers that compute only the neurons that matter.
//!
//! ```text
//! x -> candidates -> act(gate) -> keep -> h = act(gate) * up -> keep -> y = down h
//!      selector      rows         selector      rows            selector     columns
//! ```
//!
//! [`SparseFfn::forward`] is all of it. A selector may narrow the active set at any of the three places.

mod activation;
mod counts;
mod down;
mod each;
#[cfg(feature = "fit")]
mod fit;
mod hidden_norm;
mod modes;
mod predictor;
mod quality;
mod rules;
mod scratch;
mod selector;
mod storage;
#[cfg(feature = "std")]
mod stored;
#[cfg(feature = "std")]
mod times;

use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

pub use activation::ActivationType;
use activation::multiply;
pub use counts::{Density, FfnCounts};
pub use down::Down;
use down::scatter;
#[cfg(feature = "fit")]
pub use fit::{PredictorFactors, PredictorFit};
use hidden_norm::HiddenNorm;
pub use modes::{BatchMode, Crossover};
pub use predictor::{LowRankPredictor, PredictorInput};
pub use quality::SelectorQuality;
use rules::Rules;
pub use scratch::FfnScratch;
use scratch::{Chosen, OneToken};
pub use selector::{Rule, Selector, SparsityConfig};
use selector::{gather, reordered};
#[cfg(feature = "std")]
pub use stored::{StoredDown, StoredFfn, StoredNeurons};
#[cfg(feature = "std")]
pub use times::{BatchTimes, FfnTimes, median};

use crate::error::{check_order, finite, same_len};
use crate::linear::add_bias;
use crate::{Activations, Compute, Error, Linear, SegmentedMatrix};

/// A feed-forward layer: `down(act(gate x) * act'(up x))`, or `down(act(up x))` without a gate.
///
/// With the identity as `act'` this is SwiGLU, GeGLU or ReGLU (Shazeer 2020, arXiv 2002.05202), with ReLU in both places
/// dReLU (Song et al. 2024, arXiv 2406.05955).
#[derive(Debug)]
pub struct SparseFfn {
    gate: Option<Linear>,
    up: Linear,
    down: Down,
    down_bias: Option<Vec<f32>>,
    activation: ActivationType,
    up_activation: ActivationType,
    selector: Selector,
    means: Option<Means>,
    hidden_norm: Option<HiddenNorm>,
    crossover: Crossover,
}

/// What skipped neurons are taken to give.
#[derive(Clone, Debug)]
struct Means {
    /// A value per neuron.
    values: Vec<f32>,
    /// What `down` makes of them.
    folded: Vec<f32>,
}

/// The weights of a layer's neurons, for [`SparseFfn::set_neurons`].
#[derive(Debug)]
pub struct NeuronWeights {
    /// Of the gate, `[neurons x inputs]`, if there is one.
    pub gate: Option<SegmentedMatrix>,
    /// Of the up projection, `[neurons x inputs]`.
    pub up: SegmentedMatrix,
    /// Of the down projection.
    pub down: Down,
}

impl SparseFfn {
    /// A gated layer, dense until it [gets a selector](Self::set_selector). `gate` and `up` are `[neurons x inputs]`.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn gated(gate: Linear, up: Linear, down: Down, activation: ActivationType) -> Result<Self, Error> {
        same_len("inputs of up", gate.weight().cols(), up.weight().cols())?;
        same_len("neurons of up", gate.weight().rows(), up.weight().rows())?;
        Ok(Self { gate: Some(gate), ..Self::plain(up, down, activation)? })
    }

    /// A layer without a gate; `up` is `[neurons x inputs]`.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn plain(up: Linear, down: Down, activation: ActivationType) -> Result<Self, Error> {
        same_len("neurons of down", up.weight().rows(), down.neurons())?;
        Ok(Self {
            gate: None,
            up,
            down,
            down_bias: None,
            activation,
            up_activation: ActivationType::Identity,
            selector: Selector::Dense,
            means: None,
            hidden_norm: None,
            crossover: Crossover::default(),
        })
    }

    /// The same layer with a bias on its output.
    ///
    /// # Errors
    /// If it has another length than the output.
    pub fn with_down_bias(self, bias: Vec<f32>) -> Result<Self, Error> {
        same_len("bias of down", self.outputs(), bias.len())?;
        Ok(Self { down_bias: Some(bias), ..self })
    }

    /// The same layer with an activation on `up`, too, if it is gated.
    #[must_use]
    pub fn with_up_activation(self, up_activation: ActivationType) -> Self {
        Self { up_activation, ..self }
    }

    /// The same layer with an RMS norm of what `down` multiplies (BitNet b1.58, arXiv 2504.12285): over all neurons, those
    /// that are left out being zero.
    ///
    /// # Errors
    /// If there is another number of weights than of neurons.
    pub fn with_hidden_norm(self, weight: Vec<f32>, epsilon: f32) -> Result<Self, Error> {
        same_len("weights of the norm of h", self.neurons(), weight.len())?;
        Ok(Self { hidden_norm: Some(HiddenNorm { weight, epsilon }), ..self })
    }

    /// Gives the layer other activations: on the gate, or on `up` where there is none, and on `up` beside a gate. A selector
    /// that needs exact zeros goes if there are none with them.
    pub fn set_activation(&mut self, activation: ActivationType, up_activation: ActivationType) {
        (self.activation, self.up_activation) = (activation, up_activation);
        if matches!(self.selector, Selector::ExactZero) && !activation.has_zeros() {
            self.selector = Selector::Dense;
        }
    }

    /// Gives the layer a selector and returns the one before. Rows that it uses one by one become contiguous.
    ///
    /// # Errors
    /// If it does not fit the layer, or a threshold is NaN. The layer then keeps its own.
    pub fn set_selector(&mut self, selector: Selector) -> Result<Selector, Error> {
        selector.check(self.inputs(), self.neurons(), self.gate.is_some(), self.activation.has_zeros())?;
        let before = core::mem::replace(&mut self.selector, selector);
        self.make_skipped_rows();
        Ok(before)
    }

    /// States what a neuron is taken to give where it is skipped, a value per neuron: what is skipped then costs no more
    /// than its distance from that. `y = down(means) + bias` plus the sum, over the active neurons, of `h - mean` times
    /// their column; the first part is computed here, once. [`Selector::Intermediate`], [`Selector::Oracle`] and
    /// [`Selector::Copy`] look at `h - mean` in place of `h` then. `None` is zeros, and saves subtracting them.
    ///
    /// # Errors
    /// If there is another number of values than of neurons, one is not finite, or the layer has a
    /// [norm](Self::with_hidden_norm), which means do not go through; then nothing changes.
    pub fn set_means(&mut self, means: Option<Vec<f32>>) -> Result<(), Error> {
        self.means = match means {
            None => None,
            Some(_) if self.hidden_norm.is_some() => {
                return Err(Error::Selector { selector: "means", needs: "a layer without a norm of h" });
            }
            Some(values) => {
                same_len("means of the neurons", self.neurons(), values.len())?;
                finite("mean of a neuron", &values)?;
                Some(Means { folded: self.down.product(&values), values })
            }
        };
        Ok(())
    }

    /// What skipped neurons are taken to give, if that is not zero.
    pub fn means(&self) -> Option<&[f32]> {
        self.means.as_ref().map(|means| &*means.values)
    }

    /// States from where on the layer is to compute everything.
    pub fn set_crossover(&mut self, crossover: Crossover) {
        self.crossover = crossover;
    }

    /// Gives the layer another down projection and returns the one before: the same weights in another storage, say.
    ///
    /// # Errors
    /// If it has another shape; then nothing changes.
    pub fn set_down(&mut self, down: Down) -> Result<Down, Error> {
        same_len("neurons of down", self.neurons(), down.neurons())?;
        same_len("outputs of down", self.outputs(), down.outputs())?;
        if let Some(means) = &mut self.means {
            means.folded = down.product(&means.values);
        }
        Ok(core::mem::replace(&mut self.down, down))
    }

    /// Gives the layer other weights, and its neurons other numbers: neuron i is now the one that was `order[i]`. Its
    /// biases, its selector and its means follow.
    ///
    /// # Errors
    /// If the weights have other shapes, the selector is [`Selector::Copy`], or `order` does not have every neuron once; then nothing changes.
    pub fn set_neurons(&mut self, order: &[u32], weights: NeuronWeights) -> Result<(), Error> {
        let NeuronWeights { gate, up, down } = weights;
        let neurons = self.neurons();
        same_len("gates", usize::from(self.gate.is_some()), usize::from(gate.is_some()))?;
        for w in gate.iter().chain([&up]) {
            same_len("inputs of the new weights", self.inputs(), w.cols())?;
            same_len("neurons of the new weights", neurons, w.rows())?;
        }
        same_len("neurons of the new down", neurons, down.neurons())?;
        same_len("outputs of the new down", self.outputs(), down.outputs())?;
        check_order(neurons, order)?;
        let selector = self.selector.reordered(order)?;
        let linear = |old: &Linear, new| Linear::new(new, old.bias().map(|b| reordered(order, b)));
        let gate = match (&self.gate, gate) {
            (Some(old), Some(new)) => Some(linear(old, new)?),
            _ => None,
        };
        let up = linear(&self.up, up)?;
        let means = self.means().map(|means| reordered(order, means));
        self.hidden_norm = self.hidden_norm.as_ref().map(|norm| norm.reordered(order));
        (self.gate, self.up, self.down, self.selector) = (gate, up, down, selector);
        self.set_means(means)
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.up.weight().cols()
    }

    /// Number of neurons.
    pub fn neurons(&self) -> usize {
        self.up.weight().rows()
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.down.outputs()
    }

    /// The gate projection, if there is one.
    pub fn gate(&self) -> Option<&Linear> {
        self.gate.as_ref()
    }

    /// The up projection.
    pub fn up(&self) -> &Linear {
        &self.up
    }

    /// The down projection.
    pub fn down(&self) -> &Down {
        &self.down
    }

    /// The function on the gate, or on `up` where there is no gate.
    pub fn activation(&self) -> ActivationType {
        self.activation
    }

    /// The function on `up` beside a gate.
    pub fn up_activation(&self) -> ActivationType {
        self.up_activation
    }

    /// The bias of the output, if there is one.
    pub fn down_bias(&self) -> Option<&[f32]> {
        self.down_bias.as_deref()
    }

    /// The projection that decides alone which neurons are zero, if there is one: those where it is not above zero.
    pub fn deciding(&self) -> Option<&Linear> {
        let alone = self.gate.is_none() || !self.up_activation.has_zeros();
        (alone && self.activation.has_zeros()).then(|| self.first())
    }

    /// Whether the layer's predictor has an [input of its own](PredictorInput::Own).
    pub fn has_predictor_input(&self) -> bool {
        matches!(&self.selector, Selector::LowRank { predictor, .. } if predictor.input() == PredictorInput::Own)
    }

    /// The selector.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Bytes that computing a token with all neurons reads.
    pub fn bytes(&self) -> usize {
        self.gate.as_ref().map_or(0, |g| g.weight().bytes()) + self.up.weight().bytes() + self.down.bytes()
    }

    /// Computes the layer for every token of `x`, whose int8 form must be up to date; `out` is `[tokens x outputs]`.
    /// The result does not depend on the number of threads.
    ///
    /// # Panics
    /// If the shapes do not match, or `scratch` has not enough room.
    pub fn forward(
        &self,
        compute: &Compute,
        x: &Activations,
        batch: BatchMode,
        scratch: &mut FfnScratch,
        out: &mut [f32],
    ) -> FfnCounts {
        let tokens = x.tokens();
        scratch.hidden.reshape(tokens, self.neurons());
        let (dense, counts) = match (&self.selector, tokens, batch) {
            (Selector::Dense, _, BatchMode::Masked) => {
                let counts = self.dense(compute, x, scratch, out);
                // What single tokens would read, as for the other selectors.
                (true, FfnCounts { bytes: counts.bytes * counts.tokens, ..counts })
            }
            (Selector::Dense, 2.., BatchMode::Each) if !matches!(self.down, Down::Rows(_)) => {
                (true, self.dense_each(compute, x, scratch, out))
            }
            (Selector::Dense, ..) => (true, self.dense(compute, x, scratch, out)),
            (_, 2.., BatchMode::Dense) if tokens > self.crossover.tokens => {
                (true, self.dense(compute, x, scratch, out))
            }
            (_, _, BatchMode::Masked) => (false, self.masked(compute, x, scratch, out)),
            (_, 1, _) => {
                self.predict(compute, x, scratch);
                scratch.by_active = true;
                let scores = scratch.scores.get(..self.neurons()).unwrap_or_default();
                (false, self.sparse(compute, (x, scores), None, &mut scratch.one, out))
            }
            (_, _, BatchMode::Dense | BatchMode::Each) => (false, self.each(compute, x, scratch, out)),
        };
        add_bias(compute, self.down_bias.as_deref(), out);
        if !dense {
            add_bias(compute, self.means.as_ref().map(|means| &*means.folded), out);
        }
        counts
    }

    /// The rest of [`forward`](Self::forward) in [`BatchMode::Each`], for a layer without a gate whose selector does not
    /// [skip `up`](Selector::skips_first): `up` is what that projection makes of every token, `[tokens x neurons]`, however
    /// it was computed.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), or if the layer has a gate or another selector.
    pub fn forward_from_up(
        &self,
        compute: &Compute,
        up: &[f32],
        scratch: &mut FfnScratch,
        out: &mut [f32],
    ) -> FfnCounts {
        assert!(self.gate.is_none() && !self.selector.skips_first(), "a layer that computes all of `up`");
        let none = Activations::default();
        scratch.by_active = true;
        let mut counts = FfnCounts::default();
        for (up, out) in up.chunks(self.neurons()).zip(out.chunks_mut(self.outputs())) {
            counts += self.sparse(compute, (&none, &[]), Some(up), &mut scratch.one, out);
        }
        add_bias(compute, self.down_bias.as_deref(), out);
        add_bias(compute, self.means.as_ref().map(|means| &*means.folded), out);
        counts
    }

    /// What all neurons make of every token of `x`: `act(gate x)` (or `act(up x)` where there is no gate) and `h`, what
    /// `down` is to multiply (before a [norm](Self::with_hidden_norm)), both `[tokens x neurons]`. For calibration.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn neuron_values(&self, compute: &Compute, x: &Activations, gate: &mut [f32], hidden: &mut [f32]) {
        let k = compute.kernels;
        self.first().forward(compute, x, gate);
        self.activation.apply(k, gate);
        hidden.copy_from_slice(gate);
        if self.gate.is_some() {
            let mut up = vec![0.0; gate.len()];
            self.up.forward(compute, x, &mut up);
            self.up_activation.apply(k, &mut up);
            multiply(hidden, &up);
        }
    }

    fn dense(&self, compute: &Compute, x: &Activations, s: &mut FfnScratch, out: &mut [f32]) -> FfnCounts {
        let k = compute.kernels;
        s.by_active = false;
        self.first().forward(compute, x, s.hidden.x_mut());
        if self.gate.is_some() {
            let up = &mut s.up[..x.tokens() * self.neurons()];
            self.up.forward(compute, x, up);
            self.up_activation.apply(k, up);
            self.activation.apply_mul(k, s.hidden.x_mut(), up);
        } else {
            self.activation.apply(k, s.hidden.x_mut());
        }
        if let Some(norm) = &self.hidden_norm {
            norm.apply(k, s.hidden.x_mut());
        }
        match &self.down {
            // Threads can share one token only if it is an active set.
            Down::Neurons(down) if x.tokens() == 1 => {
                s.one.active.clear();
                s.one.active.extend(0..self.neurons() as u32);
                down.axpy_rows(compute, &s.one.active, s.hidden.x(), out);
            }
            down => {
                s.hidden.quantize(k);
                down.forward(compute, &s.hidden, out);
            }
        }
        let all = (x.tokens() * self.neurons()) as u64;
        let gate = if self.gate.is_some() { all } else { 0 };
        FfnCounts { tokens: x.tokens() as u64, gate, up: all, down: all, bytes: self.bytes() as u64 }
    }

    /// One token, `x`, whose neurons the selector gives `scores`, if it has any. `first` is what all its neurons make of the
    /// [`first`](Self::first) projection, if that is known.
    fn sparse(
        &self,
        compute: &Compute,
        (x, scores): (&Activations, &[f32]),
        first: Option<&[f32]>,
        s: &mut OneToken,
        out: &mut [f32],
    ) -> FfnCounts {
        let neurons = self.neurons();
        let limit = |density: f32| (density * neurons as f32) as usize;
        s.reserve(neurons);
        let OneToken { up, hidden, active, values, .. } = s;
        let some = limit(self.crossover.rows);
        let rows = |linear: &Linear, active: &[u32], out: &mut [f32]| {
            if active.len() == neurons || active.len() > some {
                linear.forward(compute, x, out);
                gather(active, out);
                linear.weight().bytes()
            } else {
                linear.forward_rows(compute, active, x, &mut out[..active.len()]);
                linear.weight().bytes_of(active)
            }
        };
        let chosen = Chosen { active, values: &mut values[..neurons], up: &mut up[..neurons] };
        let Ok(mut counts) = self.rules().choose(
            compute,
            scores,
            chosen,
            |active, out| match first {
                None => unfailing(rows(self.first(), active, out)),
                Some(first) => {
                    out.copy_from_slice(first);
                    gather(active, out);
                    unfailing(self.up.weight().bytes())
                }
            },
            |active, out| unfailing(rows(&self.up, active, out)),
        );
        let some = limit(self.crossover.down);
        counts.bytes += self.down.forward_active(compute, active, values, some, hidden, out) as u64;
        counts
    }

    /// A batch whose tokens have an active set each.
    fn masked(&self, compute: &Compute, x: &Activations, s: &mut FfnScratch, out: &mut [f32]) -> FfnCounts {
        let (tokens, neurons) = (x.tokens(), self.neurons());
        let up = &mut s.up[..tokens * neurons];
        self.up.forward(compute, x, up);
        if let Some(gate) = &self.gate {
            s.gate.resize(tokens * neurons, 0.0);
            gate.forward(compute, x, &mut s.gate);
        }
        self.predict(compute, x, s);
        s.by_active = false;
        s.one.reserve(neurons);
        let FfnScratch { up, gate, hidden, scores, one: OneToken { active, values, .. }, .. } = s;
        let mut counts = FfnCounts::default();
        let mut compact = vec![0.0; neurons];
        for (t, hidden) in hidden.x_mut().chunks_mut(neurons).enumerate() {
            let of_token = t * neurons..(t + 1) * neurons;
            let rows = |linear: &Linear, all: &[f32], active: &[u32], out: &mut [f32]| {
                out.copy_from_slice(&all[of_token.clone()]);
                gather(active, out);
                linear.weight().bytes_of(active)
            };
            let scores = scores.get(of_token.clone()).unwrap_or_default();
            let chosen = Chosen { active, values: &mut values[..neurons], up: &mut compact };
            let all = if self.gate.is_some() { &*gate } else { &*up };
            let Ok(found) = self.rules().choose(
                compute,
                scores,
                chosen,
                |active, out| unfailing(rows(self.first(), all, active, out)),
                |active, out| unfailing(rows(&self.up, up, active, out)),
            );
            counts += found;
            counts.bytes += self.down.bytes_of(active) as u64;
            hidden.fill(0.0);
            scatter(active, values, hidden);
        }
        hidden.quantize(compute.kernels);
        self.down.forward(compute, hidden, out);
        counts
    }

    /// The scores of all tokens' neurons, if the selector has any.
    fn predict(&self, compute: &Compute, x: &Activations, s: &mut FfnScratch) {
        self.rules().predict(compute, x, s);
    }

    /// What it does with its weights.
    fn rules(&self) -> Rules<'_> {
        Rules {
            gated: self.gate.is_some(),
            neurons: self.neurons(),
            activation: self.activation,
            up_activation: self.up_activation,
            selector: &self.selector,
            means: self.means(),
            hidden_norm: self.hidden_norm.as_ref(),
        }
    }

    /// What is computed first: the gate, or `up` where there is none.
    fn first(&self) -> &Linear {
        self.gate.as_ref().unwrap_or(&self.up)
    }
}

/// What is in memory cannot fail to be read.
fn unfailing(bytes: usize) -> Result<usize, Infallible> {
    Ok(bytes)
}
