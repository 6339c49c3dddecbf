//! Eight floats at a time, and the kernels made of that.

use super::dot::{Dot, Pairs};
use super::{load, small};
use crate::generic::prefetch::prefetch_far;
use crate::generic::sums::DecodeStep;
use crate::generic::{float_functions, product_functions};
use core::arch::x86_64::*;
use core::marker::PhantomData;

/// Proof of AVX2, FMA and F16C, and of what `D` needs.
#[derive(Clone, Copy)]
pub(in crate::x86) struct Avx2<D = Pairs>(PhantomData<D>);

impl<D> Avx2<D> {
    /// # Safety
    /// - The CPU has AVX2, FMA and F16C, and what `D` needs.
    #[inline(always)]
    pub(in crate::x86) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl Avx2 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

float_functions!(Avx2, "avx2,fma,f16c");
product_functions!(Avx2, "avx2,fma,f16c");

/// Calls a function with target features.
macro_rules! with_avx2 {
    ($code:expr) => {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { $code }
    };
}
pub(super) use with_avx2;

impl<D: Dot> Simd for Avx2<D> {
    type F = __m256;
    type Floats = [f32; 8];
    type Halves = [u16; 8];
    type Square = [__m256; 8];
    type Wide = [__m256; 4];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [self.splat(0.0); 8]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        with_avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        [self.splat(x); 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 8]) -> __m256 {
        with_avx2!(load::floats(x))
    }

    #[inline(always)]
    fn store(self, x: __m256, out: &mut [f32; 8]) {
        with_avx2!(load::store(x, out))
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 8]) -> __m256 {
        with_avx2!(_mm256_cvtph_ps(load::bytes16(bytemuck::cast_ref::<_, [u8; 16]>(x))))
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 8]) -> __m256 {
        with_avx2!({
            let x = _mm256_cvtepu16_epi32(load::bytes16(bytemuck::cast_ref::<_, [u8; 16]>(x)));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
        })
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> Self::F {
        assert!(x.len() == 8);
        with_avx2!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))))
    }

    #[inline(always)]
    fn to_f16s(self, x: __m256) -> [u16; 8] {
        // SAFETY: `self` proves that the CPU has the features; any bits are eight integers.
        unsafe { core::mem::transmute(_mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(x)) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        with_avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, x: __m256) -> __m256 {
        with_avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x))
    }

    #[inline(always)]
    fn copysign(self, x: __m256, sign: __m256) -> __m256 {
        with_avx2!(_mm256_or_ps(
            _mm256_andnot_ps(_mm256_set1_ps(-0.0), x),
            _mm256_and_ps(_mm256_set1_ps(-0.0), sign)
        ))
    }

    #[inline(always)]
    fn round(self, x: __m256) -> __m256 {
        with_avx2!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }

    #[inline(always)]
    fn scale(self, x: __m256, n: __m256) -> __m256 {
        with_avx2!({
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            _mm256_mul_ps(_mm256_mul_ps(x, power_of_2(half)), power_of_2(_mm256_sub_epi32(n, half)))
        })
    }

    #[inline(always)]
    fn select_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        with_avx2!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        with_avx2!({
            let x = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            core::mem::transmute::<__m128, [f32; 4]>(x)
        })
    }

    #[inline(always)]
    fn transpose(self, rows: [__m256; 8]) -> [__m256; 8] {
        with_avx2!(transpose(rows))
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        prefetch_far(bytes.as_ptr(), bytes.len());
    }
}

impl GemmStep for Avx2 {
    type Panel = [[f32; 8]; 2 * gemm::COLS];

    // 12 accumulators, two vectors of weights and a value of x.
    const VECTORS: usize = 2;
    const TOKENS: usize = 6;

    #[inline(always)]
    fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>) {
        with_avx2!(multiply(job, out))
    }
}

impl DecodeStep for Avx2 {
    #[inline(always)]
    fn codes<B: Block>(self, block: &B, out: &mut [i8; 32]) {
        match B::LANE {
            Some(bits) => with_avx2!(load::store_bytes(small::lane(bits, bytemuck::bytes_of(block)), out)),
            None => block.codes(out),
        }
    }

    /// Looks 4-bit codes up, sixteen at a time.
    #[inline(always)]
    fn block<B: Block>(self, block: &B) -> Self::Wide {
        let (Some(codes), Some(nibbles)) = (B::NIBBLES, bytemuck::bytes_of(block).last_chunk::<16>()) else {
            return sums::values_of_block(self, block);
        };
        let [d, m] = sums::factors(self, block);
        let codes = with_avx2!({
            let (table, low) = (_mm_loadu_si128(codes.as_ptr().cast()), _mm_set1_epi8(15));
            let nibbles = load::bytes16(nibbles);
            let first = _mm_shuffle_epi8(table, _mm_and_si128(nibbles, low));
            let last = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16::<4>(nibbles), low));
            [first, _mm_srli_si128::<8>(first), last, _mm_srli_si128::<8>(last)]
        });
        let mut values = self.wide(0.0);
        for (codes, value) in codes.into_iter().zip(&mut values) {
            let codes = with_avx2!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
            *value = sums::scaled::<_, B>(self, codes, d, m);
        }
        values
    }
}

/// `2^n` for `n` in -126..=127.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power_of_2(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transpose(rows: [__m256; 8]) -> [__m256; 8] {
    let (mut a, mut b) = (rows, rows);
    // Pairs of rows, then fours: 4 x 4 values are transposed inside each half. Then halves change places.
    for i in (0..8).step_by(2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for i in (0..8).step_by(4) {
        a[i] = _mm256_shuffle_ps::<0b01_00_01_00>(b[i], b[i + 2]);
        a[i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(b[i], b[i + 2]);
        a[i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(b[i + 1], b[i + 3]);
        a[i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(b[i + 1], b[i + 3]);
    }
    for i in 0..4 {
        b[i] = _mm256_permute2f128_ps::<0x20>(a[i], a[i + 4]);
        b[i + 4] = _mm256_permute2f128_ps::<0x31>(a[i], a[i + 4]);
    }
    b
}
