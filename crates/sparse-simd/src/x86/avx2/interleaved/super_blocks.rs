//! Blocks of 256 columns.

use super::parts::{half, twice, word};
use super::small::{FiveBits, FourBits, Signed, nibbles, values};
use super::{Arithmetic, Mins, Tile};
use crate::layout::{BlockFormat, IQ4_NL_VALUES};
use core::arch::x86_64::*;

/// Scales and minima of eight groups.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    d: [__m256; 8],
    m: [__m256; 8],
}

/// The factors of Q4_K and Q5_K: words 0 to 2 have scales and minima of six bits.
#[inline(always)]
unsafe fn k_factors(tile: *const u8) -> Groups {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        let (d, m) = (half(tile, 0), half(tile, 1));
        let m = _mm256_xor_ps(m, _mm256_set1_ps(-0.0));
        let [a, b, c] = [word(tile, 2, 0), word(tile, 2, 1), word(tile, 2, 2)];
        let six = _mm256_set1_epi8(63);
        let scales = [_mm256_and_si256(a, six), fold(c, a)];
        let mins = [_mm256_and_si256(b, six), fold(_mm256_srli_epi32::<4>(c), b)];
        let mut groups = Groups { d: [d; 8], m: [m; 8] };
        for h in 0..2 {
            spread(scales[h], d, groups.d.as_chunks_mut::<4>().0.get_unchecked_mut(h));
            spread(mins[h], m, groups.m.as_chunks_mut::<4>().0.get_unchecked_mut(h));
        }
        groups
    }
}

/// The low nibbles of `low`, and above them the top two bits of the bytes of `high`.
#[inline(always)]
unsafe fn fold(low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        let high = _mm256_and_si256(_mm256_srli_epi32::<2>(high), _mm256_set1_epi8(0x30));
        _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), high)
    }
}

/// The four bytes of each row, times `factor`.
#[inline(always)]
unsafe fn spread(bytes: __m256i, factor: __m256, out: &mut [__m256; 4]) {
    // SAFETY: the caller promises that the CPU has AVX2, FMA and F16C.
    unsafe {
        let low = _mm256_set1_epi32(255);
        out[0] = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, low));
        out[1] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32::<8>(bytes), low));
        out[2] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32::<16>(bytes), low));
        out[3] = _mm256_cvtepi32_ps(_mm256_srli_epi32::<24>(bytes));
        for out in out {
            *out = _mm256_mul_ps(*out, factor);
        }
    }
}

macro_rules! k_format {
    ($name:ident, $arithmetic:ident, $codes:ident) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Tile<2> for $name {
            const FORMAT: BlockFormat = BlockFormat::$name;
            type Arithmetic = $arithmetic;
            type Factors = Groups;

            #[inline(always)]
            unsafe fn factors(tile: *const u8) -> Groups {
                // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and
                // F16C.
                unsafe { k_factors(tile) }
            }

            #[inline(always)]
            unsafe fn scale(f: &Groups, g: usize) -> __m256 {
                f.d[g]
            }

            #[inline(always)]
            unsafe fn min(f: &Groups, g: usize) -> __m256 {
                f.m[g]
            }

            #[inline(always)]
            unsafe fn codes<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
                // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and
                // F16C.
                unsafe { $codes::<J>(tile, run, k) }
            }
        }
    };
}

k_format!(Q4K, FourBits, k_nibbles);
k_format!(Q5K, FiveBits, k_five_bits);

/// Codes of four bits behind the scales.
#[inline(always)]
unsafe fn k_nibbles<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe { nibble::<J>(word(tile, 2, 3 + 8 * run + k)) }
}

/// Codes of five bits: eight words of fifth bits are behind the scales, a bit for each group.
#[inline(always)]
unsafe fn k_five_bits<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
    unsafe {
        let low = nibble::<J>(word(tile, 2, 11 + 8 * run + k));
        let bits = _mm256_srl_epi16(word(tile, 2, 3 + k), _mm_cvtsi32_si128(2 * run as i32));
        let fifth = if J == 0 { _mm256_slli_epi16::<4>(bits) } else { _mm256_slli_epi16::<3>(bits) };
        _mm256_or_si256(low, _mm256_and_si256(fifth, _mm256_set1_epi8(16)))
    }
}

