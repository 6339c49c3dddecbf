//! Batches whose tokens are computed one by one, as each is alone.

use sparse_simd::MatMut;

use super::scratch::OneToken;
use super::{FfnCounts, FfnScratch, SparseFfn};
use crate::{Activations, Compute, Pool};

impl SparseFfn {
    /// Several tokens with all neurons, one after the other.
    pub(super) fn dense_each(
        &self,
        compute: &Compute,
        x: &Activations,
        s: &mut FfnScratch,
        out: &mut [f32],
    ) -> FfnCounts {
        let mut one = core::mem::take(&mut s.one.x);
        one.reshape(1, self.inputs());
        s.hidden.reshape(1, self.neurons());
        let mut counts = FfnCounts::default();
        for (x, out) in x.x().chunks(self.inputs()).zip(out.chunks_mut(self.outputs())) {
            one.x_mut().copy_from_slice(x);
            one.quantize(compute.kernels);
            counts += self.dense(compute, &one, s, out);
        }
        s.one.x = one;
        counts
    }

    /// Several tokens, as many beside each other as there are threads.
    pub(super) fn each(
        &self,
        compute: &Compute,
        x: &Activations,
        s: &mut FfnScratch,
        out: &mut [f32],
    ) -> FfnCounts {
        let (inputs, neurons, outputs) = (self.inputs(), self.neurons(), self.outputs());
        self.predict(compute, x, s);
        let FfnScratch { gate: ups, scores, beside, one: last, by_active, .. } = s;
        // Where all neurons are looked at, each weight is read once for all tokens.
        let ahead = self.gate.is_none() && !self.selector.skips_first();
        if ahead {
            ups.resize(x.tokens() * neurons, 0.0);
            self.up.forward(compute, x, ups);
        }
        if beside.len() < compute.pool.threads() {
            beside.resize_with(compute.pool.threads(), OneToken::default);
        }
        for one in beside.iter_mut() {
            (one.token, one.counts) = (x.tokens(), FfnCounts::default());
        }
        let alone = Compute::with(compute.kernels, Pool::new(1));
        let out = MatMut::new(out, outputs);
        compute.pool.for_tiles(beside, out, (1, outputs), |one, token, _, mut out| {
            let (token, of_token) = (token.start, token.start * neurons..token.end * neurons);
            let up = ahead.then(|| &ups[of_token.clone()]);
            let mut input = core::mem::take(&mut one.x);
            if !ahead {
                input.reshape(1, inputs);
                input.x_mut().copy_from_slice(&x.x()[token * inputs..][..inputs]);
                input.quantize(alone.kernels);
            }
            let scores = scores.get(of_token).unwrap_or_default();
            let counts = self.sparse(&alone, (&input, scores), up, one, out.row(0));
            one.counts += counts;
            (one.x, one.token) = (input, token);
        });
        let mut counts = FfnCounts::default();
        beside.iter().for_each(|one| counts += one.counts);
        // What `last_hidden` shows.
        if let Some(one) = beside.iter_mut().find(|one| one.token + 1 == x.tokens()) {
            core::mem::swap(one, last);
        }
        *by_active = true;
        counts
    }
}
