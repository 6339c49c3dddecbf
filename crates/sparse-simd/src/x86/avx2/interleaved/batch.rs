//! Products with several tokens: codes of 256 columns are unpacked once, then multiplied with all tokens.

use super::super::load;
use super::parts::{self, Token, widen};
use super::{Arithmetic, Mins, Tile, WORDS, groups_of_a_run};
use crate::interleaved::{Interleaved, ROWS};
use crate::{MatMut, Q8};
use bytemuck::Zeroable;
use core::arch::x86_64::*;

/// Tokens that are multiplied at a time.
const TOKENS: usize = 4;

/// Groups of rows that are multiplied at a time: they share activations.
const STRIPES: usize = 2;

/// Tokens that codes are unpacked for, at most.
const BATCH: usize = 128;

/// Bytes of activations that are multiplied with all rows before the next ones are: they stay in the second-level cache.
const BATCH_BYTES: usize = 192 << 10;

/// Groups of columns in a chunk.
const GROUPS: usize = 8;

/// A register for each group of rows.
type Stripes<V> = [V; STRIPES];

/// Sixteen rows of 256 columns, or the last ones, unpacked.
#[derive(Clone, Copy, Zeroable)]
struct Chunk {
    /// Groups that there are.
    count: usize,
    codes: [[Stripes<__m256i>; WORDS]; GROUPS],
    scale: [Stripes<__m256>; GROUPS],
    min: [Stripes<__m256>; GROUPS],
    half_scale: [[Stripes<__m256i>; 2]; GROUPS],
    half_mins: [Stripes<__m256i>; GROUPS],
    offsets: [Stripes<__m256i>; GROUPS],
}

