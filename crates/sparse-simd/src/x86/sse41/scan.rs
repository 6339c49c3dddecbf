//! Four rows of a tile at a time.

use super::simd::Sse41;
use crate::generic::scan::ScanStep;
use crate::tiles::TileLayout;
use core::arch::x86_64::*;

/// Rows in a vector.
const ROWS: usize = 4;

impl ScanStep for Sse41 {
    type Sums = [__m128i; TileLayout::TILE / ROWS];

    #[inline(always)]
    fn none(self) -> Self::Sums {
        // SAFETY: `self` proves that the CPU has the features.
        [unsafe { _mm_setzero_si128() }; TileLayout::TILE / ROWS]
    }

    #[inline(always)]
    fn nibbles(self, mut sums: Self::Sums, codes: &[u8; 64], x: [i32; 2]) -> Self::Sums {
        for (sums, codes) in sums.iter_mut().zip(codes.as_chunks::<{ 4 * ROWS }>().0) {
            // SAFETY: `self` proves that the CPU has the features; the load is as long as the reference.
            unsafe {
                let (both, mask) = (_mm_loadu_si128(codes.as_ptr().cast()), _mm_set1_epi8(15));
                let low = _mm_and_si128(both, mask);
                let high = _mm_and_si128(_mm_srli_epi16::<4>(both), mask);
                // Four products of at most 15 * 128 fit 16 bits.
                let two = _mm_add_epi16(
                    _mm_maddubs_epi16(low, _mm_set1_epi32(x[0])),
                    _mm_maddubs_epi16(high, _mm_set1_epi32(x[1])),
                );
                *sums = _mm_add_epi32(*sums, _mm_madd_epi16(two, _mm_set1_epi16(1)));
            }
        }
        sums
    }

    #[inline(always)]
    fn pairs(self, mut sums: Self::Sums, codes: &[u8; 64], x: [i32; 4]) -> Self::Sums {
        for (sums, codes) in sums.iter_mut().zip(codes.as_chunks::<{ 4 * ROWS }>().0) {
            // SAFETY: `self` proves that the CPU has the features; the load is as long as the reference.
            unsafe {
                let (all, mask) = (_mm_loadu_si128(codes.as_ptr().cast()), _mm_set1_epi8(3));
                let quarter = |shifted, x| _mm_maddubs_epi16(_mm_and_si128(shifted, mask), _mm_set1_epi32(x));
                let low = _mm_add_epi16(quarter(all, x[0]), quarter(_mm_srli_epi16::<2>(all), x[1]));
                let high = _mm_add_epi16(
                    quarter(_mm_srli_epi16::<4>(all), x[2]),
                    quarter(_mm_srli_epi16::<6>(all), x[3]),
                );
                // Eight products of at most 3 * 128 fit 16 bits.
                let two = _mm_add_epi16(low, high);
                *sums = _mm_add_epi32(*sums, _mm_madd_epi16(two, _mm_set1_epi16(1)));
            }
        }
        sums
    }

    #[inline(always)]
    fn floats(self, sums: Self::Sums) -> [f32; TileLayout::TILE] {
        let mut out = [0.0; TileLayout::TILE];
        for (out, sums) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(sums) {
            // SAFETY: `self` proves that the CPU has the features; the store is as long as the reference.
            unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_cvtepi32_ps(sums)) };
        }
        out
    }
}
