//! Between memory and registers: every access has the size of a reference to an array, so none can overrun.

use core::arch::x86_64::*;

#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn bytes16<T: bytemuck::Pod>(x: &[T; 16]) -> __m128i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 16 bytes can be read behind the reference.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

/// The lower half of the register.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn bytes8<T: bytemuck::Pod>(x: &[T; 8]) -> __m128i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 8 bytes can be read behind the reference.
    unsafe { _mm_loadl_epi64(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn bytes32<T: bytemuck::Pod>(x: &[T; 32]) -> [__m128i; 2] {
    let halves = x.as_chunks().0;
    [bytes16(&halves[0]), bytes16(&halves[1])]
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn store_bytes(x: __m128i, out: &mut [i8; 16]) {
    // SAFETY: 16 bytes can be written behind the reference.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn words8(x: &[i16; 8]) -> __m128i {
    // SAFETY: 16 bytes can be read behind the reference.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn floats(x: &[f32; 4]) -> __m128 {
    // SAFETY: 4 floats can be read behind the reference.
    unsafe { _mm_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn store(x: __m128, out: &mut [f32; 4]) {
    // SAFETY: 4 floats can be written behind the reference.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), x) }
}

/// Stores with rounding to nearest, ties to even.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn store_halves(x: __m128, out: &mut [u16; 4]) {
    let x = float_to_half(x);
    // SAFETY: 8 bytes can be written behind the reference.
    unsafe { _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packus_epi32(x, x)) }
}

/// Half-precision numbers in the upper 16 bits of each lane, the lower ones zero, as floats.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn half_to_float(x: __m128i) -> __m128 {
    const EXPONENT: i32 = 0x1F << 23;
    // Sign and fraction where floats have them; the exponent is five bits and its bias is short by 112. Scaling by
    // 2^112 mends the bias, of subnormal numbers too.
    let x = _mm_and_si128(_mm_srai_epi32::<3>(x), _mm_set1_epi32(0x8FFF_E000_u32 as i32));
    let scaled = _mm_mul_ps(_mm_castsi128_ps(x), _mm_set1_ps(f32::from_bits((127 + 112) << 23)));
    // Infinity and NaN have all bits of the exponent set, before and after.
    let exponent = _mm_set1_epi32(EXPONENT);
    let special = _mm_cmpeq_epi32(_mm_and_si128(x, exponent), exponent);
    let exponent = _mm_and_si128(special, _mm_set1_epi32(0xFF << 23));
    _mm_or_ps(scaled, _mm_castsi128_ps(exponent))
}

/// Floats as half-precision numbers in the lower 16 bits of each lane, rounded to nearest, ties to even.
#[inline]
#[target_feature(enable = "sse4.1")]
fn float_to_half(x: __m128) -> __m128i {
    const NORMAL: i32 = (127 - 14) << 23;
    const TOO_LARGE: i32 = (127 + 16) << 23;
    let x = _mm_castps_si128(x);
    let size = _mm_and_si128(x, _mm_set1_epi32(0x7FFF_FFFF));
    // 13 bits of the fraction go: just less than half of what is kept last rounds up, half does if that is odd.
    let odd = _mm_and_si128(_mm_srli_epi32::<13>(size), _mm_set1_epi32(1));
    let rebias_and_round = _mm_set1_epi32(0xFFF - (112 << 23));
    let normal = _mm_srli_epi32::<13>(_mm_add_epi32(_mm_add_epi32(size, rebias_and_round), odd));
    // Next to one half floats are as far apart as subnormal halves: the addition rounds.
    let one_half = _mm_set1_ps(0.5);
    let subnormal = _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(size), one_half));
    let subnormal = _mm_sub_epi32(subnormal, _mm_castps_si128(one_half));
    let is_nan = _mm_cmpgt_epi32(size, _mm_set1_epi32(0xFF << 23));
    let special = _mm_or_si128(_mm_set1_epi32(0x7C00), _mm_and_si128(is_nan, _mm_set1_epi32(0x200)));
    let is_subnormal = _mm_cmplt_epi32(size, _mm_set1_epi32(NORMAL));
    let is_special = _mm_cmpgt_epi32(size, _mm_set1_epi32(TOO_LARGE - 1));
    let half = _mm_blendv_epi8(normal, subnormal, is_subnormal);
    let half = _mm_blendv_epi8(half, special, is_special);
    let sign = _mm_and_si128(_mm_srli_epi32::<16>(x), _mm_set1_epi32(0x8000));
    _mm_or_si128(half, sign)
}

/// The sum of the four values.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn sum(x: __m128) -> f32 {
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
