//! Sixteen rows of a tile at a time.

use super::simd::Avx512;
use crate::generic::scan::ScanStep;
use crate::tiles::TileLayout;
use core::arch::x86_64::*;

impl ScanStep for Avx512 {
    type Sums = __m512i;

    #[inline(always)]
    fn none(self) -> __m512i {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn nibbles(self, sums: __m512i, codes: &[u8; 64], x: [i32; 2]) -> __m512i {
        // SAFETY: `self` proves that the CPU has the features; the load is as long as the reference.
        unsafe {
            let (both, mask) = (_mm512_loadu_si512(codes.as_ptr().cast()), _mm512_set1_epi8(15));
            let low = _mm512_and_si512(both, mask);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
            let sums = _mm512_dpbusd_epi32(sums, low, _mm512_set1_epi32(x[0]));
            _mm512_dpbusd_epi32(sums, high, _mm512_set1_epi32(x[1]))
        }
    }

    #[inline(always)]
    fn pairs(self, sums: __m512i, codes: &[u8; 64], x: [i32; 4]) -> __m512i {
        // SAFETY: `self` proves that the CPU has the features; the load is as long as the reference.
        unsafe {
            let (all, mask) = (_mm512_loadu_si512(codes.as_ptr().cast()), _mm512_set1_epi8(3));
            let quarter = |shifted| _mm512_and_si512(shifted, mask);
            let sums = _mm512_dpbusd_epi32(sums, quarter(all), _mm512_set1_epi32(x[0]));
            let shifted = _mm512_srli_epi16::<2>(all);
            let sums = _mm512_dpbusd_epi32(sums, quarter(shifted), _mm512_set1_epi32(x[1]));
            let shifted = _mm512_srli_epi16::<4>(all);
            let sums = _mm512_dpbusd_epi32(sums, quarter(shifted), _mm512_set1_epi32(x[2]));
            let shifted = _mm512_srli_epi16::<6>(all);
            _mm512_dpbusd_epi32(sums, quarter(shifted), _mm512_set1_epi32(x[3]))
        }
    }

    #[inline(always)]
    fn floats(self, sums: __m512i) -> [f32; TileLayout::TILE] {
        let mut out = [0.0; TileLayout::TILE];
        // SAFETY: `self` proves that the CPU has the features; sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_cvtepi32_ps(sums)) };
        out
    }
}
