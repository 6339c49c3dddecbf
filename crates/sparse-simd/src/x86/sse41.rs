//! Kernels for SSE4.1 with SSSE3: vectors of 16 bytes, and the generic kernels on them.

use crate::generic::bits128::{Bits128, int8::InWords, level, quantized::SubScales};
use core::arch::x86_64::*;

/// Proof of SSE4.1 and SSSE3.
#[derive(Clone, Copy)]
struct Sse41(());

impl Sse41 {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn new() -> Self {
        Self(())
    }
}

level!(Sse41, "sse4.1", Level::Sse41);

/// Calls a function with target features; loads and stores are as long as the reference.
macro_rules! with_sse41 {
    ($code:expr) => {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { $code }
    };
}

impl Simd for Sse41 {
    type F = __m128;
    type Floats = [f32; 4];
    type Halves = [u16; 4];
    type Square = [__m128; 4];
    type Wide = [__m128; 8];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [self.splat(0.0); 4]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m128 {
        with_sse41!(_mm_set1_ps(x))
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        [self.splat(x); 8]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> __m128 {
        with_sse41!(_mm_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn store(self, x: __m128, out: &mut [f32; 4]) {
        with_sse41!(_mm_storeu_ps(out.as_mut_ptr(), x))
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 4]) -> __m128 {
        with_sse41!(half_to_float(upper_halves(x)))
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 4]) -> __m128 {
        with_sse41!(_mm_castsi128_ps(upper_halves(x)))
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> Self::F {
        assert!(x.len() == 4);
        with_sse41!(_mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_loadu_si32(x.as_ptr().cast()))))
    }

