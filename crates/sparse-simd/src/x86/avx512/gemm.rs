//! Weights times many rows of activations.
//!
//! A tile is 32 weight rows by a few tokens. The weights of a tile are decoded once into a [`Panel`], transposed so
//! that a lane is a weight row, and multiplied with one broadcast dword of activations (four columns) at a time.
//! No horizontal sums, and all tokens share the decoding.

use super::format::{Bytes, Format, StepX};
use super::transpose::transpose;
use crate::{MatMut, Q8, Rows};
use core::arch::x86_64::*;

/// Weight rows of a tile: two vectors of 16.
const ROWS: usize = 32;

/// Tokens of a tile: with two accumulators each, integer and float, they fill the registers.
const TOKENS: usize = 6;

/// Columns of a panel, a multiple of all steps.
const COLS: usize = 512;

/// A vector for each half of the tile's rows.
type Pair<T> = [[T; 16]; 2];

/// Decoded weights of a tile.
#[repr(C, align(64))]
struct Panel {
    /// Four codes per lane.
    codes: [Pair<i32>; COLS / 4],
    /// Per sub-block.
    scales: [Pair<f32>; COLS / 16],
    mins: [Pair<f32>; COLS / 16],
}

/// What the tokens of a tile need beside codes and scales.
#[repr(C, align(64))]
struct Corrections {
    /// What the offset takes from the integer sum of each sub-block.
    starts: [[i32; COLS / 16]; TOKENS],
    /// The sum of the values of each sub-block.
    sums: [[f32; COLS / 16]; TOKENS],
}

/// `out[t][r]` = row `r` of `w` times token `t` of `x`.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, and the shapes fit together.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn gemm<F: Format>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    let mut panel = Panel {
        codes: [[[0; 16]; 2]; COLS / 4],
        scales: [[[0.0; 16]; 2]; COLS / 16],
        mins: [[[0.0; 16]; 2]; COLS / 16],
    };
    let mut fix = Corrections { starts: [[0; COLS / 16]; TOKENS], sums: [[0.0; COLS / 16]; TOKENS] };
    for row in (0..w.rows()).step_by(ROWS) {
        let rows = w.slice(row..w.rows().min(row + ROWS));
        let mut out = out.columns(row..row + rows.rows());
        for from in (0..x.cols).step_by(COLS) {
            let cols = COLS.min(x.cols - from);
            // SAFETY: the caller's promises.
            unsafe { panel.fill::<F>(rows, from, cols) };
            for t in (0..x.tokens()).step_by(TOKENS) {
                let tile = Tile { panel: &panel, x, from, cols };
                // SAFETY: the features are enabled here.
                unsafe {
                    match x.tokens() - t {
                        1 => tile.multiply::<F, 1>(t, &mut fix, &mut out),
                        2 => tile.multiply::<F, 2>(t, &mut fix, &mut out),
                        3 => tile.multiply::<F, 3>(t, &mut fix, &mut out),
                        4 => tile.multiply::<F, 4>(t, &mut fix, &mut out),
                        5 => tile.multiply::<F, 5>(t, &mut fix, &mut out),
                        _ => tile.multiply::<F, TOKENS>(t, &mut fix, &mut out),
                    }
                }
            }
        }
    }
}

impl Panel {
    /// Decodes columns `from..from + cols` of up to 32 rows. The lanes of missing rows keep what they had.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The format of `rows` is `F`, and the columns exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn fill<F: Format>(&mut self, rows: Rows<'_>, from: usize, cols: usize) {
        for half in 0..rows.rows().div_ceil(16) {
            let rows = rows.slice(16 * half..rows.rows().min(16 * half + 16));
            for step in 0..cols.div_ceil(F::VALUES) {
                let offset = (from / F::VALUES + step) * F::BYTES;
                // SAFETY: the caller's promises; the offset lies inside the rows.
                unsafe { self.fill_step::<F>(rows, offset, step, half) };
            }
        }
    }

    /// Decodes the step at byte `offset` of up to 16 rows.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The format of `rows` is `F`, and `offset` lies inside a row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn fill_step<F: Format>(&mut self, rows: Rows<'_>, offset: usize, step: usize, half: usize) {
        let mut codes = [[_mm512_setzero_si512(); 16]; 4];
        let (mut scales, mut mins) = ([_mm512_setzero_si512(); 16], [_mm512_setzero_si512(); 16]);
        for r in 0..rows.rows() {
            let bytes = &rows.row(r)[offset..];
            let w = Bytes { at: bytes.as_ptr(), len: bytes.len() };
            let full = bytes.len() >= F::BYTES;
            // SAFETY: the bytes of `w` are a slice.
            let decoded = unsafe { if full { F::decode::<true>(w) } else { F::decode::<false>(w) } };
            for (codes, vector) in codes.iter_mut().zip(decoded.codes.as_ref()) {
                codes[r] = *vector;
            }
            scales[r] = _mm512_castps_si512(decoded.scales);
            mins[r] = _mm512_castps_si512(decoded.mins);
        }
        for (codes, groups) in codes.iter().zip(F::GROUPS) {
            let dwords = transpose(codes);
            for (i, dword) in dwords.into_iter().enumerate() {
                store(&mut self.codes[(step * F::VALUES + 16 * groups[i / 4]) / 4 + i % 4][half], dword);
            }
        }
        let sub_blocks = F::VALUES / F::SUB;
        let lanes = transpose(&scales);
        for s in 0..sub_blocks {
            store(&mut self.scales[step * sub_blocks + s][half], lanes[F::SCALES.0 + s * F::SCALES.1]);
        }
        if F::MINS != 0 {
            let lanes = transpose(&mins);
            for s in 0..sub_blocks {
                store(
                    &mut self.mins[step * sub_blocks + s][half],
                    lanes[F::MIN_LANES.0 + s * F::MIN_LANES.1],
                );
            }
        }
    }
}

