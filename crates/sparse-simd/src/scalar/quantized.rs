//! int8 activations and their products with quantized weights.

use crate::layout::{Block, Scales};
use crate::{MatMut, Q8, Q8Mut, Rows, int8, q8};

pub(super) fn quantize(x: &[f32], out: &mut Q8Mut<'_>) {
    let parts =
        out.q.as_chunks_mut::<32>().0.iter_mut().zip(out.d.iter_mut()).zip(out.sums.as_chunks_mut::<2>().0);
    for (x, ((q, d), sums)) in x.as_chunks::<32>().0.iter().zip(parts) {
        let inverse;
        (*d, inverse) = q8::scale(int8::magnitude(x));
        for (q, x) in q.iter_mut().zip(x) {
            *q = int8::code(*x, inverse);
        }
        for (sum, q) in sums.iter_mut().zip(q.as_chunks::<16>().0) {
            *sum = q.iter().map(|&q| i16::from(q)).sum();
        }
    }
}

/// `out[t][r]` = sum over the groups of 32 columns of `dx * (d * codes + m * minima)`, where `dx` is the
/// activations' scale and `codes` and `minima` are integers, see [`group`].
pub(super) fn matmul<B: Block>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    for r in 0..w.rows() {
        for t in 0..x.tokens() {
            out.row(t)[r] = 0.0;
        }
        for (b, block) in bytemuck::cast_slice::<u8, B>(w.row(r)).iter().enumerate() {
            let scales = block.scales();
            let mut codes = [0; 256];
            block.codes(&mut codes[..B::LEN]);
            for t in 0..x.tokens() {
                let x = x.row(t);
                let sum = &mut out.row(t)[r];
                for g in 0..B::LEN / 32 {
                    let xg = b * (B::LEN / 32) + g;
                    let q = &x.q[xg * 32..][..32];
                    let (sum_of_codes, mins) =
                        group(&scales, g, &codes[g * 32..][..32], q, &x.sums[xg * 2..][..2]);
                    // Without minima their factor is zero, which must not turn a scale of infinity into NaN.
                    let offset = if B::HAS_MIN { scales.m * mins as f32 } else { 0.0 };
                    *sum += x.d[xg] * (scales.d * sum_of_codes + offset);
                }
            }
        }
    }
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
pub(super) fn rows<B: Block>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
    for (&r, out) in active.iter().zip(out) {
        let r = r as usize;
        matmul::<B>(w.slice(r..r + 1), x, &mut MatMut::new(core::slice::from_mut(out), 1));
    }
}

/// The two sums of group `g` of a block: of sub-scale times code times activation, and of minimum times activation.
/// Both are below 2^24, so the first is exact if sub-scales are integers.
fn group(scales: &Scales, g: usize, codes: &[i8], x: &[i8], sums: &[i16]) -> (f32, i32) {
    let (mut sum, mut mins) = (0.0, 0);
    for half in 0..2 {
        let products = codes[half * 16..][..16].iter().zip(&x[half * 16..][..16]);
        let dot: i32 = products.map(|(&c, &x)| i32::from(c) * i32::from(x)).sum();
        sum += scales.sub[g * 2 + half] * dot as f32;
        mins += i32::from(scales.min[g * 2 + half]) * i32::from(sums[half]);
    }
    (sum, mins)
}
