//! Products with one token.

use super::super::load;
use super::parts::{self, Token, widen};
use super::{Arithmetic, Mins, Tile, WORDS, groups_of_a_run};
use crate::interleaved::{Interleaved, ROWS};
use crate::{MatMut, Q8};
use core::arch::x86_64::*;

/// How far ahead tiles are fetched.
const AHEAD: usize = 16;

/// # Safety
/// As for [`Table`](crate::table::Table); there is one token.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn products<F: Tile<SPAN>, const SPAN: usize>(
    w: Interleaved<'_>,
    x: Q8<'_>,
    out: &mut MatMut<'_>,
) {
    let out = out.row(0);
    for (g, group) in w.data().chunks_exact(ROWS * w.layout().row_bytes()).enumerate() {
        // SAFETY: this function is compiled for the same features, so the CPU that runs it has
        // them.
        let sums = unsafe { dot::<F, SPAN>(group, &x) };
        let rest = &mut out[g * ROWS..];
        match rest.first_chunk_mut::<ROWS>() {
            Some(out) => load::store(sums, out),
            None => load::store_part(sums, rest),
        }
    }
}

/// Eight rows times a token.
///
/// Always inlined, so that sums stay in registers; such a function cannot ask for CPU features itself.
///
/// Weights are one stream, which the hardware follows: prefetching makes it slower. Not so where four groups have codes
/// in the same bytes, which are several streams. There Q6_K reads 2.7 GB/s without, 14 with what is 16 tiles ahead in the
/// second-level cache, and 3.8 with the first level in its place (Zen 4).
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn dot<F: Tile<SPAN>, const SPAN: usize>(group: &[u8], x: &Q8<'_>) -> __m256 {
    // SAFETY: the caller promises AVX2, FMA and F16C, which these ask for; `group` has a tile for
    // every block column, and the token has codes, scales and sums for every group of columns.
    unsafe {
        let columns = x.cols / 32;
        let mut sums = _mm256_setzero_ps();
        let mut totals = [0.0; 8];
        let mut tile = group.as_ptr();
        for first in (0..columns).step_by(8) {
            let count = (columns - first).min(8);
            if F::Arithmetic::MINS == Mins::PerGroup {
                totals = Token::of(x, 0, first).scaled_sums(count);
            }
            for at in (0..count).step_by(F::GROUPS) {
                let x = Token::of(x, 0, first + at);
                if SPAN == 4 {
                    let ahead = tile.wrapping_add(AHEAD * F::BYTES);
                    for line in (0..F::BYTES).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line).cast());
                    }
                }
                let factors = F::factors(tile);
                for run in 0..F::GROUPS / SPAN {
                    let dots = dots::<F, SPAN>(tile, run, x);
                    for (i, dots) in dots.into_iter().enumerate() {
                        let g = run * SPAN + i;
                        let d = x.d(g);
                        let scale = _mm256_mul_ps(F::scale(&factors, g), d);
                        sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sums);
                        let total = match F::Arithmetic::MINS {
                            Mins::None => continue,
                            Mins::PerGroup => _mm256_set1_ps(*totals.get_unchecked((at + g) % 8)),
                            Mins::PerHalf => {
                                let total = _mm256_madd_epi16(F::half_mins(tile, g), x.both_sums(g));
                                _mm256_mul_ps(_mm256_cvtepi32_ps(total), d)
                            }
                        };
                        sums = _mm256_fmadd_ps(F::min(&factors, g), total, sums);
                    }
                }
                tile = tile.add(F::BYTES);
            }
        }
        sums
    }
}

/// The integers of a run, a row each, for each of its groups.
///
/// # Safety
/// - The CPU has AVX2; `tile` is one, and the token has its columns.
#[inline(always)]
unsafe fn dots<F: Tile<SPAN>, const SPAN: usize>(tile: *const u8, run: usize, x: Token) -> [__m256i; SPAN] {
    // SAFETY: the caller promises AVX2, a whole tile, and a token with its columns.
    unsafe {
        let exact = F::Arithmetic::EXACT;
        let mut dots = [_mm256_setzero_si256(); SPAN];
        for first in (0..WORDS).step_by(exact) {
            let mut sums = [_mm256_setzero_si256(); SPAN];
            for k in first..first + exact {
                groups_of_a_run!(SPAN, J => {
                    let at = 32 * (run * SPAN + J) + 4 * k;
                    let products = parts::products(F::codes::<J>(tile, run, k), x.four(at), exact == 1);
                    sums[J] = _mm256_add_epi16(sums[J], products);
                });
            }
            for (j, dots) in dots.iter_mut().enumerate() {
                *dots = widen(*dots, sums[j], F::half_scale(tile, run * SPAN + j, first / 4));
            }
        }
        if F::Arithmetic::OFFSET != 0 {
            for (j, dots) in dots.iter_mut().enumerate() {
                let g = run * SPAN + j;
                let offsets = parts::offsets::<F, SPAN>(tile, g);
                *dots = _mm256_sub_epi32(*dots, _mm256_madd_epi16(offsets, x.both_sums(g)));
            }
        }
        dots
    }
}
