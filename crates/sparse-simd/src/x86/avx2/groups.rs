//! Products with formats that are decoded in plain Rust: codebooks, and codes that follow no byte.

use super::dot::Pairs;
use super::load::{bytes16, bytes32, floats};
use super::quantized::{Factors, Step, TOKENS, part};
use crate::layout::{Decode, Decoded, Groups};
use crate::{MatMut, Q8, Rows};
use bytemuck::Zeroable;
use core::arch::x86_64::*;

impl Step for Decoded {
    const SIGNED: bool = true;
    const SUB_SCALES: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        bytes32(&self.codes[g])
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let sub = _mm256_cvtepi8_epi16(bytes16(&self.sub));
        Factors { d: floats(&self.d), sub, m: _mm256_setzero_ps(), mins: sub }
    }
}

/// # Safety
/// As for [`Table`](crate::table::Table).
pub(super) unsafe fn matmul<B: Groups>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    // SAFETY: the caller promises the level's instructions, and shapes that fit.
    unsafe { decoded(w, x, out, Decode::of::<B>()) }
}

/// # Safety
/// As for [`Table`](crate::table::Table).
pub(super) unsafe fn rows<B: Groups>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
    for (&r, out) in active.iter().zip(out) {
        let (row, mut out) = (r as usize..r as usize + 1, MatMut::new(core::slice::from_mut(out), 1));
        // SAFETY: the caller promises the level's instructions, and shapes that fit.
        unsafe { decoded(w.slice(row), x, &mut out, Decode::of::<B>()) };
    }
}

/// `out[t][r]` = row `r` of `w` times token `t` of `x`: each 256 columns of a row are decoded once for all tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn decoded(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>, decode: Decode) {
    let (format, mut decoded) = (w.format(), Decoded::zeroed());
    let strip = 256 / format.block_len() * format.block_bytes();
    let tiles = x.tokens() / TOKENS * TOKENS;
    for r in 0..w.rows() {
        for t in 0..x.tokens() {
            out.row(t)[r] = 0.0;
        }
        for (i, blocks) in w.row(r).chunks(strip).enumerate() {
            for pass in 0..decode.passes {
                (decode.read)(blocks, pass, &mut decoded);
                // SAFETY: this function is compiled for the same features, so the CPU that runs it
                // has them.
                unsafe {
                    for t in (0..tiles).step_by(TOKENS) {
                        add::<TOKENS>(&decoded, i, x, t, r, out);
                    }
                    for t in tiles..x.tokens() {
                        add::<1>(&decoded, i, x, t, r, out);
                    }
                }
            }
        }
    }
}

/// Adds strip `i` of row `r` times `T` tokens from `t` on.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn add<const T: usize>(w: &Decoded, i: usize, x: Q8<'_>, t: usize, r: usize, out: &mut MatMut<'_>) {
    // SAFETY: the caller promises that the CPU has AVX2, FMA and F16C.
    unsafe {
        let groups = (x.cols / 32 - 8 * i).min(8);
        let mut sums = [[_mm256_setzero_ps(); T]];
        let mut tokens = [x.row(t); T];
        for (k, token) in tokens.iter_mut().enumerate().skip(1) {
            *token = x.row(t + k);
        }
        let mut parts = [part(&tokens[0], i, groups); T];
        for (part_of, token) in parts.iter_mut().zip(&tokens).skip(1) {
            *part_of = part(token, i, groups);
        }
        super::quantized::step::<_, Pairs, 1, T>(
            &[core::slice::from_ref(w)],
            0,
            &parts,
            8 - groups,
            &mut sums,
        );
        for (k, sum) in sums[0].into_iter().enumerate() {
            out.row(t + k)[r] += super::load::sum(sum);
        }
    }
}
