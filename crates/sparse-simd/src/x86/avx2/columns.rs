//! Products with weights stored by columns.

use super::load::bytes16;
use super::quantised::Step;
use crate::BlockFormat;
use crate::columns::{All, SubScales};
use crate::layout::*;
use crate::x86::columns::{CHUNK, ColumnKernel, Fours, Group, sum};
use crate::{Columns, MatMut, Q8};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// A format whose codes may be stored by columns.
pub(super) trait ColumnStep: Step {
    const FORMAT: BlockFormat;
    /// How many fours of products fit 16 bits: `2 * 127` times the largest code each.
    const FIT: usize;

    /// Half `H` of the codes of a chunk of a column, as [`Step::codes`] has them, in the order of
    /// [`place`](crate::columns::place).
    ///
    /// # Safety
    /// - The CPU has AVX2, FMA and F16C.
    /// - The chunk can be read at `at`.
    unsafe fn half<const H: usize>(at: *const u8) -> __m256i;
}

/// # Safety
/// As for [`SparseQ8`](crate::kernels::SparseQ8).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn axpy<S: ColumnStep>(
    w: Columns<'_>,
    active: &[u32],
    h: Q8<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    // SAFETY: the caller's promises.
    unsafe { sum::<Kernel<S>, _>(w, active, h, rows, out) }
}

/// # Safety
/// As for [`SparseQ8`](crate::kernels::SparseQ8).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul<S: ColumnStep>(
    w: Columns<'_>,
    x: Q8<'_>,
    rows: Range<usize>,
    out: &mut MatMut<'_>,
) {
    // A chunk of rows stays in a cache while it is multiplied with all tokens.
    for from in rows.clone().step_by(CHUNK) {
        let range = from..rows.end.min(from + CHUNK);
        for t in 0..x.tokens() {
            let out = &mut out.row(t)[range.start - rows.start..range.end - rows.start];
            // SAFETY: the caller's promises.
            unsafe { sum::<Kernel<S>, _>(w, All(w.cols()), x.row(t), range.clone(), out) };
        }
    }
}

/// The kernel of a format.
struct Kernel<S>(PhantomData<S>);

impl<S: ColumnStep> ColumnKernel for Kernel<S> {
    const FORMAT: BlockFormat = S::FORMAT;
    const OFFSET: i32 = S::CENTRE as i32;
    const MINS: i32 = if !S::MINS {
        0
    } else if S::FORMAT.block_len() == 32 {
        1
    } else {
        -1
    };

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn chunk(columns: &Fours, offset: usize, group: &Group, row: usize, out: &mut [f32; CHUNK]) {
        // SAFETY: the caller's promises.
        let halves = unsafe { [products::<S, 0>(columns, offset), products::<S, 1>(columns, offset)] };
        let (dh, total) = (_mm256_set1_ps(group.dh), _mm256_set1_ps(group.total));
        for (v, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let codes = _mm256_add_epi32(halves[v % 2][v / 2], _mm256_set1_epi32(group.begin));
            // SAFETY: the caller's promises.
            let (scales, mins) = unsafe { factors::<S>(group, row + 8 * v) };
            let before = super::load::floats(out);
            let mut sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(codes), _mm256_mul_ps(scales, dh), before);
            if S::MINS {
                sum = _mm256_fmadd_ps(mins, total, sum);
            }
            super::load::store(sum, out);
        }
    }
}

/// The integer sums of half `H` of a chunk of all columns, without offset: vector `k` has rows `16 k + 8 H..`.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C.
/// - The format is that of `S`, and the columns have the chunk.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<S: ColumnStep, const H: usize>(columns: &Fours, offset: usize) -> [__m256i; 4] {
    let ones = _mm256_set1_epi16(1);
    let (mut sums, mut pairs) = ([_mm256_setzero_si256(); 4], [_mm256_setzero_si256(); 4]);
    let mut fit = 0;
    for (&[a, b, c, d], h) in columns.iter() {
        // SAFETY: the caller's promises.
        let (a, b, c, d) = unsafe {
            (
                S::half::<H>(a.wrapping_add(offset)),
                S::half::<H>(b.wrapping_add(offset)),
                S::half::<H>(c.wrapping_add(offset)),
                S::half::<H>(d.wrapping_add(offset)),
            )
        };
        let (low_ab, high_ab) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let (low_cd, high_cd) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
        let codes = [
            _mm256_unpacklo_epi16(low_ab, low_cd),
            _mm256_unpackhi_epi16(low_ab, low_cd),
            _mm256_unpacklo_epi16(high_ab, high_cd),
            _mm256_unpackhi_epi16(high_ab, high_cd),
        ];
        let h = _mm256_set1_epi32(h);
        fit += 1;
        for k in 0..4 {
            let two = if S::SIGNED {
                _mm256_maddubs_epi16(_mm256_abs_epi8(codes[k]), _mm256_sign_epi8(h, codes[k]))
            } else {
                _mm256_maddubs_epi16(codes[k], h)
            };
            pairs[k] = _mm256_add_epi16(pairs[k], two);
            if fit == S::FIT {
                sums[k] = _mm256_add_epi32(sums[k], _mm256_madd_epi16(pairs[k], ones));
                pairs[k] = _mm256_setzero_si256();
            }
        }
        fit %= S::FIT;
    }
    for (sum, pairs) in sums.iter_mut().zip(pairs) {
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
    }
    sums
}

