//! Between memory and registers: every access has the size of a reference to an array, so none can overrun.

use crate::layout::Half;
use core::arch::x86_64::*;

/// The lower half of the register.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes8(x: &[u8; 8]) -> __m128i {
    // SAFETY: 8 bytes can be read behind the reference.
    unsafe { _mm_loadl_epi64(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes16<T: bytemuck::Pod>(x: &[T; 16]) -> __m128i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 16 bytes can be read behind the reference.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn bytes32<T: bytemuck::Pod>(x: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 32 bytes can be read behind the reference.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store_bytes(x: __m256i, out: &mut [i8; 32]) {
    // SAFETY: 32 bytes can be written behind the reference.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn words16(x: &[i16; 16]) -> __m256i {
    // SAFETY: 32 bytes can be read behind the reference.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats(x: &[f32; 8]) -> __m256 {
    // SAFETY: 8 floats can be read behind the reference.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn floats4(x: &[f32; 4]) -> __m128 {
    // SAFETY: 4 floats can be read behind the reference.
    unsafe { _mm_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(x: __m256, out: &mut [f32; 8]) {
    // SAFETY: 8 floats can be written behind the reference.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn half(x: Half) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(x.to_bits()))))
}

/// Up to eight values, the rest of the register `fill`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn part(x: &[f32], fill: f32) -> __m256 {
    let mut all = [fill; 8];
    for (to, from) in all.iter_mut().zip(x) {
        *to = *from;
    }
    floats(&all)
}

/// The first values of a register, as many as `out` takes, eight at most.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store_part(x: __m256, out: &mut [f32]) {
    let mut all = [0.0; 8];
    store(x, &mut all);
    for (to, from) in out.iter_mut().zip(all) {
        *to = from;
    }
}

/// The sum of the eight values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
