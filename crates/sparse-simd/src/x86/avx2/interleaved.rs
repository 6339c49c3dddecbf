//! Products of interleaved rows with int8 activations.
//!
//! A register holds four columns of eight rows. Activations are broadcast by fours, so `vpmaddubsw` makes sixteen sums
//! of two products, and these are added in 16 bits as long as they fit. `vpmaddwd` then leaves one integer per row.

mod formats;

use super::load;
use crate::interleaved::{Interleaved, ROWS};
use crate::layout::BlockFormat;
use crate::table::MatmulInterleaved;
use crate::{MatMut, Q8};
use core::arch::x86_64::*;
use formats::*;

/// Tokens per tile of a batch: unpacked codes are used for all of them.
const TOKENS: usize = 4;

/// Bytes of activations that are multiplied with all rows before the next ones are: they stay in the second-level cache.
const BATCH_BYTES: usize = 192 << 10;

/// Eight rows of one block column.
pub(super) trait Tile<const SPAN: usize>: Copy {
    const FORMAT: BlockFormat;
    /// Groups of 32 columns.
    const GROUPS: usize = Self::FORMAT.block_len() / 32;
    const BYTES: usize = ROWS * Self::FORMAT.block_bytes();
    /// Whether there are minima.
    const MINS: bool;
    /// The groups whose codes share bytes.
    const RUNS: &'static [[usize; SPAN]];
    /// What its groups share.
    type Factors: Copy;

    /// # Safety
    /// - The CPU has AVX2, FMA and F16C; `tile` has [`BYTES`](Self::BYTES) bytes.
    unsafe fn factors(tile: *const u8) -> Self::Factors;

    /// The scales of group `g`, a row each.
    ///
    /// # Safety
    /// As for [`factors`](Self::factors); `g` is below [`GROUPS`](Self::GROUPS).
    unsafe fn scale(f: &Self::Factors, g: usize) -> __m256;

    /// The minima of group `g`, a row each, if there are such.
    ///
    /// # Safety
    /// As for [`scale`](Self::scale).
    unsafe fn min(f: &Self::Factors, g: usize) -> __m256;

    /// The integers of run `run`, a row each, for `T` tokens and each of its groups.
    ///
    /// # Safety
    /// As for [`scale`](Self::scale); tokens have codes and sums of all groups.
    unsafe fn dots<const T: usize>(tile: *const u8, run: usize, x: &[Codes; T]) -> [[__m256i; T]; SPAN];
}
/// A token's codes and sums of the columns of a tile.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub(super) q: *const i8,
    pub(super) sums: *const i16,
}

/// Products of the formats that have them.
pub(in crate::x86) const fn matmul(format: BlockFormat) -> Option<MatmulInterleaved> {
    Some(match format {
        BlockFormat::Q4_0 => products::<Q4_0, 1>,
        BlockFormat::Q4_1 => products::<Q4_1, 1>,
        BlockFormat::Q5_0 => products::<Q5_0, 1>,
        BlockFormat::Q5_1 => products::<Q5_1, 1>,
        BlockFormat::Q8_0 => products::<Q8_0, 1>,
        BlockFormat::Q4K => products::<Q4K, 2>,
        BlockFormat::Q5K => products::<Q5K, 2>,
        BlockFormat::Q6K => products::<Q6K, 2>,
        BlockFormat::Iq4Nl => products::<Iq4Nl, 1>,
        _ => return None,
    })
}

/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "avx2,fma,f16c")]
fn products<F: Tile<SPAN>, const SPAN: usize>(w: Interleaved<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    debug_assert_eq!(w.layout().format(), F::FORMAT);
    let batch = (BATCH_BYTES / x.cols).next_multiple_of(TOKENS);
    let mut first = 0;
    while first < x.tokens() {
        let end = x.tokens().min(first + batch);
        for (g, group) in w.data().chunks_exact(ROWS * w.layout().row_bytes()).enumerate() {
            let mut t = first;
            while t < end {
                t += match end - t {
                    1 => tile::<F, SPAN, 1>(group, g, x, t, out),
                    2 => tile::<F, SPAN, 2>(group, g, x, t, out),
                    3 => tile::<F, SPAN, 3>(group, g, x, t, out),
                    _ => tile::<F, SPAN, TOKENS>(group, g, x, t, out),
                };
            }
        }
        first = end;
    }
}