    #[inline(always)]
    fn to_f16s(self, x: __m128) -> [u16; 4] {
        let mut out = [0; 4];
        with_sse41!({
            let x = float_to_half(x);
            _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packus_epi32(x, x));
        });
        out
    }

    #[inline(always)]
    fn add(self, a: __m128, b: __m128) -> __m128 {
        with_sse41!(_mm_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m128, b: __m128) -> __m128 {
        with_sse41!(_mm_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m128, b: __m128) -> __m128 {
        with_sse41!(_mm_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m128, b: __m128) -> __m128 {
        with_sse41!(_mm_div_ps(a, b))
    }

    /// Rounds twice: this level has no fused operation.
    #[inline(always)]
    fn fma(self, a: __m128, b: __m128, c: __m128) -> __m128 {
        with_sse41!(_mm_add_ps(_mm_mul_ps(a, b), c))
    }

    #[inline(always)]
    fn min(self, a: __m128, b: __m128) -> __m128 {
        with_sse41!(_mm_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m128, b: __m128) -> __m128 {
        with_sse41!(_mm_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, x: __m128) -> __m128 {
        with_sse41!(_mm_andnot_ps(_mm_set1_ps(-0.0), x))
    }

    #[inline(always)]
    fn copysign(self, x: __m128, sign: __m128) -> __m128 {
        with_sse41!(_mm_or_ps(_mm_andnot_ps(_mm_set1_ps(-0.0), x), _mm_and_ps(_mm_set1_ps(-0.0), sign)))
    }

    #[inline(always)]
    fn round(self, x: __m128) -> __m128 {
        with_sse41!(_mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }

    #[inline(always)]
    fn scale(self, x: __m128, n: __m128) -> __m128 {
        with_sse41!({
            let n = _mm_cvtps_epi32(n);
            let half = _mm_srai_epi32::<1>(n);
            _mm_mul_ps(_mm_mul_ps(x, power_of_2(half)), power_of_2(_mm_sub_epi32(n, half)))
        })
    }

    #[inline(always)]
    fn select_less(self, a: __m128, b: __m128, yes: __m128, no: __m128) -> __m128 {
        with_sse41!(_mm_blendv_ps(no, yes, _mm_cmplt_ps(a, b)))
    }

    #[inline(always)]
    fn sums(self, rows: [__m128; 4]) -> [f32; 4] {
        with_sse41!({
            let [a, b, c, d] = transpose(rows);
            core::mem::transmute::<__m128, [f32; 4]>(_mm_add_ps(_mm_add_ps(a, b), _mm_add_ps(c, d)))
        })
    }

    #[inline(always)]
    fn transpose(self, rows: [__m128; 4]) -> [__m128; 4] {
        with_sse41!(transpose(rows))
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        crate::generic::prefetch::prefetch_far(bytes.as_ptr(), bytes.len());
    }

    #[inline(always)]
    fn sum(self, x: __m128) -> f32 {
        with_sse41!({
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        })
    }
}

impl GemmStep for Sse41 {
    type Panel = [[f32; 4]; 2 * gemm::COLS];

    // 8 accumulators, two vectors of weights, a value of x and a product: without FMA that needs a register.
    const VECTORS: usize = 2;
    const TOKENS: usize = 4;

    #[inline(always)]
    fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>) {
        with_sse41!(multiply(job, out))
    }
}

impl InWords for Sse41 {}

impl Bits128 for Sse41 {
    type I = __m128i;

    const WIDE: bool = false;

    #[inline(always)]
    fn load16(self, x: &[u8; 16]) -> __m128i {
        with_sse41!(_mm_loadu_si128(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn load8(self, x: &[u8; 8]) -> __m128i {
        with_sse41!(_mm_loadl_epi64(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn store16(self, x: __m128i, out: &mut [u8; 16]) {
        with_sse41!(_mm_storeu_si128(out.as_mut_ptr().cast(), x))
    }

    #[inline(always)]
    fn splat8(self, x: i8) -> __m128i {
        with_sse41!(_mm_set1_epi8(x))
    }

    #[inline(always)]
    fn splat16(self, x: i16) -> __m128i {
        with_sse41!(_mm_set1_epi16(x))
    }

    #[inline(always)]
    fn splat32(self, x: i32) -> __m128i {
        with_sse41!(_mm_set1_epi32(x))
    }

    #[inline(always)]
    fn and(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_and_si128(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_or_si128(a, b))
    }

    #[inline(always)]
    fn shl16(self, x: __m128i, by: u32) -> __m128i {
        with_sse41!(_mm_sll_epi16(x, _mm_cvtsi32_si128(by as i32)))
    }

    #[inline(always)]
    fn shr16(self, x: __m128i, by: u32) -> __m128i {
        with_sse41!(_mm_srl_epi16(x, _mm_cvtsi32_si128(by as i32)))
    }

    #[inline(always)]
    fn eq8(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_cmpeq_epi8(a, b))
    }

    #[inline(always)]
    fn add8(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_add_epi8(a, b))
    }

    #[inline(always)]
    fn sub8(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_sub_epi8(a, b))
    }

    #[inline(always)]
    fn sub16(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_sub_epi16(a, b))
    }

    #[inline(always)]
    fn mul16(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_mullo_epi16(a, b))
    }

    #[inline(always)]
    fn add32(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub32(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_sub_epi32(a, b))
    }

    #[inline(always)]
    fn max32(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_max_epi32(a, b))
    }

    #[inline(always)]
    fn look_up(self, table: __m128i, index: __m128i) -> __m128i {
        with_sse41!(_mm_shuffle_epi8(table, index))
    }

    #[inline(always)]
    fn zip_low16(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_unpacklo_epi16(a, b))
    }

    #[inline(always)]
    fn interleave4(self, [a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
        with_sse41!({
            let (low_ab, high_ab) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
            let (low_cd, high_cd) = (_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d));
            [
                _mm_unpacklo_epi16(low_ab, low_cd),
                _mm_unpackhi_epi16(low_ab, low_cd),
                _mm_unpacklo_epi16(high_ab, high_cd),
                _mm_unpackhi_epi16(high_ab, high_cd),
            ]
        })
    }

    #[inline(always)]
    fn widen_u8(self, x: __m128i) -> __m128i {
        with_sse41!(_mm_cvtepu8_epi16(x))
    }

    #[inline(always)]
    fn widen_i8(self, x: __m128i) -> __m128i {
        with_sse41!(_mm_cvtepi8_epi16(x))
    }

    #[inline(always)]
    fn even_i8(self, x: __m128i) -> __m128i {
        with_sse41!(_mm_srai_epi16::<8>(_mm_slli_epi16::<8>(x)))
    }

    #[inline(always)]
    fn odd_i8(self, x: __m128i) -> __m128i {
        with_sse41!(_mm_srai_epi16::<8>(x))
    }

    #[inline(always)]
    fn narrow_u16(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_packus_epi16(a, b))
    }

    #[inline(always)]
    fn add_products<const SIGNED: bool>(self, words: __m128i, codes: __m128i, x: __m128i) -> __m128i {
        with_sse41!(match SIGNED {
            true => _mm_add_epi16(words, signed_products(codes, x)),
            false => _mm_add_epi16(words, _mm_maddubs_epi16(codes, x)),
        })
    }

    #[inline(always)]
    fn add_words(self, sums: __m128i, words: __m128i) -> __m128i {
        with_sse41!(_mm_add_epi32(sums, _mm_madd_epi16(words, _mm_set1_epi16(1))))
    }

    #[inline(always)]
    fn group<S: Step>(self, codes: [__m128i; 2], x: [__m128i; 2], sub: __m128i, g: usize) -> __m128i {
        with_sse41!({
            let [first, second] = match S::SIGNED {
                true => [signed_products(codes[0], x[0]), signed_products(codes[1], x[1])],
                false => [_mm_maddubs_epi16(codes[0], x[0]), _mm_maddubs_epi16(codes[1], x[1])],
            };
            match S::SUB_SCALES {
                SubScales::None if S::SIGNED => {
                    _mm_add_epi32(_mm_madd_epi16(first, sub), _mm_madd_epi16(second, sub))
                }
                SubScales::None => _mm_madd_epi16(_mm_add_epi16(first, second), sub),
                SubScales::Group => _mm_madd_epi16(_mm_add_epi16(first, second), everywhere(sub, 2 * g)),
                SubScales::Half => {
                    let (a, b) = (everywhere(sub, 2 * g), everywhere(sub, 2 * g + 1));
                    _mm_add_epi32(_mm_madd_epi16(first, a), _mm_madd_epi16(second, b))
                }
            }
        })
    }

    #[inline(always)]
    fn madd(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_madd_epi16(a, b))
    }

    #[inline(always)]
    fn lane_sums(self, [a, b, c, d]: [__m128i; 4]) -> __m128i {
        with_sse41!(_mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d)))
    }

    #[inline(always)]
    fn upper_nibbles(self, x: __m128i) -> __m128i {
        with_sse41!(_mm_and_si128(_mm_srli_epi16::<4>(x), _mm_set1_epi8(15)))
    }

    #[inline(always)]
    fn to_floats(self, x: __m128i) -> __m128 {
        with_sse41!(_mm_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn bits(self, x: __m128) -> __m128i {
        with_sse41!(_mm_castps_si128(x))
    }

    #[inline(always)]
    fn to_bytes(self, [a, b, c, d]: [__m128; 4]) -> __m128i {
        with_sse41!({
            let ab = _mm_packs_epi32(_mm_cvtps_epi32(a), _mm_cvtps_epi32(b));
            let cd = _mm_packs_epi32(_mm_cvtps_epi32(c), _mm_cvtps_epi32(d));
            _mm_packs_epi16(ab, cd)
        })
    }
}

/// Products of signed bytes, added in pairs.
#[inline]
#[target_feature(enable = "sse4.1")]
fn signed_products(codes: __m128i, x: __m128i) -> __m128i {
    _mm_maddubs_epi16(_mm_abs_epi8(codes), _mm_sign_epi8(x, codes))
}

/// Number `i` of eight integers of 16 bits in all places.
#[inline]
#[target_feature(enable = "sse4.1")]
fn everywhere(x: __m128i, i: usize) -> __m128i {
    _mm_shuffle_epi8(x, _mm_set1_epi16((2 * i + ((2 * i + 1) << 8)) as i16))
}

/// Four values of 16 bits as the upper halves of 32.
#[inline]
#[target_feature(enable = "sse4.1")]
fn upper_halves(x: &[u16; 4]) -> __m128i {
    // SAFETY: 8 bytes can be read behind the reference.
    let x = unsafe { _mm_loadl_epi64(x.as_ptr().cast()) };
    _mm_unpacklo_epi16(_mm_setzero_si128(), x)
}

/// `2^n` for `n` in -126..=127.
#[inline]
#[target_feature(enable = "sse4.1")]
fn power_of_2(n: __m128i) -> __m128 {
    _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_add_epi32(n, _mm_set1_epi32(127))))
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn transpose([a, b, c, d]: [__m128; 4]) -> [__m128; 4] {
    let (low, high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    let (low2, high2) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    [
        _mm_movelh_ps(low, low2),
        _mm_movehl_ps(low2, low),
        _mm_movelh_ps(high, high2),
        _mm_movehl_ps(high2, high),
    ]
}

/// Half-precision numbers in the upper 16 bits of each lane, the lower ones zero, as floats.
#[inline]
#[target_feature(enable = "sse4.1")]
fn half_to_float(x: __m128i) -> __m128 {
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