/// The scales and minima of rows `row..row + 8`.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C.
/// - The group's format is that of `S`, and it has the rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn factors<S: ColumnStep>(group: &Group, row: usize) -> (__m256, __m256) {
    // SAFETY: the caller's promises.
    let halves = |at: *const u8| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.wrapping_add(2 * row).cast())) };
    // SAFETY: the caller's promises.
    let eight = |at: *const u8| unsafe { _mm_loadl_epi64(at.wrapping_add(row).cast()) };
    let signed = |x| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x));
    let d = halves(group.d);
    let m = if S::MINS { halves(group.m) } else { _mm256_setzero_ps() };
    match <Kernel<S> as ColumnKernel>::RECIPE.subs {
        SubScales::None => (d, m),
        SubScales::Scale => (_mm256_mul_ps(d, signed(eight(group.scale))), m),
        SubScales::Both => {
            (_mm256_mul_ps(d, signed(eight(group.scale))), _mm256_mul_ps(m, signed(eight(group.min))))
        }
        SubScales::Nibbles => {
            let (both, mask) = (eight(group.scale), _mm_set1_epi8(15));
            let low = signed(_mm_and_si128(both, mask));
            let high = signed(_mm_and_si128(_mm_srli_epi16::<4>(both), mask));
            (_mm256_mul_ps(d, low), _mm256_mul_ps(m, high))
        }
    }
}

/// 32 codes of four bits.
///
/// # Safety
/// - 32 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn four_bits<const H: usize>(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let both = unsafe { _mm256_loadu_si256(at.cast()) };
    let half = if H == 0 { both } else { _mm256_srli_epi16::<4>(both) };
    _mm256_and_si256(half, _mm256_set1_epi8(15))
}

/// 32 codes of two bits.
///
/// # Safety
/// - 16 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn two_bits<const H: usize>(at: *const u8) -> __m256i {
    let (a, b) = (4 * H as i32, 4 * H as i32 + 2);
    // SAFETY: the caller's promise.
    let all = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(at.cast()) });
    let half = _mm256_srlv_epi32(all, _mm256_setr_epi32(a, a, a, a, b, b, b, b));
    _mm256_and_si256(half, _mm256_set1_epi8(3))
}

/// 32 single bits, as the one of `bit` in a byte each.
///
/// # Safety
/// - 8 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one_bit<const H: usize>(at: *const u8, bit: i8) -> __m256i {
    // SAFETY: the caller's promise.
    let bits = unsafe { at.add(4 * H).cast::<[u8; 4]>().read() };
    _mm256_and_si256(super::small::spread_bits(bits), _mm256_set1_epi8(bit))
}

macro_rules! column_steps {
    ($($step:ty: $format:ident, $fit:literal, |$at:ident, $half:ident| $codes:expr;)*) => {$(
        impl ColumnStep for $step {
            const FORMAT: BlockFormat = BlockFormat::$format;
            const FIT: usize = $fit;

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn half<const $half: usize>($at: *const u8) -> __m256i {
                // SAFETY: the caller's promise: a chunk has 8 bytes per bit of a code.
                unsafe { $codes }
            }
        }
    )*};
}

column_steps! {
    [BlockQ4_0; 8]: Q4_0, 8, |at, H| four_bits::<H>(at);
    [BlockQ4_1; 8]: Q4_1, 8, |at, H| four_bits::<H>(at);
    [BlockQ5_0; 8]: Q5_0, 4, |at, H| _mm256_or_si256(four_bits::<H>(at), one_bit::<H>(at.add(32), 16));
    [BlockQ5_1; 8]: Q5_1, 4, |at, H| _mm256_or_si256(four_bits::<H>(at), one_bit::<H>(at.add(32), 16));
    [BlockQ8_0; 8]: Q8_0, 1, |at, H| _mm256_loadu_si256(at.add(32 * H).cast());
    BlockQ2K: Q2K, 8, |at, H| two_bits::<H>(at);
    BlockQ3K: Q3K, 8, |at, H| _mm256_or_si256(two_bits::<H>(at), one_bit::<H>(at.add(16), 4));
    BlockQ4K: Q4K, 8, |at, H| four_bits::<H>(at);
    BlockQ5K: Q5K, 4, |at, H| _mm256_or_si256(four_bits::<H>(at), one_bit::<H>(at.add(32), 16));
    BlockQ6K: Q6K, 2, |at, H| {
        _mm256_or_si256(four_bits::<H>(at), _mm256_slli_epi16::<4>(two_bits::<H>(at.add(32))))
    };
    [BlockBit3; 8]: Bit3, 8, |at, H| _mm256_or_si256(two_bits::<H>(at), one_bit::<H>(at.add(16), 4));
    [BlockBit7; 8]: Bit7, 1, |at, H| {
        let six = _mm256_or_si256(four_bits::<H>(at), _mm256_slli_epi16::<4>(two_bits::<H>(at.add(32))));
        _mm256_or_si256(six, one_bit::<H>(at.add(48), 64))
    };
    [BlockIq4Nl; 8]: Iq4Nl, 1, |at, H| {
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes16(&IQ4_NL_VALUES)), four_bits::<H>(at))
    };
}
