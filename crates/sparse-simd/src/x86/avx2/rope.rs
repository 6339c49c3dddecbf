//! Rotation of adjacent pairs.

use super::load::{floats, floats4, part, store, store_part};
use core::arch::x86_64::*;

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
