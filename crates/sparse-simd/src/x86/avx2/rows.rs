//! Norms, softmax, activations and rotation of one row.

use super::exp::exp;
use super::load::{floats, floats4, part, store, store_part, sum};
use core::arch::x86_64::*;

/// `y[i] = f(y[i], x[i])`, eight at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn update(y: &mut [f32], x: &[f32], f: impl Fn(__m256, __m256) -> __m256) {
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
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add(y: &mut [f32], x: &[f32]) {
    update(y, x, |y, x| _mm256_add_ps(y, x));
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = super::float::dot_f32(x, x) / x.len() as f32;
    let factor = _mm256_set1_ps(1.0 / libm::sqrtf(mean + eps));
    out.copy_from_slice(x);
    update(out, weight, |x, w| _mm256_mul_ps(_mm256_mul_ps(x, factor), w));
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let one = _mm256_set1_ps(1.0);
    update(gate, up, |g, u| {
        let negative = _mm256_xor_ps(g, _mm256_set1_ps(-0.0));
        _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, exp(negative))), u)
    });
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shift = _mm256_set1_ps(max);
    let mut total = _mm256_setzero_ps();
    let (blocks, rest) = x.as_chunks_mut();
    for block in blocks {
        let e = exp(_mm256_sub_ps(floats(block), shift));
        total = _mm256_add_ps(total, e);
        store(e, block);
    }
    if !rest.is_empty() {
        let e = exp(_mm256_sub_ps(part(rest, f32::NEG_INFINITY), shift));
        total = _mm256_add_ps(total, e);
        store_part(e, rest);
    }
    let factor = 1.0 / sum(total);
    for x in x {
        *x *= factor;
    }
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (fours, rest) = x.as_chunks_mut();
    let ((cos, cos_rest), (sin, sin_rest)) = (cos.as_chunks(), sin.as_chunks());
    for ((x, cos), sin) in fours.iter_mut().zip(cos).zip(sin) {
        store(rotate(floats(x), floats4(cos), floats4(sin)), x);
    }
    if !rest.is_empty() {
        let low = |x: &[f32]| _mm256_castps256_ps128(part(x, 0.0));
        store_part(rotate(part(rest, 0.0), low(cos_rest), low(sin_rest)), rest);
    }
}

/// Rotates four adjacent pairs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rotate(pairs: __m256, cos: __m128, sin: __m128) -> __m256 {
    let swapped = _mm256_permute_ps::<0b10_11_00_01>(pairs);
    _mm256_fmaddsub_ps(pairs, each_twice(cos), _mm256_mul_ps(swapped, each_twice(sin)))
}

/// Four values, each twice.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn each_twice(x: __m128) -> __m256 {
    _mm256_permutevar8x32_ps(_mm256_castps128_ps256(x), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))
}
