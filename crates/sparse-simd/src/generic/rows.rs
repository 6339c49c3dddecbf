//! Norms, softmax and rotation of one row.

use super::math::exp;
use super::products::dot;
use crate::simd::{Simd, split, split_mut};
use half::f16;

/// `y += x`.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    let ((y, y_rest), (x, x_rest)) = (split_mut::<S>(y), split::<S>(x));
    for (y, x) in y.iter_mut().zip(x) {
        s.store(s.add(s.load(y), s.load(x)), y);
    }
    for (y, x) in y_rest.iter_mut().zip(x_rest) {
        *y += x;
    }
}

#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = dot(s, x, x) / x.len() as f32;
    let factor = 1.0 / libm::sqrtf(mean + eps);
    let (blocks, rest) = split_mut::<S>(out);
    let ((x, x_rest), (weight, weight_rest)) = (split::<S>(x), split::<S>(weight));
    for ((out, x), w) in blocks.iter_mut().zip(x).zip(weight) {
        s.store(s.mul(s.mul(s.load(x), s.splat(factor)), s.load(w)), out);
    }
    for ((out, x), w) in rest.iter_mut().zip(x_rest).zip(weight_rest) {
        *out = x * factor * w;
    }
}

#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let (blocks, rest) = split::<S>(x);
    let mut total = s.splat(0.0);
    for block in blocks {
        total = s.add(total, s.load(block));
    }
    let n = x.len() as f32;
    let mean = s.sum(s.add(total, s.load_part(rest, 0.0))) / n;
    // The deviations first, so that the variance is the mean of their squares and nothing cancels.
    let (centered, centred_rest) = split_mut::<S>(out);
    let mut squares = s.splat(0.0);
    for (out, block) in centered.iter_mut().zip(blocks) {
        let x = s.sub(s.load(block), s.splat(mean));
        squares = s.fma(x, x, squares);
        s.store(x, out);
    }
    let x = s.sub(s.load_part(rest, mean), s.splat(mean));
    squares = s.fma(x, x, squares);
    s.store_part(x, centred_rest);
    let factor = 1.0 / libm::sqrtf(s.sum(squares) / n + eps);
    let (out, out_rest) = split_mut::<S>(out);
    let ((weight, weight_rest), (bias, bias_rest)) = (split::<S>(weight), split::<S>(bias));
    for ((out, w), b) in out.iter_mut().zip(weight).zip(bias) {
        s.store(s.fma(s.mul(s.load(out), s.splat(factor)), s.load(w), s.load(b)), out);
    }
    for ((out, w), b) in out_rest.iter_mut().zip(weight_rest).zip(bias_rest) {
        *out = *out * factor * w + b;
    }
}

#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let max = max(s, x);
    let shift = s.splat(max);
    let mut total = [s.splat(0.0); 2];
    let (blocks, rest) = split_mut::<S>(x);
    for (i, block) in blocks.iter_mut().enumerate() {
        let e = exp(s, s.sub(s.load(block), shift));
        total[i % 2] = s.add(total[i % 2], e);
        s.store(e, block);
    }
    if !rest.is_empty() {
        let e = exp(s, s.sub(s.load_part(rest, f32::NEG_INFINITY), shift));
        total[0] = s.add(total[0], e);
        s.store_part(e, rest);
    }
    let factor = 1.0 / s.sum(s.add(total[0], total[1]));
    let (blocks, rest) = split_mut::<S>(x);
    for block in blocks {
        s.store(s.mul(s.load(block), s.splat(factor)), block);
    }
    for x in rest {
        *x *= factor;
    }
}

/// The largest value; with NaN among them, NaN or the largest of the others.
#[inline(always)]
fn max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (blocks, rest) = split::<S>(x);
    let mut largest = [s.splat(f32::NEG_INFINITY); 4];
    for (i, block) in blocks.iter().enumerate() {
        largest[i % 4] = s.max(s.load(block), largest[i % 4]);
    }
    let pair = s.max(s.max(largest[0], largest[1]), s.max(largest[2], largest[3]));
    let mut lanes = <S::Floats as bytemuck::Zeroable>::zeroed();
    s.store(pair, &mut lanes);
    let lanes: &[f32] = bytemuck::cast_slice(core::slice::from_ref(&lanes));
    let mut max = f32::NEG_INFINITY;
    for x in lanes.iter().chain(rest) {
        max = if *x > max { *x } else { max };
    }
    max
}

#[inline(always)]
pub(crate) fn rope_halves<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = x.split_at_mut(cos.len());
    let ((a, a_rest), (b, b_rest)) = (split_mut::<S>(a), split_mut::<S>(b));
    let ((cos, cos_rest), (sin, sin_rest)) = (split::<S>(cos), split::<S>(sin));
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let (x, y, cos, sin) = (s.load(a), s.load(b), s.load(cos), s.load(sin));
        s.store(s.sub(s.mul(x, cos), s.mul(y, sin)), a);
        s.store(s.fma(x, sin, s.mul(y, cos)), b);
    }
    for (((a, b), cos), sin) in a_rest.iter_mut().zip(b_rest).zip(cos_rest).zip(sin_rest) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[inline(always)]
pub(crate) fn to_f16<S: Simd>(s: S, x: &[f32], out: &mut [f16]) {
    let (blocks, rest) = split::<S>(x);
    let (whole, out_rest) = out.split_at_mut(x.len() - rest.len());
    for (block, out) in blocks.iter().zip(bytemuck::cast_slice_mut::<f16, S::Halves>(whole)) {
        *out = s.to_f16s(s.load(block));
    }
    let last = s.to_f16s(s.load_part(rest, 0.0));
    let last: &[f16] = bytemuck::cast_slice(core::slice::from_ref(&last));
    for (out, x) in out_rest.iter_mut().zip(last) {
        *out = *x;
    }
}
