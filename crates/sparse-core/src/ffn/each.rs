//! Batches whose tokens are computed one by one, as each is alone.

use super::{FfnCounts, FfnScratch, SparseFfn};
use crate::{Activations, Compute};

impl SparseFfn {
    /// Several tokens with all neurons, one after the other.
    pub(super) fn dense_each(
        &self,
        compute: &Compute,
        x: &Activations,
        s: &mut FfnScratch,
        out: &mut [f32],
    ) -> FfnCounts {
        let mut one = core::mem::take(&mut s.one);
        one.reshape(1, self.inputs());
        s.hidden.reshape(1, self.neurons());
        let mut counts = FfnCounts::default();
        for (x, out) in x.x().chunks(self.inputs()).zip(out.chunks_mut(self.outputs())) {
            one.x_mut().copy_from_slice(x);
            one.quantize(compute.kernels);
            counts += self.dense(compute, &one, s, out);
        }
        s.one = one;
        counts
    }

    /// Several tokens, one after the other.
    pub(super) fn each(
        &self,
        compute: &Compute,
        x: &Activations,
        s: &mut FfnScratch,
        out: &mut [f32],
    ) -> FfnCounts {
        let (inputs, neurons, outputs) = (self.inputs(), self.neurons(), self.outputs());
        self.predict(compute, x, s);
        s.hidden.reshape(1, neurons);
        let (mut one, mut first) = (core::mem::take(&mut s.one), core::mem::take(&mut s.gate));
        one.reshape(1, inputs);
        // Where all neurons are looked at, each weight is read once for all tokens.
        let ahead = self.gate.is_none() && !self.selector.skips_first();
        if ahead {
            first.resize(x.tokens() * neurons, 0.0);
            self.up.forward(compute, x, &mut first);
        }
        let mut counts = FfnCounts::default();
        for (t, (x, out)) in x.x().chunks(inputs).zip(out.chunks_mut(outputs)).enumerate() {
            if !ahead {
                one.x_mut().copy_from_slice(x);
                one.quantize(compute.kernels);
            }
            let first = ahead.then(|| &first[t * neurons..][..neurons]);
            counts += self.sparse(compute, (&one, t), first, s, out);
        }
        (s.one, s.gate) = (one, first);
        counts
    }
}
