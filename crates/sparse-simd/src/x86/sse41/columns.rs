//! Products with weights stored by columns.

use super::load::{bytes8, bytes16};
use super::simd::{Sse41, with_sse41};
use super::small::spread_bits;
use crate::x86::columns::pairs::{self, Bytes, column_functions};
use core::arch::x86_64::*;

column_functions!(Sse41, "sse4.1");

impl Bytes for Sse41 {
    type I = __m128i;

    #[inline(always)]
    fn dwords(self, x: i32) -> __m128i {
        with_sse41!(_mm_set1_epi32(x))
    }

    #[inline(always)]
    fn or(self, a: __m128i, b: __m128i) -> __m128i {
        with_sse41!(_mm_or_si128(a, b))
    }

    #[inline(always)]
    fn times_16(self, codes: __m128i) -> __m128i {
        with_sse41!(_mm_slli_epi16::<4>(codes))
    }

    #[inline(always)]
    fn look_up(self, values: &[i8; 16], codes: __m128i) -> __m128i {
        with_sse41!(_mm_shuffle_epi8(bytes16(values), codes))
    }

    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
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
    fn add_products<const SIGNED: bool>(self, sums: __m128i, codes: __m128i, h: __m128i) -> __m128i {
        with_sse41!(_mm_add_epi16(
            sums,
            match SIGNED {
                true => _mm_maddubs_epi16(_mm_abs_epi8(codes), _mm_sign_epi8(h, codes)),
                false => _mm_maddubs_epi16(codes, h),
            }
        ))
    }

    #[inline(always)]
    fn add_words(self, sums: __m128i, words: __m128i) -> __m128i {
        with_sse41!(_mm_add_epi32(sums, _mm_madd_epi16(words, _mm_set1_epi16(1))))
    }

    #[inline(always)]
    fn floats(self, x: __m128i) -> __m128 {
        with_sse41!(_mm_cvtepi32_ps(x))
    }

    #[inline(always)]
    unsafe fn eight_bits<const P: usize>(self, at: *const u8) -> __m128i {
        // SAFETY: the caller's promise, and `self` proves that the CPU has the features.
        unsafe { bytes16(&*at.add(16 * P).cast::<[u8; 16]>()) }
    }

    #[inline(always)]
    unsafe fn four_bits<const P: usize>(self, at: *const u8) -> __m128i {
        // SAFETY: as above.
        unsafe {
            let both = bytes16(&*at.add(16 * (P % 2)).cast::<[u8; 16]>());
            let half = if P < 2 { both } else { _mm_srli_epi16::<4>(both) };
            _mm_and_si128(half, _mm_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn two_bits<const P: usize>(self, at: *const u8) -> __m128i {
        // SAFETY: as above.
        unsafe {
            let all = bytes16(&*at.cast::<[u8; 16]>());
            let quarter = _mm_srl_epi16(all, _mm_cvtsi32_si128(2 * P as i32));
            _mm_and_si128(quarter, _mm_set1_epi8(3))
        }
    }

    #[inline(always)]
    unsafe fn one_bit<const P: usize>(self, at: *const u8, bit: i8) -> __m128i {
        // SAFETY: as above.
        unsafe {
            let bits = bytes8(&*at.cast::<[u8; 8]>());
            _mm_and_si128(spread_bits(bits, 2 * P as i8), _mm_set1_epi8(bit))
        }
    }
}