/// The low nibbles of a word, or the high ones.
#[inline(always)]
unsafe fn nibble<const J: usize>(word: __m256i) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        let word = if J == 0 { word } else { _mm256_srli_epi16::<4>(word) };
        _mm256_and_si256(word, _mm256_set1_epi8(15))
    }
}

/// Field `J` of two bits of each byte of `word`, as bits `AT..AT + 2`.
#[inline(always)]
unsafe fn two_bits<const J: usize, const AT: i32>(word: __m256i) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        let shifted = match AT - 2 * J as i32 {
            4 => _mm256_slli_epi16::<4>(word),
            2 => _mm256_slli_epi16::<2>(word),
            0 => word,
            -2 => _mm256_srli_epi16::<2>(word),
            -4 => _mm256_srli_epi16::<4>(word),
            _ => _mm256_srli_epi16::<6>(word),
        };
        _mm256_and_si256(shifted, _mm256_set1_epi8(3 << AT))
    }
}

/// A scale, the high bits of scales of six bits, 32 too large, their low bits, then places in a table.
#[derive(Clone, Copy)]
pub(super) struct Iq4Xs;

impl Tile<1> for Iq4Xs {
    const FORMAT: BlockFormat = BlockFormat::Iq4Xs;
    type Arithmetic = Signed;
    type Factors = [__m256; 8];

    #[inline(always)]
    unsafe fn factors(tile: *const u8) -> [__m256; 8] {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe {
            let d = half(tile, 0);
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(tile.add(16).cast()));
            let low = word(tile, 2, 0);
            let mut scales = [d; 8];
            for (g, scale) in scales.iter_mut().enumerate() {
                let low = _mm256_srl_epi32(low, _mm_cvtsi32_si128(4 * g as i32));
                let high = _mm256_srl_epi32(high, _mm_cvtsi32_si128(2 * g as i32));
                let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
                let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
                let six = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
                *scale = _mm256_mul_ps(d, _mm256_cvtepi32_ps(six));
            }
            scales
        }
    }

    #[inline(always)]
    unsafe fn scale(f: &[__m256; 8], g: usize) -> __m256 {
        f[g]
    }

    #[inline(always)]
    unsafe fn codes<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe { values(&IQ4_NL_VALUES, nibbles(tile, 2, 1 + 4 * run, k)) }
    }
}

/// Scales and minima in nibbles, then codes of two bits.
#[derive(Clone, Copy)]
pub(super) struct Q2K;

impl Arithmetic for Q2K {
    const EXACT: usize = 4;
    const HALVES: bool = true;
    const MINS: Mins = Mins::PerHalf;
}

impl Tile<4> for Q2K {
    const FORMAT: BlockFormat = BlockFormat::Q2K;
    type Arithmetic = Self;
    type Factors = [__m256; 2];

    #[inline(always)]
    unsafe fn factors(tile: *const u8) -> [__m256; 2] {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe { [half(tile, 0), _mm256_xor_ps(half(tile, 1), _mm256_set1_ps(-0.0))] }
    }

    #[inline(always)]
    unsafe fn scale(f: &[__m256; 2], _: usize) -> __m256 {
        f[0]
    }

    #[inline(always)]
    unsafe fn min(f: &[__m256; 2], _: usize) -> __m256 {
        f[1]
    }

    #[inline(always)]
    unsafe fn half_scale(tile: *const u8, g: usize, i: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe {
            let scales = _mm256_and_si256(word(tile, 2, g / 2), _mm256_set1_epi8(15));
            _mm256_srli_epi16::<8>(twice(scales, g % 2 * 2 + i))
        }
    }

