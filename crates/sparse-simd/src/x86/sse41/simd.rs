//! Four floats at a time, and the kernels made of that.

use super::{load, small};
use crate::generic::{float_functions, product_functions};
use crate::x86::shared::prefetch_far;
use core::arch::x86_64::*;

/// Proof of SSE4.1.
#[derive(Clone, Copy)]
pub(super) struct Sse41(());

impl Sse41 {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

float_functions!(Sse41, "sse4.1");
product_functions!(Sse41, "sse4.1");

/// Calls a function with target features.
macro_rules! with_sse41 {
    ($code:expr) => {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { $code }
    };
}
pub(super) use with_sse41;

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
        with_sse41!(load::floats(x))
    }

    #[inline(always)]
    fn store(self, x: __m128, out: &mut [f32; 4]) {
        with_sse41!(load::store(x, out))
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 4]) -> __m128 {
        with_sse41!(load::half_to_float(upper_halves(x)))
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
        with_sse41!(load::store_halves(x, &mut out));
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
        prefetch_far(bytes.as_ptr(), bytes.len());
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

impl DecodeStep for Sse41 {
    #[inline(always)]
    fn codes<B: Block>(self, block: &B, out: &mut [i8; 32]) {
        match (B::LANE, out.as_chunks_mut().0) {
            (Some(bits), [low, high]) => with_sse41!({
                let codes = small::lane(bits, bytemuck::bytes_of(block));
                load::store_bytes(codes[0], low);
                load::store_bytes(codes[1], high);
            }),
            _ => block.codes(out),
        }
    }
}

/// Four values of 16 bits as the upper halves of 32.
#[inline]
#[target_feature(enable = "sse4.1")]
fn upper_halves(x: &[u16; 4]) -> __m128i {
    let x = load::bytes8(bytemuck::cast_ref::<_, [u8; 8]>(x));
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
