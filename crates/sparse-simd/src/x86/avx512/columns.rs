//! Products with weights stored by columns.

mod codes;

use super::format::Format;
use super::gemm::{COLS, Corrections, Panel, ROWS, Tile, store};
use crate::columns::{Either, SubScales};
use crate::generic::columns::{CHUNK, ColumnKernel, Fours, Group, sum};
use crate::layout::Block;
use crate::{BlockFormat, Columns, MatMut, Q8};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// Tokens from which unpacking weights for all of them is faster than reading them per token.
const MANY: usize = 2;

/// A format whose codes may be stored by columns.
pub(super) trait ColumnFormat: Format {
    type Block: Block;

    /// The codes of a chunk of a column, unsigned as [`Format`] has them, in the order of
    /// [`place`](crate::columns::place).
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The chunk can be read at `at`.
    unsafe fn codes(at: *const u8) -> __m512i;
}

/// The kernel of a format.
struct Kernel<F>(PhantomData<F>);

impl<F: ColumnFormat> ColumnKernel for Kernel<F> {
    const FORMAT: BlockFormat = F::Block::FORMAT;
    const OFFSET: i32 = F::OFFSET;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn chunk(columns: &Fours, offset: usize, group: &Group, row: usize, out: &mut [f32; CHUNK]) {
        let mut sums = [_mm512_set1_epi32(group.begin); 4];
        for (columns, h) in columns.iter() {
            // SAFETY: the caller promises the features of this level, the format `F`, and that the
            // columns and the group have the chunk.
            let codes = unsafe { interleaved::<F>(columns, offset) };
            for (sum, codes) in sums.iter_mut().zip(codes) {
                *sum = _mm512_dpbusd_epi32(*sum, codes, _mm512_set1_epi32(h));
            }
        }
        let (dh, total) = (_mm512_set1_ps(group.dh), _mm512_set1_ps(group.total));
        for (v, (out, codes)) in out.as_chunks_mut::<16>().0.iter_mut().zip(sums).enumerate() {
            // SAFETY: the caller promises the features of this level, the format `F`, and that the
            // columns and the group have the chunk.
            let (scales, mins) = unsafe { factors::<F>(group, row + 16 * v) };
            // SAFETY: sixteen floats.
            let before = unsafe { _mm512_loadu_ps(out.as_ptr()) };
            let mut sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), _mm512_mul_ps(scales, dh), before);
            if F::MINS != 0 {
                sum = _mm512_fmadd_ps(mins, total, sum);
            }
            // SAFETY: sixteen floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}

/// The products of one token, compiled once for both.
///
/// # Safety
/// As for [`Table`](crate::table::Table).
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn one<F: ColumnFormat>(
    w: Columns<'_>,
    active: Either<'_>,
    h: Q8<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    // SAFETY: the caller promises the level's instructions, and shapes that fit.
    unsafe { sum::<Kernel<F>>(w, active, h, rows, out) }
}

/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn axpy<F: ColumnFormat>(
    w: Columns<'_>,
    active: &[u32],
    h: Q8<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    // SAFETY: the caller promises the level's instructions, and shapes that fit.
    unsafe { one::<F>(w, Either::Some(active), h, rows, out) }
}

/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn matmul<F: ColumnFormat>(
    w: Columns<'_>,
    x: Q8<'_>,
    rows: Range<usize>,
    out: &mut MatMut<'_>,
) {
    // SAFETY: the caller promises the level's instructions, and shapes that fit.
    unsafe {
        if x.tokens() >= MANY {
            return gemm::<F>(w, x, rows, out);
        }
        for t in 0..x.tokens() {
            one::<F>(w, Either::All(w.cols()), x.row(t), rows.clone(), out.row(t));
        }
    }
}

/// The scales and minima of rows `row..row + 16`.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The group's format is `F`, and it has the rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn factors<F: ColumnFormat>(group: &Group, row: usize) -> (__m512, __m512) {
    // SAFETY: the caller promises the features of this level, and that the group has the rows, in
    // the format `F`.
    let halves =
        |at: *const u8| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.wrapping_add(2 * row).cast())) };
    // SAFETY: the caller promises the features of this level, and that the group has the rows, in
    // the format `F`.
    let eight = |at: *const u8| unsafe { _mm_loadu_si128(at.wrapping_add(row).cast()) };
    let signed = |x| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x));
    let d = halves(group.d);
    let m = if F::MINS == 0 { _mm512_setzero_ps() } else { halves(group.m) };
    match <Kernel<F> as ColumnKernel>::RECIPE.subs {
        SubScales::None => (d, m),
        SubScales::Scale => (_mm512_mul_ps(d, signed(eight(group.scale))), m),
        SubScales::Both => {
            (_mm512_mul_ps(d, signed(eight(group.scale))), _mm512_mul_ps(m, signed(eight(group.min))))
        }
        SubScales::Nibbles => {
            let (both, mask) = (eight(group.scale), _mm_set1_epi8(15));
            let low = signed(_mm_and_si128(both, mask));
            let high = signed(_mm_and_si128(_mm_srli_epi16::<4>(both), mask));
            (_mm512_mul_ps(d, low), _mm512_mul_ps(m, high))
        }
    }
}

