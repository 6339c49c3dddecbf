//! What computing a layer needs room for.

use alloc::vec;
use alloc::vec::Vec;

use super::{PredictorInput, Selector, SparseFfn, scatter};
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
    pub(super) active: Vec<u32>,
    /// `act(gate)`, then `h`, of the neurons in `active`.
    pub(super) values: Vec<f32>,
    /// Whether `active` and `values` are the last token's; otherwise `hidden` is.
    pub(super) by_active: bool,
    /// One token of a batch.
    pub(super) one: Activations,
    /// Where the active neurons are in the slab, by their number: of neurons that are not in memory as a whole.
    pub(super) places: Vec<u32>,
    /// The same for the neurons of one product, in order.
    pub(super) row_places: Vec<u32>,
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
        for (count, selector) in layers {
            neurons = neurons.max(count);
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
            active: Vec::with_capacity(neurons),
            values: vec![0.0; neurons],
            by_active: false,
            one: Activations::default(),
            places: Vec::new(),
            row_places: Vec::new(),
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
        grow(&mut self.values, neurons);
    }

    /// Grows to what tokens of `ffn` take in [`BatchMode::Each`](super::BatchMode::Each) and [`SparseFfn::forward_from_up`].
    pub fn reserve(&mut self, ffn: &SparseFfn) {
        let neurons = ffn.neurons();
        let grown = neurons.max(self.values.len());
        self.values.resize(grown, 0.0);
        let grown = neurons.max(self.up.len());
        self.up.resize(grown, 0.0);
    }

    /// Writes what `down` was multiplied with for the last token to `out`, a value per neuron: zero where one was left out.
    /// Less the neurons' [means](SparseFfn::set_means), if some are left out.
    ///
    /// # Panics
    /// If `out` has not a value for each neuron of the layer that was computed last.
    pub fn last_hidden(&self, out: &mut [f32]) {
        if self.by_active {
            out.fill(0.0);
            scatter(&self.active, &self.values, out);
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
