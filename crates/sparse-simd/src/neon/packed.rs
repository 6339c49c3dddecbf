//! Packed int8 weights: products of bytes in 16 bits, two columns of each of four rows per instruction.

use super::{Neon, Pairs};
use crate::generic::int8::{Int8Step, PANELS, Sums};
use crate::int8::BLOCK;
use crate::panels::Line;
use core::arch::aarch64::*;

/// How products of packed weights are computed: `int8_step!(token, tokens, centered, function)`, by a function that multiplies
/// a panel with the tokens of a tile.
macro_rules! int8_step {
    ($dot:ty, $tokens:literal, $centered:literal, $add:ident) => {
        impl Int8Step for Neon<$dot> {
            type Codes = [u8; 4];
            type Room = [[u8; 4]; 0];

            const TOKENS: usize = $tokens;
            const CENTERED: bool = $centered;

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
                for (p, panel) in panels.into_iter().enumerate() {
                    // SAFETY: `self` proves that the CPU has the features.
                    unsafe { $add(panel, x, p, sums) };
                }
            }

            #[inline(always)]
            fn to_codes(self, x: Self::Wide) -> [u8; BLOCK] {
                crate::generic::bits128::int8::to_codes(self, x)
            }
        }
    };
}
pub(super) use int8_step;

// Eight accumulators per token, two vectors of weights and two of codes per token.
int8_step!(Pairs, 2, true, add_pairs);

/// Adds the products with panel `p` of the tile, without the 128 of the activations' codes.
///
/// Two products of codes of at most 127 in magnitude fit 16 bits, so lines are taken by twos.
///
/// # Safety
/// - The CPU has NEON.
#[inline(always)]
unsafe fn add_pairs<const T: usize>(panel: &[Line], x: [&[[u8; 4]]; T], p: usize, sums: &mut [Sums; T]) {
    // SAFETY: the caller promises that the CPU has NEON; loads and stores are as long as the references.
    unsafe {
        // Of each row the sums of two columns of a line.
        let mut totals = [[vdupq_n_s32(0); 8]; T];
        let (twos, last) = panel.as_chunks::<2>();
        for (i, lines) in twos.iter().enumerate() {
            let mut codes = [[vdupq_n_s8(0); 2]; T];
            for (codes, x) in codes.iter_mut().zip(&x) {
                let x = &x.as_chunks::<2>().0[i];
                *codes = [everywhere(x[0]), everywhere(x[1])];
            }
            add_lines(&lines[0], &lines[1], codes, &mut totals);
        }
        if let [line] = last {
            // Columns that are not there are zeros in the weights.
            let code = x.map(|x| everywhere(x[2 * twos.len()]));
            add_lines(line, &Line::ZERO, code.map(|code| [code; 2]), &mut totals);
        }
        for (totals, sums) in totals.iter().zip(sums) {
            for (two, sums) in totals.as_chunks::<2>().0.iter().zip(sums[p].as_chunks_mut::<4>().0) {
                let total = vaddq_s32(vld1q_s32(sums.as_ptr()), vpaddq_s32(two[0], two[1]));
                vst1q_s32(sums.as_mut_ptr(), total);
            }
        }
    }
}

/// Four codes of activations, less 128, four times.
#[inline]
#[target_feature(enable = "neon")]
fn everywhere(x: [u8; 4]) -> int8x16_t {
    let x = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x)));
    vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)))
}

/// Adds the products of two lines with their codes of each token.
///
/// # Safety
/// - The CPU has NEON.
#[inline(always)]
unsafe fn add_lines<const T: usize>(
    first: &Line,
    second: &Line,
    x: [[int8x16_t; 2]; T],
    totals: &mut [[int32x4_t; 8]; T],
) {
    for rows in 0..4 {
        // SAFETY: the caller promises that the CPU has NEON; loads are as long as the references.
        unsafe {
            let four = |line: &Line| vld1q_s8(line.codes().as_chunks::<4>().0[rows].as_ptr().cast());
            let (a, b) = (four(first), four(second));
            for (totals, x) in totals.iter_mut().zip(x) {
                let low = vmull_s8(vget_low_s8(a), vget_low_s8(x[0]));
                let low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(x[1]));
                let high = vmlal_high_s8(vmull_high_s8(a, x[0]), b, x[1]);
                totals[2 * rows] = vpadalq_s16(totals[2 * rows], low);
                totals[2 * rows + 1] = vpadalq_s16(totals[2 * rows + 1], high);
            }
        }
    }
}
