//! Eight rows at a time: products of bytes in 16 bits, two of them per lane and instruction.
//!
//! Multiplying bytes as they are would be half as many instructions, but sums of two products do not fit 16 bits.

use super::simd::Avx2;
use crate::generic::int8::{Int8Step, PANELS, ROOM, Sums};
use crate::int8::BLOCK;
use crate::panels::Line;
use core::arch::x86_64::*;

impl Int8Step for Avx2 {
    /// In 16 bits, those of even columns first: as a byte shift takes the weights of a lane apart.
    type Codes = [[u16; 2]; 2];
    type Room = [[[u16; 2]; 2]; 6 * ROOM];

    const TOKENS: usize = 6;

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
            in_memory(sums);
        }
    }

    #[inline(always)]
    fn to_codes(self, x: [__m256; 4]) -> [u8; BLOCK] {
        // SAFETY: `self` proves that the CPU has the features; any bits are bytes.
        unsafe { core::mem::transmute(to_codes(x)) }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn to_codes([a, b, c, d]: [__m256; 4]) -> __m256i {
    let ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    let cd = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
    // Packing works within 128-bit halves; the permutation puts the groups of four codes back into order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order);
    _mm256_xor_si256(codes, _mm256_set1_epi8(-128))
}

/// Adds the products with panel `p` of the tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_products<const T: usize>(
    panel: &[Line],
    mut x: [&[[[u16; 2]; 2]]; T],
    p: usize,
    sums: &mut [Sums; T],
) {
    for x in &mut x {
        *x = &x[..panel.len()];
    }
    let mut totals = [[_mm256_setzero_si256(); 2]; T];
    for (totals, sums) in totals.iter_mut().zip(&*sums) {
        for (total, sums) in totals.iter_mut().zip(sums[p].as_chunks::<8>().0) {
            // SAFETY: eight integers.
            *total = unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) };
        }
    }
    // One after the other: together they would need more registers than there are.
    for odd in 0..2 {
        for (i, line) in panel.iter().enumerate() {
            let mut w = [_mm256_setzero_si256(); 2];
            for (w, codes) in w.iter_mut().zip(line.codes().as_chunks::<8>().0) {
                // SAFETY: eight times four codes.
                let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
                let codes = if odd == 0 { _mm256_slli_epi16::<8>(codes) } else { codes };
                *w = _mm256_srai_epi16::<8>(codes);
            }
            for (totals, x) in totals.iter_mut().zip(&x) {
                // SAFETY: `i` is below the length of both.
                let two: [u16; 2] = unsafe { x.get_unchecked(i)[odd] };
                let two = _mm256_set1_epi32(bytemuck::cast(two));
                for (total, w) in totals.iter_mut().zip(w) {
                    *total = _mm256_add_epi32(*total, _mm256_madd_epi16(w, two));
                }
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut::<8>().0) {
            // SAFETY: eight integers.
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), *total) };
        }
    }
}

/// Has the sums in memory here. Otherwise the compiler keeps those of both panels in registers, of which there are too few.
#[inline(always)]
pub(in crate::x86) fn in_memory<const T: usize>(sums: &mut [Sums; T]) {
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("/* {} */", in(reg) sums.as_mut_ptr(), options(nostack, preserves_flags));
    }
}