/// Group `g` of rows times tokens `t..t + T`; returns `T`.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<F: Tile<SPAN>, const SPAN: usize, const T: usize>(
    group: &[u8],
    g: usize,
    x: Q8<'_>,
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    let mut tokens = [x.row(t); T];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = x.row(t + i);
    }
    // SAFETY: this function asks for the same features.
    let sums = unsafe { dot::<F, SPAN, T>(group, &tokens) };
    for (i, sums) in sums.iter().enumerate() {
        let rest = &mut out.row(t + i)[g * ROWS..];
        match rest.first_chunk_mut::<ROWS>() {
            Some(out) => load::store(*sums, out),
            None => load::store_part(*sums, rest),
        }
    }
    T
}

/// Eight rows times `T` tokens.
///
/// Always inlined, so that the sums stay in registers; such a function cannot ask for CPU features itself.
///
/// Weights are not prefetched: they are one stream, which the hardware follows. On Zen 4 that reads 80 % of what a plain
/// loop does, with fetching 1 to 8 kB ahead 60 to 75 %.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C.
#[inline(always)]
unsafe fn dot<F: Tile<SPAN>, const SPAN: usize, const T: usize>(
    group: &[u8],
    x: &[Q8<'_>; T],
) -> [__m256; T] {
    // SAFETY: what this function asks of its caller is what all these ask; `group` has a tile for every block column, and
    // each token has codes, scales and sums for every group of columns.
    unsafe {
        let columns = x[0].cols / 32;
        let mut sums = [_mm256_setzero_ps(); T];
        // Activations times scale, summed over 32 columns, of eight such.
        let mut totals = [[0.0_f32; 8]; T];
        let mut tile = group.as_ptr();
        for step in 0..columns.div_ceil(8) {
            let (first, count) = (8 * step, (columns - 8 * step).min(8));
            if F::MINS {
                for t in 0..T {
                    scaled_totals(&x[t], first, count, &mut totals[t]);
                }
            }
            let mut at = 0;
            while at < count {
                let mut codes = [Codes { q: core::ptr::null(), sums: core::ptr::null() }; T];
                for t in 0..T {
                    let c = first + at;
                    codes[t] = Codes { q: x[t].q.as_ptr().add(32 * c), sums: x[t].sums.as_ptr().add(2 * c) };
                }
                let factors = F::factors(tile);
                for (run, groups) in F::RUNS.iter().enumerate() {
                    let dots = F::dots(tile, run, &codes);
                    for (g, dots) in groups.iter().zip(&dots) {
                        let scale = F::scale(&factors, *g);
                        for t in 0..T {
                            let d = *x[t].d.get_unchecked(first + at + g);
                            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(d));
                            sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t]), scale, sums[t]);
                        }
                        if F::MINS {
                            let min = F::min(&factors, *g);
                            for t in 0..T {
                                let total = _mm256_set1_ps(*totals[t].get_unchecked((at + g) % 8));
                                sums[t] = _mm256_fmadd_ps(min, total, sums[t]);
                            }
                        }
                    }
                }
                tile = tile.add(F::BYTES);
                at += F::GROUPS;
            }
        }
        sums
    }
}

/// The sums of `count` groups, at most eight, from `first` on, each times its scale.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C; the token has these groups.
#[inline(always)]
unsafe fn scaled_totals(x: &Q8<'_>, first: usize, count: usize, totals: &mut [f32; 8]) {
    if count == 8 {
        // SAFETY: eight groups have as many scales and sixteen sums.
        unsafe {
            let sums = _mm256_loadu_si256(x.sums.as_ptr().add(2 * first).cast());
            let sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
            let d = _mm256_loadu_ps(x.d.as_ptr().add(first));
            _mm256_storeu_ps(totals.as_mut_ptr(), _mm256_mul_ps(d, sums));
        }
        return;
    }
    for (i, total) in totals.iter_mut().enumerate().take(count) {
        let [a, b] = [x.sums[2 * (first + i)], x.sums[2 * (first + i) + 1]];
        *total = x.d[first + i] * (i32::from(a) + i32::from(b)) as f32;
    }
}
