//! Sixteen floats at a time, and the kernels made of that.

use super::lanes;
use crate::generic::float_functions;
use crate::generic::prefetch::prefetch_far;
use crate::generic::sums::DecodeStep;
use core::arch::x86_64::*;

/// Proof of this level's features.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

float_functions!(Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi");

/// Calls a function with target features.
macro_rules! with_avx512 {
    ($code:expr) => {
        // SAFETY: `self` proves that the CPU has the features; loads and stores are as long as the reference.
        unsafe { $code }
    };
}

impl Simd for Avx512 {
    type F = __m512;
    type Floats = [f32; 16];
    type Halves = [u16; 16];
    type Square = [__m512; 16];
    type Wide = [__m512; 2];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [self.splat(0.0); 16]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        with_avx512!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        [self.splat(x); 2]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> __m512 {
        with_avx512!(_mm512_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn store(self, x: __m512, out: &mut [f32; 16]) {
        with_avx512!(_mm512_storeu_ps(out.as_mut_ptr(), x))
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 16]) -> __m512 {
        with_avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 16]) -> __m512 {
        with_avx512!({
            let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
        })
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> Self::F {
        assert!(x.len() == 16);
        with_avx512!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))))
    }

    #[inline(always)]
    fn to_f16s(self, x: __m512) -> [u16; 16] {
        // Any bits are sixteen integers.
        with_avx512!(core::mem::transmute(_mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(x)))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with_avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, x: __m512) -> __m512 {
        with_avx512!(_mm512_andnot_ps(_mm512_set1_ps(-0.0), x))
    }

    #[inline(always)]
    fn copysign(self, x: __m512, sign: __m512) -> __m512 {
        with_avx512!(_mm512_or_ps(
            _mm512_andnot_ps(_mm512_set1_ps(-0.0), x),
            _mm512_and_ps(_mm512_set1_ps(-0.0), sign)
        ))
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        with_avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }

    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        with_avx512!(_mm512_scalef_ps(x, n))
    }

    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        with_avx512!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes))
    }

    #[inline(always)]
    fn sums(self, x: [__m512; 4]) -> [f32; 4] {
        with_avx512!(sums(x))
    }

    #[inline(always)]
    fn transpose(self, rows: [__m512; 16]) -> [__m512; 16] {
        // The bits of floats and of integers, which `transpose` takes, are vectors of the same size.
        with_avx512!({
            let rows = core::mem::transmute::<[__m512; 16], [__m512i; 16]>(rows);
            core::mem::transmute::<[__m512i; 16], [__m512; 16]>(super::transpose::transpose(&rows))
        })
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        prefetch_far(bytes.as_ptr(), bytes.len());
    }
}

impl GemmStep for Avx512 {
    type Panel = [[f32; 16]; 2 * gemm::COLS];

    // 24 accumulators, two vectors of weights; values of x are operands in memory.
    const VECTORS: usize = 2;
    const TOKENS: usize = 12;

    #[inline(always)]
    fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>) {
        with_avx512!(multiply(job, out))
    }
}

impl DecodeStep for Avx512 {
    #[inline(always)]
    fn codes<B: Block>(self, block: &B, out: &mut [i8; 32]) {
        match B::LANE {
            Some(bits) => with_avx512!({
                let codes = lanes::codes(bits, bytemuck::bytes_of(block));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
            }),
            None => block.codes(out),
        }
    }

    /// Looks 4-bit codes up in a table of the sixteen values that they stand for in this block.
    #[inline(always)]
    fn block<B: Block>(self, block: &B) -> Self::Wide {
        let (Some(codes), Some(nibbles)) = (B::NIBBLES, bytemuck::bytes_of(block).last_chunk::<16>()) else {
            return sums::values_of_block(self, block);
        };
        let [d, m] = sums::factors(self, block);
        let table = sums::scaled::<_, B>(self, self.bytes(&codes), d, m);
        with_avx512!({
            // The four low bits of each index count.
            let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(nibbles.as_ptr().cast()));
            let high = _mm512_srli_epi32::<4>(low);
            [_mm512_permutexvar_ps(low, table), _mm512_permutexvar_ps(high, table)]
        })
    }
}

/// The sum of the lanes of each vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn sums(x: [__m512; 4]) -> [f32; 4] {
    let mut halves = [_mm256_setzero_ps(); 4];
    for (half, x) in halves.iter_mut().zip(x) {
        *half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    }
    let [a, b, c, d] = halves;
    let x = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let mut sums = [0.0; 4];
    // SAFETY: four floats can be written there.
    unsafe { _mm_storeu_ps(sums.as_mut_ptr(), x) };
    sums
}
