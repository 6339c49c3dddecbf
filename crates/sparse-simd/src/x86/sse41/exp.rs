//! The exponential.

use core::arch::x86_64::*;

/// `e^x`, within 2e-7 of it relatively where that is a normal number; zero, infinity and NaN as `exp` has them.
///
/// `x = n ln 2 + r` with `|r| <= ln(2) / 2`; `e^r` by its Taylor polynomial of degree 7, whose remainder there is
/// below 6e-9, and `2^n` in two factors, because `n` reaches from -150 to 128.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn exp(x: __m128) -> __m128 {
    // ln 2 in two parts: the first has so few bits that its product with n is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    // Beyond these the result is zero or infinity. `min` and `max` return their second operand if one is NaN.
    let x = _mm_min_ps(_mm_set1_ps(89.0), x);
    let x = _mm_max_ps(_mm_set1_ps(-104.0), x);
    let n = _mm_mul_ps(x, _mm_set1_ps(core::f32::consts::LOG2_E));
    let n = _mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n);
    let r = _mm_sub_ps(x, _mm_mul_ps(n, _mm_set1_ps(LN_2_HIGH)));
    let r = _mm_sub_ps(r, _mm_mul_ps(n, _mm_set1_ps(LN_2_LOW)));
    let mut sum = _mm_set1_ps(1.0 / 5040.0);
    for reciprocal in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = _mm_add_ps(_mm_mul_ps(sum, r), _mm_set1_ps(reciprocal));
    }
    let n = _mm_cvtps_epi32(n);
    let half = _mm_srai_epi32::<1>(n);
    _mm_mul_ps(_mm_mul_ps(sum, power_of_2(half)), power_of_2(_mm_sub_epi32(n, half)))
}

/// `2^n` for `n` in -126..=127.
#[inline]
#[target_feature(enable = "sse4.1")]
fn power_of_2(n: __m128i) -> __m128 {
    _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_add_epi32(n, _mm_set1_epi32(127))))
}