    #[inline(always)]
    unsafe fn half_mins(tile: *const u8, g: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe {
            let mins = _mm256_and_si256(_mm256_srli_epi16::<4>(word(tile, 2, g / 2)), _mm256_set1_epi8(15));
            let [first, second] = [twice(mins, g % 2 * 2), twice(mins, g % 2 * 2 + 1)];
            _mm256_srli_epi16::<8>(_mm256_blend_epi16::<0b1010_1010>(first, second))
        }
    }

    #[inline(always)]
    unsafe fn codes<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe { two_bits::<J, 0>(word(tile, 2, 4 + 8 * run + k)) }
    }
}

/// Third bits, two bits of the codes, then scales of six bits, 32 too large.
#[derive(Clone, Copy)]
pub(super) struct Q3K;

impl Arithmetic for Q3K {
    const EXACT: usize = 4;
    const HALVES: bool = true;
    const OFFSET: i16 = 4;
    const MINS: Mins = Mins::None;
}

impl Tile<4> for Q3K {
    const FORMAT: BlockFormat = BlockFormat::Q3K;
    type Arithmetic = Self;
    type Factors = __m256;

    #[inline(always)]
    unsafe fn factors(tile: *const u8) -> __m256 {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe { half(tile, 0) }
    }

    #[inline(always)]
    unsafe fn scale(f: &__m256, _: usize) -> __m256 {
        *f
    }

    #[inline(always)]
    unsafe fn half_scale(tile: *const u8, g: usize, i: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe {
            // Scales 4 (g / 2)..: low nibbles of two words, then high ones; two bits of the third.
            let low = word(tile, 1, 24 + g / 2 % 2);
            let low = _mm256_srl_epi16(low, _mm_cvtsi32_si128((g / 4 * 4) as i32));
            let high = _mm256_srl_epi16(word(tile, 1, 26), _mm_cvtsi32_si128((g / 2 * 2) as i32));
            let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
            let high = _mm256_slli_epi16::<4>(_mm256_and_si256(high, _mm256_set1_epi8(3)));
            let scales = _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
            _mm256_srai_epi16::<8>(twice(scales, g % 2 * 2 + i))
        }
    }

    #[inline(always)]
    unsafe fn codes<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe {
            let bits = _mm256_srl_epi16(word(tile, 1, k), _mm_cvtsi32_si128(4 * run as i32));
            let third = match J {
                0 => _mm256_slli_epi16::<2>(bits),
                1 => _mm256_slli_epi16::<1>(bits),
                2 => bits,
                _ => _mm256_srli_epi16::<1>(bits),
            };
            let third = _mm256_and_si256(third, _mm256_set1_epi8(4));
            _mm256_or_si256(two_bits::<J, 0>(word(tile, 1, 8 + 8 * run + k)), third)
        }
    }
}

/// Four bits of the codes, two bits of the codes, then scales.
#[derive(Clone, Copy)]
pub(super) struct Q6K;

impl Arithmetic for Q6K {
    const EXACT: usize = 2;
    const HALVES: bool = true;
    const OFFSET: i16 = 32;
    const MINS: Mins = Mins::None;
}

impl Tile<4> for Q6K {
    const FORMAT: BlockFormat = BlockFormat::Q6K;
    type Arithmetic = Self;
    type Factors = __m256;

    #[inline(always)]
    unsafe fn factors(tile: *const u8) -> __m256 {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe { half(tile, 0) }
    }

    #[inline(always)]
    unsafe fn scale(f: &__m256, _: usize) -> __m256 {
        *f
    }

    #[inline(always)]
    unsafe fn half_scale(tile: *const u8, g: usize, i: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe { _mm256_srai_epi16::<8>(twice(word(tile, 1, 48 + g / 2), g % 2 * 2 + i)) }
    }

    #[inline(always)]
    unsafe fn codes<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i {
        // SAFETY: the caller promises a whole tile, numbers in range, and AVX2, FMA and F16C.
        unsafe {
            let low = word(tile, 1, 16 * run + 8 * (J % 2) + k);
            let low = if J < 2 { low } else { _mm256_srli_epi16::<4>(low) };
            let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
            _mm256_or_si256(low, two_bits::<J, 4>(word(tile, 1, 32 + 8 * run + k)))
        }
    }
}
