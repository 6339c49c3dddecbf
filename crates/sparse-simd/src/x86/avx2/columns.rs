//! Products with weights stored by columns.

use super::load::{bytes16, bytes32};
use super::simd::{Avx2, with_avx2};
use super::small::spread_bits;
use crate::generic::columns::pairs::{Bytes, column_functions};
use core::arch::x86_64::*;

column_functions!(Avx2, "avx2,fma,f16c");

impl Bytes for Avx2 {
    type I = __m256i;

    #[inline(always)]
    fn dwords(self, x: i32) -> __m256i {
        with_avx2!(_mm256_set1_epi32(x))
    }

    #[inline(always)]
    fn either(self, a: __m256i, b: __m256i) -> __m256i {
        with_avx2!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn times_16(self, codes: __m256i) -> __m256i {
        with_avx2!(_mm256_slli_epi16::<4>(codes))
    }

    #[inline(always)]
    fn values(self, values: &[i8; 16], codes: __m256i) -> __m256i {
        with_avx2!(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes16(values)), codes))
    }

    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        with_avx2!({
            let (low_ab, high_ab) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
            let (low_cd, high_cd) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
            [
                _mm256_unpacklo_epi16(low_ab, low_cd),
                _mm256_unpackhi_epi16(low_ab, low_cd),
                _mm256_unpacklo_epi16(high_ab, high_cd),
                _mm256_unpackhi_epi16(high_ab, high_cd),
            ]
        })
    }

    #[inline(always)]
    fn add_products<const SIGNED: bool>(self, sums: __m256i, codes: __m256i, h: __m256i) -> __m256i {
        with_avx2!(_mm256_add_epi16(
            sums,
            match SIGNED {
                true => _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(h, codes)),
                false => _mm256_maddubs_epi16(codes, h),
            }
        ))
    }

    #[inline(always)]
    fn add_words(self, sums: __m256i, words: __m256i) -> __m256i {
        with_avx2!(_mm256_add_epi32(sums, _mm256_madd_epi16(words, _mm256_set1_epi16(1))))
    }

    #[inline(always)]
    fn floats(self, x: __m256i) -> __m256 {
        with_avx2!(_mm256_cvtepi32_ps(x))
    }

    #[inline(always)]
    unsafe fn eight_bits<const P: usize>(self, at: *const u8) -> __m256i {
        // SAFETY: the caller promises that a chunk can be read at `at`, and `self` proves that the
        // CPU has the features.
        unsafe { bytes32(&*at.add(32 * P).cast::<[u8; 32]>()) }
    }

    #[inline(always)]
    unsafe fn four_bits<const P: usize>(self, at: *const u8) -> __m256i {
        // SAFETY: the caller promises that a chunk can be read at `at`, and `self` proves that the
        // CPU has the features.
        unsafe {
            let both = bytes32(&*at.cast::<[u8; 32]>());
            let half = if P == 0 { both } else { _mm256_srli_epi16::<4>(both) };
            _mm256_and_si256(half, _mm256_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn two_bits<const P: usize>(self, at: *const u8) -> __m256i {
        let (a, b) = (4 * P as i32, 4 * P as i32 + 2);
        // SAFETY: the caller promises that a chunk can be read at `at`, and `self` proves that the
        // CPU has the features.
        unsafe {
            let all = _mm256_broadcastsi128_si256(bytes16(&*at.cast::<[u8; 16]>()));
            let half = _mm256_srlv_epi32(all, _mm256_setr_epi32(a, a, a, a, b, b, b, b));
            _mm256_and_si256(half, _mm256_set1_epi8(3))
        }
    }

    #[inline(always)]
    unsafe fn one_bit<const P: usize>(self, at: *const u8, bit: i8) -> __m256i {
        // SAFETY: the caller promises that a chunk can be read at `at`, and `self` proves that the
        // CPU has the features.
        unsafe {
            let bits = at.add(4 * P).cast::<[u8; 4]>().read();
            _mm256_and_si256(spread_bits(bits), _mm256_set1_epi8(bit))
        }
    }
}