/// Stores a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn store<T: bytemuck::Pod>(to: &mut [T; 16], vector: __m512i) {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), vector) }
}

/// A panel and the columns that it holds.
struct Tile<'a> {
    panel: &'a Panel,
    x: Q8<'a>,
    from: usize,
    cols: usize,
}

impl Tile<'_> {
    /// Multiplies the panel with tokens `t..t + T`.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn multiply<F: Format, const T: usize>(
        &self,
        t: usize,
        fix: &mut Corrections,
        out: &mut MatMut<'_>,
    ) {
        let tokens: [StepX<'_>; T] = core::array::from_fn(|i| {
            let x = self.x.row(t + i);
            StepX {
                q: &x.q[self.from..][..self.cols],
                d: &x.d[self.from / 32..][..self.cols / 32],
                sums: &x.sums[self.from / 16..][..self.cols / 16],
            }
        });
        for (i, x) in tokens.iter().enumerate() {
            let per = F::SUB / 16;
            for (s, sums) in x.sums.chunks_exact(per).enumerate() {
                let sum: i32 = sums.iter().map(|&s| i32::from(s)).sum();
                if F::MINS != 0 {
                    fix.sums[i][s] = x.d[s * per / 2] * (F::MINS * sum) as f32;
                } else {
                    fix.starts[i][s] = -F::OFFSET * sum;
                }
            }
        }

        let columns = out.cols();
        let masks = [lanes(columns), lanes(columns.saturating_sub(16))];
        let mut sums = [[_mm512_setzero_ps(); 2]; T];
        if self.from > 0 {
            for i in 0..T {
                let row = out.row(t + i);
                for h in 0..2 {
                    // SAFETY: the mask ends with the row.
                    sums[i][h] =
                        unsafe { _mm512_maskz_loadu_ps(masks[h], row.as_ptr().wrapping_add(16 * h)) };
                }
            }
        }
        for block in 0..self.cols / 32 {
            let scale: [__m512; T] = core::array::from_fn(|i| _mm512_set1_ps(tokens[i].d[block]));
            for part in 0..32 / F::SUB {
                let s = block * (32 / F::SUB) + part;
                let mut integers = [[_mm512_setzero_si512(); 2]; T];
                if F::OFFSET != 0 {
                    for i in 0..T {
                        integers[i] = [_mm512_set1_epi32(fix.starts[i][s]); 2];
                    }
                }
                for k in 0..F::SUB / 4 {
                    let at = s * F::SUB / 4 + k;
                    let codes = self.panel.codes[at].each_ref().map(|c| super::format::bytes(c));
                    for i in 0..T {
                        // SAFETY: `at` is below `cols / 4`.
                        let four = unsafe { tokens[i].q.as_ptr().cast::<i32>().add(at).read_unaligned() };
                        let four = _mm512_set1_epi32(four);
                        for h in 0..2 {
                            integers[i][h] = _mm512_dpbusd_epi32(integers[i][h], codes[h], four);
                        }
                    }
                }
                for h in 0..2 {
                    let scales = super::format::floats(&self.panel.scales[s][h]);
                    let mins = super::format::floats(&self.panel.mins[s][h]);
                    for i in 0..T {
                        let d = _mm512_mul_ps(scales, scale[i]);
                        sums[i][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(integers[i][h]), d, sums[i][h]);
                        if F::MINS != 0 {
                            sums[i][h] = _mm512_fmadd_ps(mins, _mm512_set1_ps(fix.sums[i][s]), sums[i][h]);
                        }
                    }
                }
            }
        }
        for i in 0..T {
            let row = out.row(t + i);
            for h in 0..2 {
                // SAFETY: the mask ends with the row.
                unsafe {
                    _mm512_mask_storeu_ps(row.as_mut_ptr().wrapping_add(16 * h), masks[h], sums[i][h]);
                }
            }
        }
    }
}

/// A mask of the first `n` lanes, all 16 for more.
fn lanes(n: usize) -> u16 {
    super::format::first(n.min(16)) as u16
}
