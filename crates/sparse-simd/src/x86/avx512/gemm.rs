//! Weights times many rows of activations.
//!
//! A tile is 32 weight rows by a few tokens. The weights of a tile are decoded once into a [`Panel`],
//! transposed so that a lane is a weight row, and multiplied with one broadcast dword of activations (four
//! columns) at a time. No horizontal sums, and all tokens share the decoding.

use super::format::{Bytes, Format, STEP, bytes, first, floats};
use super::transpose::transpose;
use crate::{MatMut, Q8, Rows};
use core::arch::x86_64::*;

/// Weight rows of a tile: two vectors of 16.
pub(super) const ROWS: usize = 32;

/// Tokens of a tile: with two accumulators each, integer and float, they fill the registers.
const TOKENS: usize = 6;

/// Columns of a panel, a multiple of all steps.
pub(super) const COLS: usize = 512;

/// A vector for each half of the tile's rows.
type Pair<T> = [[T; 16]; 2];

/// Decoded weights of a tile.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Four codes per lane.
    pub(super) codes: [Pair<i32>; COLS / 4],
    /// Per sub-block.
    pub(super) scales: [Pair<f32>; COLS / 16],
    pub(super) mins: [Pair<f32>; COLS / 16],
}

/// What the tokens of a tile need beside codes and scales.
#[repr(C, align(64))]
pub(super) struct Corrections {
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
    let mut panel = Panel::new();
    let mut corrections = Corrections::new();
    for row in (0..w.rows()).step_by(ROWS) {
        let rows = w.slice(row..w.rows().min(row + ROWS));
        let mut out = out.columns(row..row + rows.rows());
        for from in (0..x.cols).step_by(COLS) {
            let cols = COLS.min(x.cols - from);
            // SAFETY: the caller promises the features of this level, weights in the format `F`,
            // and shapes that fit.
            unsafe { panel.fill::<F>(rows, from, cols) };
            // SAFETY: the features are enabled here, and the panel was just filled.
            unsafe { Tile { panel: &panel, x, from, cols }.multiply_all::<F>(&mut corrections, &mut out) };
        }
    }
}

impl Panel {
    pub(super) fn new() -> Self {
        Self {
            codes: [[[0; 16]; 2]; COLS / 4],
            scales: [[[0.0; 16]; 2]; COLS / 16],
            mins: [[[0.0; 16]; 2]; COLS / 16],
        }
    }

    /// Decodes columns `from..from + cols` of up to 32 rows. The lanes of missing rows keep what they had.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The format of `rows` is `F`, and the columns exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn fill<F: Format>(&mut self, rows: Rows<'_>, from: usize, cols: usize) {
        for half in 0..rows.rows().div_ceil(16) {
            let rows = rows.slice(16 * half..rows.rows().min(16 * half + 16));
            for step in 0..cols.div_ceil(STEP) {
                let offset = (from / STEP + step) * F::BYTES;
                // SAFETY: the caller promises the features of this level, rows in the format `F`,
                // and that the columns exist; the offset lies inside the rows.
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
            let decoded = unsafe { if full { F::decode::<true, 2>(w) } else { F::decode::<false, 2>(w) } };
            for (codes, vector) in codes.iter_mut().zip(&decoded.codes) {
                codes[r] = *vector;
            }
            scales[r] = _mm512_castps_si512(decoded.scales);
            mins[r] = _mm512_castps_si512(decoded.mins);
        }
        for (codes, groups) in codes.iter().zip(F::GROUPS) {
            let dwords = transpose(codes);
            for (i, dword) in dwords.into_iter().enumerate() {
                store(&mut self.codes[(step * STEP + 16 * groups[i / 4]) / 4 + i % 4][half], dword);
            }
        }
        let sub_blocks = STEP / F::SUB;
        let at = step * sub_blocks;
        for (to, lane) in self.scales[at..][..sub_blocks].iter_mut().zip(transpose(&scales)) {
            store(&mut to[half], lane);
        }
        if F::MINS != 0 {
            // With sub-blocks of 32 they follow the scales.
            let skip = if F::SUB == 32 { 8 } else { 0 };
            for (to, lane) in self.mins[at..][..sub_blocks].iter_mut().zip(&transpose(&mins)[skip..]) {
                store(&mut to[half], *lane);
            }
        }
    }
}

/// Stores a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn store<T: bytemuck::Pod>(to: &mut [T; 16], vector: __m512i) {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), vector) }
}

/// A panel and the columns that it holds.
pub(super) struct Tile<'a> {
    pub(super) panel: &'a Panel,
    pub(super) x: Q8<'a>,
    pub(super) from: usize,
    pub(super) cols: usize,
}

/// Products so far: for each token those with the two halves of the rows.
type Sums<const T: usize> = [[__m512; 2]; T];