/// The codes of the chunk at `offset` of four columns: a lane has four of a row, and vectors are in the order of rows.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format is `F`, and the columns have that chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn interleaved<F: ColumnFormat>(columns: &[*const u8; 4], offset: usize) -> [__m512i; 4] {
    let [a, b, c, d] = *columns;
    // SAFETY: the caller promises the features of this level, the format `F`, and that the columns
    // have that chunk.
    let (a, b, c, d) = unsafe {
        (
            F::codes(a.wrapping_add(offset)),
            F::codes(b.wrapping_add(offset)),
            F::codes(c.wrapping_add(offset)),
            F::codes(d.wrapping_add(offset)),
        )
    };
    let (low_ab, high_ab) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (low_cd, high_cd) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(low_ab, low_cd),
        _mm512_unpackhi_epi16(low_ab, low_cd),
        _mm512_unpacklo_epi16(high_ab, high_cd),
        _mm512_unpackhi_epi16(high_ab, high_cd),
    ]
}

/// Many tokens: chunks of rows and some columns are unpacked for all of them.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, and the shapes fit together.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn gemm<F: ColumnFormat>(w: Columns<'_>, x: Q8<'_>, rows: Range<usize>, out: &mut MatMut<'_>) {
    let mut panels = [Panel::new(), Panel::new()];
    let mut corrections = Corrections::new();
    for chunk in rows.clone().step_by(CHUNK) {
        for from in (0..x.cols).step_by(COLS) {
            let cols = COLS.min(x.cols - from);
            // SAFETY: the caller promises the features of this level, weights in the format `F`,
            // and shapes that fit.
            unsafe { fill::<F>(&mut panels, w, chunk, from, cols) };
            for (panel, row) in panels.iter().zip((chunk..rows.end).step_by(ROWS)) {
                let mut out = out.columns(row - rows.start..(row + ROWS).min(rows.end) - rows.start);
                // SAFETY: the features are enabled here, and the panel was just filled.
                unsafe { Tile { panel, x, from, cols }.multiply_all::<F>(&mut corrections, &mut out) };
            }
        }
    }
}

/// Unpacks columns `from..from + cols` of the 64 rows from `chunk` on.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, and the rows and columns exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn fill<F: ColumnFormat>(
    panels: &mut [Panel; 2],
    w: Columns<'_>,
    chunk: usize,
    from: usize,
    cols: usize,
) {
    let recipe = <Kernel<F> as ColumnKernel>::RECIPE;
    for c in (0..cols).step_by(4) {
        let mut four = [core::ptr::null(); 4];
        for (i, column) in four.iter_mut().enumerate() {
            *column = w.column_ptr(from + c + i, recipe.group);
        }
        // SAFETY: the caller promises the features of this level, weights in the format `F`, and
        // that the rows and columns exist.
        let codes = unsafe { interleaved::<F>(&four, chunk / CHUNK * recipe.chunk_bytes()) };
        for (v, codes) in codes.into_iter().enumerate() {
            store(&mut panels[v / 2].codes[c / 4][v % 2], codes);
        }
    }
    for s in 0..cols / recipe.group {
        let group = Group::new::<Kernel<F>>(w, from + s * recipe.group, 0.0, 0);
        for v in 0..4 {
            // SAFETY: the caller promises the features of this level, weights in the format `F`,
            // and that the rows and columns exist.
            let (scales, mins) = unsafe { factors::<F>(&group, chunk + 16 * v) };
            let panel = &mut panels[v / 2];
            store(&mut panel.scales[s][v % 2], _mm512_castps_si512(scales));
            if F::MINS != 0 {
                store(&mut panel.mins[s][v % 2], _mm512_castps_si512(mins));
            }
        }
    }
}
