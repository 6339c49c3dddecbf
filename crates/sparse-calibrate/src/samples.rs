//! What the feed-forward layers are given, and what their neurons make of it.

use std::ops::Range;
use std::sync::Arc;

use sparse_core::{Activations, Compute, SparseFfn};
use sparse_model::{Model, Session};

use crate::Error;
use crate::progress::{Progress, step};

/// Most memory for samples of all layers.
const MAX_BYTES: usize = 2 << 30;
/// Tokens per layer that nothing is fitted to, if there are four times as many.
const HELD: usize = 512;

/// Inputs of one layer, `[tokens x inputs]`, of consecutive tokens.
pub(crate) struct Samples {
    pub(crate) x: Vec<f32>,
    pub(crate) inputs: usize,
}

/// What neurons did with some tokens, `[tokens x neurons]`.
pub(crate) struct Neurons {
    /// `act(gate)`, or `act(up)` where there is no gate.
    pub(crate) gate: Vec<f32>,
    /// What `down` multiplies.
    pub(crate) hidden: Vec<f32>,
}

/// Runs `windows` through the model and keeps what every layer is given.
pub(crate) fn collect(
    dense: &Arc<Model>,
    windows: &[Vec<u32>],
    progress: &mut dyn Progress,
) -> Result<Vec<Samples>, Error> {
    let inputs = |ffn: &SparseFfn| ffn.inputs();
    let per_token: usize = dense.ffns().map(|f| 4 * inputs(f)).sum();
    let most = MAX_BYTES / per_token.max(1);
    let mut samples: Vec<Samples> =
        dense.ffns().map(|f| Samples { x: Vec::new(), inputs: inputs(f) }).collect();
    let mut session = Session::new(dense, windows.first().map_or(1, Vec::len))?;
    let mut taken = 0;
    for window in windows {
        if taken < most {
            session.clear();
            session.watch_ffn_inputs(window, |layer, x| samples[layer].x.extend_from_slice(x.x()))?;
            taken += window.len();
        }
        step(progress)?;
    }
    let asked: usize = windows.iter().map(Vec::len).sum();
    if taken < asked {
        tracing::warn!(taken, asked, "fewer tokens to fit to than asked for: samples take 2 GB at most");
    }
    Ok(samples)
}

impl Samples {
    pub(crate) fn tokens(&self) -> usize {
        self.x.len() / self.inputs
    }

    /// The tokens that selectors may be fitted to. The rest, up to [`HELD`], are for counting how
    /// well they choose.
    pub(crate) fn fitted(&self) -> Range<usize> {
        0..self.tokens() - HELD.min(self.tokens() / 4)
    }

    /// The tokens that nothing is fitted to.
    pub(crate) fn held(&self) -> Range<usize> {
        self.fitted().end..self.tokens()
    }

    /// The tokens in `range`, as layers take them.
    pub(crate) fn activations(&self, compute: &Compute, range: Range<usize>) -> Activations {
        let mut x = Activations::with_capacity(range.len(), self.inputs);
        x.resize(range.len());
        x.x_mut().copy_from_slice(&self.x[range.start * self.inputs..range.end * self.inputs]);
        x.quantize(compute.kernels);
        x
    }

    /// What the neurons of `ffn` make of the tokens in `range`.
    pub(crate) fn neurons(&self, compute: &Compute, ffn: &SparseFfn, range: Range<usize>) -> Neurons {
        let x = self.activations(compute, range.clone());
        let mut gate = vec![0.0; range.len() * ffn.neurons()];
        let mut hidden = gate.clone();
        ffn.neuron_values(compute, &x, &mut gate, &mut hidden);
        Neurons { gate, hidden }
    }
}

/// A step of at least `least` through values of `neurons` neurons, token after token, that every
/// neuron gets its turn with: one that has no divisor in common with their number.
pub(crate) fn stride(least: usize, neurons: usize) -> usize {
    let common = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (least.max(1)..).find(|step| common(*step, neurons.max(1)) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_reaches_every_neuron() {
        for (least, neurons, expected) in
            [(7, 5632, 7), (7, 8960, 9), (11, 5632, 13), (0, 8, 1), (4, 1536, 5)]
        {
            let step = stride(least, neurons);
            assert_eq!(step, expected);
            let seen: std::collections::HashSet<usize> = (0..neurons).map(|i| i * step % neurons).collect();
            assert_eq!(seen.len(), neurons);
        }
    }
}
