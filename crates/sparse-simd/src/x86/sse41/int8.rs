//! Four rows at a time: products of bytes in 16 bits, two of them per lane and instruction.

use super::simd::Sse41;
use crate::generic::int8::{Int8Step, PANELS, ROOM, Sums};
use crate::int8::BLOCK;
use crate::panels::Line;
use core::arch::x86_64::*;

impl Int8Step for Sse41 {
    /// In 16 bits, those of even columns first: as a byte shift takes the weights of a lane apart.
    type Codes = [[u16; 2]; 2];
    type Room = [[[u16; 2]; 2]; 2 * ROOM];

    const TOKENS: usize = 2;

    #[inline(always)]
    fn arrange<'a>(self, x: &'a [[u8; 4]], room: &'a mut [[[u16; 2]; 2]]) -> &'a [[[u16; 2]; 2]] {
        crate::generic::int8::widen(x, room)
    }

    #[inline(always)]
    fn add_products<const T: usize>(
        self,
        panels: [&[Line]; PANELS],
        x: [&[[[u16; 2]; 2]]; T],
        sums: &mut [Sums; T],
    ) {
        for (p, panel) in panels.into_iter().enumerate() {
            // SAFETY: `self` proves that the CPU has the features.
            unsafe { add_products(panel, x, p, sums) };
        }
    }

    #[inline(always)]
    fn to_codes(self, [a, b, c, d, e, f, g, h]: [__m128; 8]) -> [u8; BLOCK] {
        // SAFETY: `self` proves that the CPU has the features; any bits are bytes.
        unsafe { core::mem::transmute([to_codes([a, b, c, d]), to_codes([e, f, g, h])]) }
    }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn to_codes([a, b, c, d]: [__m128; 4]) -> __m128i {
    let ab = _mm_packs_epi32(_mm_cvtps_epi32(a), _mm_cvtps_epi32(b));
    let cd = _mm_packs_epi32(_mm_cvtps_epi32(c), _mm_cvtps_epi32(d));
    _mm_xor_si128(_mm_packs_epi16(ab, cd), _mm_set1_epi8(-128))
}

/// Adds the products with panel `p` of the tile.
#[inline]
#[target_feature(enable = "sse4.1")]
fn add_products<const T: usize>(
    panel: &[Line],
    mut x: [&[[[u16; 2]; 2]]; T],
    p: usize,
    sums: &mut [Sums; T],
) {
    for x in &mut x {
        *x = &x[..panel.len()];
    }
    let mut totals = [[_mm_setzero_si128(); 4]; T];
    for (totals, sums) in totals.iter_mut().zip(&*sums) {
        for (total, sums) in totals.iter_mut().zip(sums[p].as_chunks::<4>().0) {
            // SAFETY: four integers.
            *total = unsafe { _mm_loadu_si128(sums.as_ptr().cast()) };
        }
    }
    // One after the other: together they would need more registers than there are.
    for odd in 0..2 {
        for (i, line) in panel.iter().enumerate() {
            let mut two = [_mm_setzero_si128(); T];
            for (two, x) in two.iter_mut().zip(&x) {
                // SAFETY: `i` is below the length of both.
                let x: [u16; 2] = unsafe { x.get_unchecked(i)[odd] };
                *two = _mm_set1_epi32(bytemuck::cast(x));
            }
            for (r, codes) in line.codes().as_chunks::<4>().0.iter().enumerate() {
                // SAFETY: four times four codes.
                let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
                let codes = if odd == 0 { _mm_slli_epi16::<8>(codes) } else { codes };
                let w = _mm_srai_epi16::<8>(codes);
                for (totals, two) in totals.iter_mut().zip(two) {
                    totals[r] = _mm_add_epi32(totals[r], _mm_madd_epi16(w, two));
                }
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut::<4>().0) {
            // SAFETY: four integers.
            unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), *total) };
        }
    }
}
