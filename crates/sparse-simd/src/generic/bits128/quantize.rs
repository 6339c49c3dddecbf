//! Activations to int8.

use super::Bits128;
use crate::{Q8Mut, q8};

/// See [`Kernels::quantize`](crate::Kernels::quantize).
#[inline(always)]
pub(crate) fn quantize<V: Bits128>(v: V, x: &[f32], out: &mut Q8Mut<'_>) {
    let parts = out.q.as_chunks_mut().0.iter_mut().zip(out.d.iter_mut()).zip(out.sums.as_chunks_mut().0);
    for (x, ((q, d), sums)) in x.as_chunks().0.iter().zip(parts) {
        *d = block(v, x, q, sums);
    }
}

/// Quantizes one block and returns its scale.
#[inline(always)]
fn block<V: Bits128>(v: V, x: &[f32; 32], q: &mut [i8; 32], sums: &mut [i16; 2]) -> f32 {
    let x: &[[f32; 4]; 8] = bytemuck::cast_ref(x);
    // Compared as integers, NaN is above infinity and infinity above the rest.
    let mut max = v.splat32(0);
    for x in x {
        max = v.max32(max, v.and(v.bits(v.load(x)), v.splat32(0x7FFF_FFFF)));
    }
    let [a, b, c, d] = v.lanes32(max);
    let (d, inverse) = q8::scale(f32::from_bits(a.max(b).max(c.max(d)) as u32));
    if inverse == 0.0 {
        (*q, *sums) = ([0; 32], [0; 2]);
        return d;
    }
    let inverse = v.splat(inverse);
    let mut fours = [v.splat8(0); 4];
    for (i, q) in q.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let mut values = [inverse; 4];
        for (value, x) in values.iter_mut().zip(&x[4 * i..]) {
            *value = v.mul(v.load(x), inverse);
        }
        let codes = v.to_bytes(values);
        v.store16(codes, bytemuck::cast_mut(q));
        let words = Bits128::add_products::<false>(v, v.splat8(0), v.splat8(1), codes);
        fours[i] = Bits128::add_words(v, v.splat8(0), words);
    }
    let [a, b, ..] = v.lanes32(v.lane_sums(fours));
    *sums = [a as i16, b as i16];
    d
}
