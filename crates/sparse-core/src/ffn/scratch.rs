//! What computing a layer needs room for.

use alloc::vec;
use alloc::vec::Vec;

use super::{FfnCounts, PredictorInput, Selector, SparseFfn, scatter};
use crate::{Activations, Compute};

/// Buffers for [`SparseFfn::forward`], allocated once for the largest batch and layer.
#[derive(Debug, Default)]
pub struct FfnScratch {
    /// Up, `[tokens x neurons]`.
    pub(super) up: Vec<f32>,
    /// Gate of a masked batch, or `up` of one whose tokens are computed one by one, `[tokens x neurons]`.
    pub(super) gate: Vec<f32>,
    /// What `down` multiplies, `[tokens x neurons]`.
    pub(super) hidden: Activations,
    /// What predictors with an input of their own read.
    pub(super) predictor_input: Activations,
    /// Between the factors of the predictor.
    pub(super) projected: Activations,
    /// The predictor's scores.
    pub(super) scores: Vec<f32>,
    /// The token that was computed last by itself.
    pub(super) one: OneToken,
    /// Tokens that are computed beside each other, one per thread.
    pub(super) beside: Vec<OneToken>,
    /// Whether `one` is the last token; otherwise that is in `hidden`.
    pub(super) by_active: bool,
}

/// A token whose active set is computed.
#[derive(Debug, Default)]
pub(super) struct OneToken {
    /// Its number in the batch.
    pub(super) token: usize,
    /// Of all tokens that were computed here.
    pub(super) counts: FfnCounts,
    /// The layer's input, of a token of a batch.
    pub(super) x: Activations,
    /// Up, of the neurons in `active`.
    pub(super) up: Vec<f32>,
    /// What `down` multiplies, where that takes all neurons.
    pub(super) hidden: Activations,
    pub(super) active: Vec<u32>,
    /// `act(gate)`, then `h`, of the neurons in `active`.
    pub(super) values: Vec<f32>,
    /// Where the active neurons are in the slab, by their number: of neurons that are not in memory as a whole.
    #[cfg(feature = "std")]
    pub(super) places: Vec<u32>,
    /// The same for the neurons of one product, in order.
    #[cfg(feature = "std")]
    pub(super) row_places: Vec<u32>,
}

impl OneToken {
    /// Makes room for a layer, but for its input.
    pub(super) fn reserve(&mut self, neurons: usize) {
        self.hidden.reshape(1, neurons);
        for values in [&mut self.up, &mut self.values] {
            values.resize(neurons.max(values.len()), 0.0);
        }
        self.active.clear();
        self.active.reserve(neurons);
    }
}

/// The active set of one token in the making.
pub(super) struct Chosen<'a> {
    pub(super) active: &'a mut Vec<u32>,
    /// `act(gate)`, then `h`, of the neurons in `active`.
    pub(super) values: &'a mut [f32],
    /// `up` of the neurons in `active`.
    pub(super) up: &'a mut [f32],
}

impl FfnScratch {
    /// Room for `tokens` tokens of any of `ffns`.
    pub fn new<'a>(tokens: usize, ffns: impl IntoIterator<Item = &'a SparseFfn>) -> Self {
        Self::for_layers(tokens, ffns.into_iter().map(|ffn| (ffn.neurons(), &ffn.selector)))
    }

    /// Room for `tokens` tokens of any layer with so many neurons and such a selector.
    pub fn for_layers<'a>(tokens: usize, layers: impl Iterator<Item = (usize, &'a Selector)>) -> Self {
        let (mut neurons, mut rank, mut scores) = (0, 0, 0);
        let mut own_width = 0;
        let mut one = OneToken::default();
        for (count, selector) in layers {
            neurons = neurons.max(count);
            one.reserve(count);
            if let Selector::LowRank { predictor, .. } = selector {
                rank = rank.max(predictor.rank());
                if predictor.input() == PredictorInput::Own {
                    own_width = own_width.max(predictor.inputs());
                }
            }
            if selector.has_scores() {
                scores = scores.max(count);
            }
        }
        Self {
            up: vec![0.0; tokens * neurons],
            gate: Vec::new(),
            hidden: Activations::with_capacity(tokens, neurons),
            predictor_input: Activations::with_capacity(tokens, own_width),
            projected: Activations::with_capacity(1, rank),
            scores: vec![0.0; scores],
            one,
            beside: Vec::new(),
            by_active: false,
        }
    }

    /// States what predictors with an [input of their own](super::PredictorInput::Own) read in the next
    /// [`SparseFfn::forward`], `[tokens x width]`.
    pub fn set_predictor_input(&mut self, compute: &Compute, x: &[f32], width: usize) {
        self.predictor_input.reshape(x.len() / width, width);
        self.predictor_input.x_mut().copy_from_slice(x);
        self.predictor_input.quantize(compute.kernels);
    }

    /// Grows to what batches of `tokens` tokens of a layer of `neurons` neurons without a predictor take.
    pub fn reserve_neurons(&mut self, tokens: usize, neurons: usize) {
        let grow = |values: &mut Vec<f32>, len: usize| values.resize(len.max(values.len()), 0.0);
        grow(&mut self.up, tokens * neurons);
    }

    /// Writes what `down` was multiplied with for the last token to `out`, a value per neuron: zero where one was left out.
    /// Less the neurons' [means](SparseFfn::set_means), if some are left out.
    ///
    /// # Panics
    /// If `out` has not a value for each neuron of the layer that was computed last.
    pub fn last_hidden(&self, out: &mut [f32]) {
        if self.by_active {
            out.fill(0.0);
            scatter(&self.one.active, &self.one.values, out);
        } else {
            let all = self.hidden.x();
            out.copy_from_slice(&all[all.len() - out.len()..]);
        }
    }

    /// What `down` was multiplied with in the last [`BatchMode::Masked`](super::BatchMode::Masked) batch, `[tokens x neurons]`: zero
    /// where a neuron was not chosen. Less the neurons' [means](SparseFfn::set_means), if they have some.
    pub fn hidden(&self) -> &[f32] {
        self.hidden.x()
    }
}
