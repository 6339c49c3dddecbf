//! Eight rows of a tile at a time.

use super::simd::Avx2;
use crate::generic::scan::ScanStep;
use crate::tiles::TileLayout;
use core::arch::x86_64::*;

/// Rows in a vector.
const ROWS: usize = 8;

impl ScanStep for Avx2 {
    type Sums = [__m256i; TileLayout::TILE / ROWS];

    #[inline(always)]
    fn none(self) -> Self::Sums {
        // SAFETY: `self` proves that the CPU has the features.
        [unsafe { _mm256_setzero_si256() }; TileLayout::TILE / ROWS]
    }

    #[inline(always)]
    fn nibbles(self, mut sums: Self::Sums, codes: &[u8; 64], x: [i32; 2]) -> Self::Sums {
        for (sums, codes) in sums.iter_mut().zip(codes.as_chunks::<{ 4 * ROWS }>().0) {
            // SAFETY: `self` proves that the CPU has the features; the load is as long as the reference.
            unsafe {
                let (both, mask) = (_mm256_loadu_si256(codes.as_ptr().cast()), _mm256_set1_epi8(15));
                let low = _mm256_and_si256(both, mask);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
                // Four products of at most 15 * 128 fit 16 bits.
                let two = _mm256_add_epi16(
                    _mm256_maddubs_epi16(low, _mm256_set1_epi32(x[0])),
                    _mm256_maddubs_epi16(high, _mm256_set1_epi32(x[1])),
                );
                *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
            }
        }
        sums
    }

    #[inline(always)]
    fn pairs(self, mut sums: Self::Sums, codes: &[u8; 64], x: [i32; 4]) -> Self::Sums {
        for (sums, codes) in sums.iter_mut().zip(codes.as_chunks::<{ 4 * ROWS }>().0) {
            // SAFETY: `self` proves that the CPU has the features; the load is as long as the reference.
            unsafe {
                let (all, mask) = (_mm256_loadu_si256(codes.as_ptr().cast()), _mm256_set1_epi8(3));
                let quarter =
                    |shifted, x| _mm256_maddubs_epi16(_mm256_and_si256(shifted, mask), _mm256_set1_epi32(x));
                let low = _mm256_add_epi16(quarter(all, x[0]), quarter(_mm256_srli_epi16::<2>(all), x[1]));
                let high = _mm256_add_epi16(
                    quarter(_mm256_srli_epi16::<4>(all), x[2]),
                    quarter(_mm256_srli_epi16::<6>(all), x[3]),
                );
                // Eight products of at most 3 * 128 fit 16 bits.
                let two = _mm256_add_epi16(low, high);
                *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
            }
        }
        sums
    }

    #[inline(always)]
    fn floats(self, sums: Self::Sums) -> [f32; TileLayout::TILE] {
        let mut out = [0.0; TileLayout::TILE];
        for (out, sums) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(sums) {
            // SAFETY: `self` proves that the CPU has the features; the store is as long as the reference.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtepi32_ps(sums)) };
        }
        out
    }
}
