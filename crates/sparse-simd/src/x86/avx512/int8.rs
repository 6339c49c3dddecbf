//! Sixteen rows at a time: four products of bytes per lane and instruction.

use super::simd::Avx512;
use crate::generic::int8::{Int8Step, PANELS, Sums};
use crate::int8::BLOCK;
use crate::panels::Line;
use core::arch::x86_64::*;

impl Int8Step for Avx512 {
    type Codes = [u8; 4];
    type Room = [[u8; 4]; 0];

    const TOKENS: usize = 12;

    #[inline(always)]
    fn arrange<'a>(self, x: &'a [[u8; 4]], _: &'a mut [[u8; 4]]) -> &'a [[u8; 4]] {
        x
    }

    #[inline(always)]
    fn add_products<const T: usize>(
        self,
        panels: [&[Line]; PANELS],
        x: [&[[u8; 4]]; T],
        sums: &mut [Sums; T],
    ) {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { add_products(panels, x, sums) }
    }

    #[inline(always)]
    fn to_codes(self, x: [__m512; 2]) -> [u8; BLOCK] {
        // SAFETY: `self` proves that the CPU has the features; any bits are bytes.
        unsafe { core::mem::transmute(to_codes(x)) }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn to_codes([a, b]: [__m512; 2]) -> __m256i {
    let a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a));
    let b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(b));
    _mm256_xor_si256(_mm256_set_m128i(b, a), _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn add_products<const T: usize>(panels: [&[Line]; PANELS], mut x: [&[[u8; 4]]; T], sums: &mut [Sums; T]) {
    let n = panels[0].len();
    let [a, b] = panels;
    let panels = [&a[..n], &b[..n]];
    // (A call of `map` would not be inlined: it does not have the features of this function.)
    for x in &mut x {
        *x = &x[..n];
    }
    let mut totals = [[_mm512_setzero_si512(); PANELS]; T];
    for (totals, sums) in totals.iter_mut().zip(&*sums) {
        for (total, sums) in totals.iter_mut().zip(sums) {
            // SAFETY: sixteen integers.
            *total = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
        }
    }
    for i in 0..n {
        // SAFETY: `i < n`; a line is as long as a vector, and aligned.
        let w = unsafe {
            [
                _mm512_load_si512(panels[0].as_ptr().add(i).cast()),
                _mm512_load_si512(panels[1].as_ptr().add(i).cast()),
            ]
        };
        for (totals, x) in totals.iter_mut().zip(&x) {
            // SAFETY: `i < n`.
            let four = _mm512_set1_epi32(i32::from_le_bytes(unsafe { *x.get_unchecked(i) }));
            for (total, w) in totals.iter_mut().zip(w) {
                *total = _mm512_dpbusd_epi32(*total, four, w);
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums) {
            // SAFETY: sixteen integers.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *total) };
        }
    }
}
