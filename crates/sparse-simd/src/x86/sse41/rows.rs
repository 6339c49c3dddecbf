//! Norms, softmax and activations of one row.

use super::exp::exp;
use super::load::{floats, part, store, store_part, sum};
use core::arch::x86_64::*;

/// `y[i] = f(y[i], x[i])`, four at a time.
#[inline]
#[target_feature(enable = "sse4.1")]
fn update(y: &mut [f32], x: &[f32], f: impl Fn(__m128, __m128) -> __m128) {
    let (y, y_rest) = y.as_chunks_mut();
    let (x, x_rest) = x.as_chunks();
    for (y, x) in y.iter_mut().zip(x) {
        store(f(floats(y), floats(x)), y);
    }
    if !y_rest.is_empty() {
        store_part(f(part(y_rest, 0.0), part(x_rest, 0.0)), y_rest);
    }
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = super::float::dot_f32(x, x) / x.len() as f32;
    let factor = 1.0 / libm::sqrtf(mean + eps);
    for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
        *y = x * factor * w;
    }
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let one = _mm_set1_ps(1.0);
    update(gate, up, |g, u| {
        let negative = _mm_xor_ps(g, _mm_set1_ps(-0.0));
        _mm_mul_ps(_mm_div_ps(g, _mm_add_ps(one, exp(negative))), u)
    });
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn softmax(x: &mut [f32]) {
    let shift = _mm_set1_ps(max(x));
    let mut total = _mm_setzero_ps();
    let (blocks, rest) = x.as_chunks_mut();
    for block in blocks {
        let e = exp(_mm_sub_ps(floats(block), shift));
        total = _mm_add_ps(total, e);
        store(e, block);
    }
    if !rest.is_empty() {
        let e = exp(_mm_sub_ps(part(rest, f32::NEG_INFINITY), shift));
        total = _mm_add_ps(total, e);
        store_part(e, rest);
    }
    let factor = 1.0 / sum(total);
    for x in x {
        *x *= factor;
    }
}

/// The largest value but NaN.
#[inline]
#[target_feature(enable = "sse4.1")]
fn max(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks();
    let mut max = part(rest, f32::NEG_INFINITY);
    max = _mm_max_ps(max, _mm_set1_ps(f32::NEG_INFINITY));
    for block in blocks {
        // Returns the second operand if one is NaN.
        max = _mm_max_ps(floats(block), max);
    }
    max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)))
}