/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn products<F: Tile<SPAN>, const SPAN: usize>(
    w: Interleaved<'_>,
    x: Q8<'_>,
    out: &mut MatMut<'_>,
) {
    let group = ROWS * w.layout().row_bytes();
    let batch = (BATCH_BYTES / x.cols).next_multiple_of(TOKENS).min(BATCH);
    let mut chunk = Chunk::zeroed();
    for first in (0..x.tokens()).step_by(batch) {
        let count = batch.min(x.tokens() - first);
        for (g, groups) in w.data().chunks(STRIPES * group).enumerate() {
            let mut sums = [[_mm256_setzero_ps(); STRIPES]; BATCH];
            let sums = &mut sums[..count];
            for c in 0..(x.cols / 32).div_ceil(GROUPS) {
                for (s, group) in groups.chunks_exact(group).enumerate() {
                    let tiles = group.chunks(GROUPS / F::GROUPS * F::BYTES).nth(c).unwrap_or_default();
                    // SAFETY: this function is compiled for the same features, so the CPU that runs
                    // it has them.
                    unsafe { chunk.unpack::<F, SPAN>(s, tiles) };
                }
                let (fours, rest) = sums.as_chunks_mut::<TOKENS>();
                let mut t = first;
                for sums in fours {
                    chunk.add::<F::Arithmetic, TOKENS>(&x, t, c, sums);
                    t += TOKENS;
                }
                for sums in rest.as_chunks_mut::<1>().0 {
                    chunk.add::<F::Arithmetic, 1>(&x, t, c, sums);
                    t += 1;
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                let rows = out.row(first + t)[STRIPES * ROWS * g..].chunks_mut(ROWS);
                for (sums, out) in sums.iter().zip(rows) {
                    match out.first_chunk_mut::<ROWS>() {
                        Some(out) => load::store(*sums, out),
                        None => load::store_part(*sums, out),
                    }
                }
            }
        }
    }
}

impl Chunk {
    /// Unpacks tiles that follow each other as group `s` of rows.
    ///
    /// # Safety
    /// - The CPU has AVX2, FMA and F16C.
    #[inline(always)]
    unsafe fn unpack<F: Tile<SPAN>, const SPAN: usize>(&mut self, s: usize, tiles: &[u8]) {
        self.count = 0;
        for tile in tiles.chunks_exact(F::BYTES).take(GROUPS / F::GROUPS) {
            let tile = tile.as_ptr();
            // SAFETY: the caller promises that the CPU has AVX2, FMA and F16C; `tile` has the bytes
            // of one, and there are at most eight groups.
            unsafe {
                let factors = F::factors(tile);
                for run in 0..F::GROUPS / SPAN {
                    groups_of_a_run!(SPAN, J => {
                        let g = run * SPAN + J;
                        let to = self.count + g;
                        for (k, words) in self.codes.get_unchecked_mut(to).iter_mut().enumerate() {
                            words[s] = F::codes::<J>(tile, run, k);
                        }
                        self.scale.get_unchecked_mut(to)[s] = F::scale(&factors, g);
                        self.min.get_unchecked_mut(to)[s] = F::min(&factors, g);
                        if F::Arithmetic::HALVES {
                            let halves = self.half_scale.get_unchecked_mut(to);
                            halves[0][s] = F::half_scale(tile, g, 0);
                            halves[1][s] = F::half_scale(tile, g, 1);
                            self.half_mins.get_unchecked_mut(to)[s] = F::half_mins(tile, g);
                            self.offsets.get_unchecked_mut(to)[s] = parts::offsets::<F, SPAN>(tile, g);
                        }
                    });
                }
            }
            self.count += F::GROUPS;
        }
    }

    /// Adds the products with `T` tokens from `t` on to `sums`. The chunk is number `c` of its rows.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<A: Arithmetic, const T: usize>(
        &self,
        x: &Q8<'_>,
        t: usize,
        c: usize,
        sums: &mut [Stripes<__m256>; T],
    ) {
        // SAFETY: this function is compiled for the same features, so the CPU that runs it has
        // them; tokens have all groups of columns that a row has.
        unsafe {
            let mut tokens = [Token::of(x, t, c * GROUPS); T];
            let mut totals = [[0.0; GROUPS]; T];
            for t in 0..T {
                tokens[t] = tokens[0].skip(t * (x.cols / 32));
                if A::MINS == Mins::PerGroup {
                    totals[t] = tokens[t].scaled_sums(self.count);
                }
            }
            for g in 0..self.count {
                let dots = self.dots::<A, T>(g, &tokens);
                for t in 0..T {
                    let d = tokens[t].d(g);
                    for s in 0..STRIPES {
                        let sum = &mut sums[t][s];
                        let scale = _mm256_mul_ps(self.scale.get_unchecked(g)[s], d);
                        *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][s]), scale, *sum);
                        let total = match A::MINS {
                            Mins::None => continue,
                            Mins::PerGroup => _mm256_set1_ps(*totals[t].get_unchecked(g)),
                            Mins::PerHalf => {
                                let mins = self.half_mins.get_unchecked(g)[s];
                                let total = _mm256_madd_epi16(mins, tokens[t].both_sums(g));
                                _mm256_mul_ps(_mm256_cvtepi32_ps(total), d)
                            }
                        };
                        *sum = _mm256_fmadd_ps(self.min.get_unchecked(g)[s], total, *sum);
                    }
                }
            }
        }
    }

    /// The integers of group `g` of columns, a row each, for each token.
    ///
    /// # Safety
    /// - The CPU has AVX2; there is such a group, and the tokens have its columns.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dots<A: Arithmetic, const T: usize>(&self, g: usize, x: &[Token; T]) -> [Stripes<__m256i>; T] {
        // SAFETY: the caller promises AVX2, such a group, and tokens with its columns.
        unsafe {
            let mut dots = [[_mm256_setzero_si256(); STRIPES]; T];
            for first in (0..WORDS).step_by(A::EXACT) {
                let mut sums = [[_mm256_setzero_si256(); STRIPES]; T];
                for k in first..first + A::EXACT {
                    let words = self.codes.get_unchecked(g)[k];
                    for t in 0..T {
                        let four = x[t].four(32 * g + 4 * k);
                        for s in 0..STRIPES {
                            let products = parts::products(words[s], four, A::EXACT == 1);
                            sums[t][s] = _mm256_add_epi16(sums[t][s], products);
                        }
                    }
                    sums.as_flattened_mut().iter_mut().for_each(|sum| pin(sum));
                }
                for s in 0..STRIPES {
                    let factor = match A::HALVES {
                        true => self.half_scale.get_unchecked(g)[first / 4][s],
                        false => _mm256_set1_epi16(1),
                    };
                    for t in 0..T {
                        dots[t][s] = widen(dots[t][s], sums[t][s], factor);
                    }
                }
            }
            if A::OFFSET != 0 {
                for (dots, x) in dots.iter_mut().zip(x) {
                    let both = x.both_sums(g);
                    for (dots, offset) in dots.iter_mut().zip(self.offsets.get_unchecked(g)) {
                        *dots = _mm256_sub_epi32(*dots, _mm256_madd_epi16(*offset, both));
                    }
                }
            }
            dots
        }
    }
}

/// Has the value in a register here. Otherwise the compiler multiplies all words with one token after the other, and
/// keeps words in memory meanwhile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pin(x: &mut __m256i) {
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("/* {} */", inout(ymm_reg) * x, options(pure, nomem, nostack, preserves_flags))
    };
}
