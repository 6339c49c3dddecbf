//! Blocks of 32 columns.

use super::parts::{half, word};
use super::{Arithmetic, Mins, Tile};
use crate::interleaved::ROWS;
use crate::layout::{BlockFormat, FP4_VALUES, IQ4_NL_VALUES};
use core::arch::x86_64::*;

/// Scale and minimum of a block.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    d: __m256,
    m: __m256,
}

macro_rules! arithmetic {
    ($(#[$doc:meta])* $name:ident: $exact:literal, $mins:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Arithmetic for $name {
            const EXACT: usize = $exact;
            const HALVES: bool = false;
            const MINS: Mins = Mins::$mins;
        }
    };
}

arithmetic!(
    /// Codes of four bits: sixteen products of at most 15 * 127 fit 16 bits.
    FourBits: 8, PerGroup
);
arithmetic!(
    /// Codes of five bits: eight products of at most 31 * 127 fit 16 bits.
    FiveBits: 4, PerGroup
);
arithmetic!(
    /// Codes of eight bits: two products of at most 128 * 127 fit 16 bits.
    Signed: 1, None
);

macro_rules! block_of_32 {
    ($format:ident, $arithmetic:ident, $factors:expr, $codes:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $format;

        impl Tile<1> for $format {
            const FORMAT: BlockFormat = BlockFormat::$format;
            type Arithmetic = $arithmetic;
            type Factors = Pair;

            #[inline(always)]
            unsafe fn factors(tile: *const u8) -> Pair {
                // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and
                // F16C.
                unsafe { $factors(tile) }
            }

            #[inline(always)]
            unsafe fn scale(f: &Pair, _: usize) -> __m256 {
                f.d
            }

            #[inline(always)]
            unsafe fn min(f: &Pair, _: usize) -> __m256 {
                f.m
            }

            #[inline(always)]
            unsafe fn codes<const J: usize>(tile: *const u8, _: usize, k: usize) -> __m256i {
                // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and
                // F16C.
                unsafe { $codes(tile, k) }
            }
        }
    };
}

block_of_32!(Q4_0, FourBits, centered::<8>, four_bits::<1>);
block_of_32!(Q4_1, FourBits, both, four_bits::<2>);
block_of_32!(Q5_0, FiveBits, centered::<16>, five_bits::<1>);
block_of_32!(Q5_1, FiveBits, both, five_bits::<2>);
block_of_32!(Q8_0, Signed, centered::<0>, bytes);
block_of_32!(Iq4Nl, Signed, centered::<0>, looked_up);
block_of_32!(MxFp4, FiveBits, exponents, fp4);

/// One factor; the offset of all codes as a minimum.
#[inline(always)]
unsafe fn centered<const OFFSET: i8>(tile: *const u8) -> Pair {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        let d = half(tile, 0);
        Pair { d, m: _mm256_mul_ps(d, _mm256_set1_ps(-f32::from(OFFSET))) }
    }
}

/// A scale and a minimum.
#[inline(always)]
unsafe fn both(tile: *const u8) -> Pair {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe { Pair { d: half(tile, 0), m: half(tile, 1) } }
}

/// Codes of four bits behind `halves` factors and `before` words: the low nibbles of four words, then the high ones.
#[inline(always)]
pub(super) unsafe fn nibbles(tile: *const u8, halves: usize, before: usize, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        let w = word(tile, halves, before + k % 4);
        let w = if k < 4 { w } else { _mm256_srli_epi16::<4>(w) };
        _mm256_and_si256(w, _mm256_set1_epi8(15))
    }
}

/// Codes of four bits behind `HALVES` factors.
#[inline(always)]
unsafe fn four_bits<const HALVES: usize>(tile: *const u8, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe { nibbles(tile, HALVES, 0, k) }
}

/// Codes of five bits: bit `i` of the first word belongs to column `i`, nibbles follow.
#[inline(always)]
unsafe fn five_bits<const HALVES: usize>(tile: *const u8, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        // The byte of bits, four times, and of each its own bit.
        let byte = _mm256_set1_epi32((k / 2) as i32 * 0x0101_0101);
        let own = _mm256_set1_epi32(0x0804_0201 << (k % 2 * 4));
        let rows = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C));
        let spread = _mm256_shuffle_epi8(word(tile, HALVES, 0), _mm256_add_epi8(byte, rows));
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, own), own);
        _mm256_or_si256(nibbles(tile, HALVES, 1, k), _mm256_and_si256(set, _mm256_set1_epi8(16)))
    }
}

/// Codes of eight bits, signed.
#[inline(always)]
unsafe fn bytes(tile: *const u8, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe { word(tile, 1, k) }
}

/// Codes of four bits that stand for signed values.
#[inline(always)]
unsafe fn looked_up(tile: *const u8, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe { values(&IQ4_NL_VALUES, nibbles(tile, 1, 0, k)) }
}

/// The values that nibbles stand for.
#[inline(always)]
pub(super) unsafe fn values(table: &[i8; 16], nibbles: __m256i) -> __m256i {
    // SAFETY: the caller promises that the CPU has AVX2.
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        _mm256_shuffle_epi8(table, nibbles)
    }
}

/// What is added to values of MXFP4, so that they are codes of five bits.
const FP4_OFFSET: i8 = 12;

/// The values of MXFP4 as codes.
const FP4_CODES: [i8; 16] = {
    let mut codes = FP4_VALUES;
    let mut i = 0;
    while i < codes.len() {
        codes[i] += FP4_OFFSET;
        i += 1;
    }
    codes
};

/// The scale of which a row has the exponent in a byte, as [`BlockMxFp4`](crate::layout::BlockMxFp4) says.
#[inline(always)]
unsafe fn exponents(tile: *const u8) -> Pair {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        let e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(tile.cast()));
        let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
        let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
        let is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
        let is_nan = _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255));
        let bits = _mm256_blendv_epi8(normal, small, is_small);
        // All bits set is NaN.
        let d = _mm256_castsi256_ps(_mm256_or_si256(bits, is_nan));
        Pair { d, m: _mm256_mul_ps(d, _mm256_set1_ps(-f32::from(FP4_OFFSET))) }
    }
}

/// Codes of five bits that nibbles behind the exponents stand for.
#[inline(always)]
unsafe fn fp4(tile: *const u8, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe { values(&FP4_CODES, nibbles(tile.add(ROWS), 0, 0, k)) }
}
