//! Blocks of 32 columns.

use super::parts::{half, word};
use super::{Arithmetic, Mins, Tile};
use crate::layout::{BlockFormat, IQ4_NL_VALUES};
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

block_of_32!(Q4_0, FourBits, centered::<8>, nibbles::<1, 0>);
block_of_32!(Q4_1, FourBits, both, nibbles::<2, 0>);
block_of_32!(Q5_0, FiveBits, centered::<16>, five_bits::<1>);
block_of_32!(Q5_1, FiveBits, both, five_bits::<2>);
block_of_32!(Q8_0, Signed, centered::<0>, bytes);
block_of_32!(Iq4Nl, Signed, centered::<0>, looked_up);

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

/// Codes of four bits behind `HALVES` factors and `BEFORE` words: the low nibbles of four words, then the high ones.
#[inline(always)]
unsafe fn nibbles<const HALVES: usize, const BEFORE: usize>(tile: *const u8, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        let w = word(tile, HALVES, BEFORE + k % 4);
        let w = if k < 4 { w } else { _mm256_srli_epi16::<4>(w) };
        _mm256_and_si256(w, _mm256_set1_epi8(15))
    }
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
        _mm256_or_si256(nibbles::<HALVES, 1>(tile, k), _mm256_and_si256(set, _mm256_set1_epi8(16)))
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
    unsafe {
        let values = _mm256_broadcastsi128_si256(_mm_loadu_si128(IQ4_NL_VALUES.as_ptr().cast()));
        _mm256_shuffle_epi8(values, nibbles::<1, 0>(tile, k))
    }
}