impl<'a> Tile<'a> {
    /// Multiplies the panel with all tokens, and writes the products to `out`, or adds them if the columns are not
    /// the first.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The panel holds the columns, of a format `F`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) unsafe fn multiply_all<F: Format>(&self, corrections: &mut Corrections, out: &mut MatMut<'_>) {
        for t in (0..self.x.tokens()).step_by(TOKENS) {
            // SAFETY: the caller promises the features of this level, and that the panel holds the
            // columns, of the format `F`.
            unsafe {
                match self.x.tokens() - t {
                    1 => self.multiply::<F, 1>(t, corrections, out),
                    2 => self.multiply::<F, 2>(t, corrections, out),
                    3 => self.multiply::<F, 3>(t, corrections, out),
                    4 => self.multiply::<F, 4>(t, corrections, out),
                    5 => self.multiply::<F, 5>(t, corrections, out),
                    _ => self.multiply::<F, TOKENS>(t, corrections, out),
                }
            }
        }
    }

    /// Multiplies the panel with tokens `t..t + T`, and writes the products to `out`, or adds them if the
    /// columns are not the first.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The panel holds the columns, of a format `F`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn multiply<F: Format, const T: usize>(
        &self,
        t: usize,
        corrections: &mut Corrections,
        out: &mut MatMut<'_>,
    ) {
        let x: [Q8<'_>; T] = core::array::from_fn(|i| self.columns(t + i));
        for (i, x) in x.iter().enumerate() {
            corrections.set::<F>(i, x);
        }
        let sums = self.products::<F, T>(&x, corrections);
        let masks = [lanes(out.cols()), lanes(out.cols().saturating_sub(16))];
        for (i, sums) in sums.into_iter().enumerate() {
            let row = out.row(t + i).as_mut_ptr();
            for (h, (sum, mask)) in sums.into_iter().zip(masks).enumerate() {
                let at = row.wrapping_add(16 * h);
                // SAFETY: the masks end with the row.
                unsafe {
                    let sum = match self.from {
                        0 => sum,
                        _ => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sum),
                    };
                    _mm512_mask_storeu_ps(at, mask, sum);
                }
            }
        }
    }

    /// The columns of token `t`.
    fn columns(&self, t: usize) -> Q8<'a> {
        let (x, from, cols) = (self.x.row(t), self.from, self.cols);
        let (d, sums) = (&x.d[from / 32..][..cols / 32], &x.sums[from / 16..][..cols / 16]);
        Q8 { cols, q: &x.q[from..][..cols], d, sums }
    }

    /// The products of the panel with some tokens' columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    fn products<F: Format, const T: usize>(&self, x: &[Q8<'_>; T], corrections: &Corrections) -> Sums<T> {
        let mut sums = [[_mm512_setzero_ps(); 2]; T];
        for s in 0..self.cols / F::SUB {
            let mut integers = [[_mm512_setzero_si512(); 2]; T];
            if F::OFFSET != 0 {
                for (integers, starts) in integers.iter_mut().zip(&corrections.starts) {
                    *integers = [_mm512_set1_epi32(starts[s]); 2];
                }
            }
            for k in 0..F::SUB / 4 {
                let at = s * F::SUB / 4 + k;
                let [a, b] = &self.panel.codes[at];
                let (a, b) = (bytes(a), bytes(b));
                for (integers, x) in integers.iter_mut().zip(x) {
                    debug_assert!(4 * at + 4 <= x.q.len());
                    // SAFETY: `at` is below `cols / 4`.
                    let four = unsafe { x.q.as_ptr().cast::<i32>().add(at).read_unaligned() };
                    let four = _mm512_set1_epi32(four);
                    integers[0] = _mm512_dpbusd_epi32(integers[0], a, four);
                    integers[1] = _mm512_dpbusd_epi32(integers[1], b, four);
                }
            }
            let mut dx = [_mm512_setzero_ps(); T];
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = _mm512_set1_ps(x.d[s * F::SUB / 32]);
            }
            for h in 0..2 {
                let (scales, mins) = (floats(&self.panel.scales[s][h]), floats(&self.panel.mins[s][h]));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let scales = _mm512_mul_ps(scales, dx[i]);
                    sum[h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(integers[i][h]), scales, sum[h]);
                    if F::MINS != 0 {
                        sum[h] = _mm512_fmadd_ps(mins, _mm512_set1_ps(corrections.sums[i][s]), sum[h]);
                    }
                }
            }
        }
        sums
    }
}

impl Corrections {
    pub(super) fn new() -> Self {
        Self { starts: [[0; COLS / 16]; TOKENS], sums: [[0.0; COLS / 16]; TOKENS] }
    }

    /// Sets those of token `i` of the tile.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    fn set<F: Format>(&mut self, i: usize, x: &Q8<'_>) {
        let groups = F::SUB / 16;
        for (s, sums) in x.sums.chunks_exact(groups).enumerate() {
            let sum: i32 = sums.iter().map(|&s| i32::from(s)).sum();
            if F::MINS != 0 {
                self.sums[i][s] = x.d[s * groups / 2] * (F::MINS * sum) as f32;
            } else {
                self.starts[i][s] = -F::OFFSET * sum;
            }
        }
    }
}

/// A mask of the first `n` lanes, all 16 for more.
fn lanes(n: usize) -> u16 {
    first(n.min(16)) as u16
}
