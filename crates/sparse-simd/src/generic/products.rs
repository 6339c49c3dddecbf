//! Products with few tokens, which read the weights where they are: dot products of rows, and sums of rows.

use super::gemm::{self, GemmStep};
use crate::simd::{Simd, Stored, first, first_mut};
use crate::{Columns, MatMut, Rows};
use core::ops::Range;

/// Tokens from which packing weights for [`gemm`] is faster than reading them once for every few tokens.
const MANY: usize = 24;

/// How many times [`ROWS`] chosen rows or columns are fetched ahead.
const AHEAD: usize = 2;

/// Rows whose dot products are computed at a time: streams far enough apart that each is prefetched. As many chosen
/// columns are added at a time.
const ROWS: usize = 4;

/// `out[t][r]` = row `r` of `w` times token `t` of `x`.
#[inline(always)]
pub(crate) fn matmul<S: GemmStep, W: Stored>(s: S, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    if out.tokens() >= MANY {
        return gemm::transposed::<S, W>(s, w, x, out);
    }
    let quarter = w.rows() / ROWS;
    for r in 0..quarter {
        columns::<S, W, ROWS>(s, w, [r, quarter + r, 2 * quarter + r, 3 * quarter + r], x, out);
    }
    for r in ROWS * quarter..w.rows() {
        columns::<S, W, 1>(s, w, [r], x, out);
    }
}

/// Rows `r` times all tokens.
#[inline(always)]
fn columns<S: Simd, W: Stored, const R: usize>(
    s: S,
    w: Rows<'_>,
    r: [usize; R],
    x: &[f32],
    out: &mut MatMut<'_>,
) {
    let mut rows: [&[u8]; R] = [&[]; R];
    for (row, r) in rows.iter_mut().zip(r) {
        *row = w.row(r);
    }
    let mut t = 0;
    while t < out.tokens() {
        t += match out.tokens() - t {
            1 => dots::<S, W, R, 1>(s, rows, r, x, t, out),
            2 | 4 => dots::<S, W, R, 2>(s, rows, r, x, t, out),
            _ => dots::<S, W, R, 3>(s, rows, r, x, t, out),
        };
    }
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
#[inline(always)]
pub(crate) fn matmul_rows<S: Simd, W: Stored>(s: S, w: Rows<'_>, active: &[u32], x: &[f32], out: &mut [f32]) {
    if active.is_empty() {
        return;
    }
    let mut out = MatMut::new(out, active.len());
    let (active, rest) = active.as_chunks::<ROWS>();
    for (i, chosen) in active.iter().enumerate() {
        for next in active.get(i + AHEAD).map_or(rest, |next| next) {
            s.prefetch(w.row(*next as usize));
        }
        let (mut rows, mut at) = ([&[][..]; ROWS], [0; ROWS]);
        for k in 0..ROWS {
            (rows[k], at[k]) = (w.row(chosen[k] as usize), i * ROWS + k);
        }
        dots::<S, W, ROWS, 1>(s, rows, at, x, 0, &mut out);
    }
    for (i, r) in rest.iter().enumerate() {
        dots::<S, W, 1, 1>(s, [w.row(*r as usize)], [active.len() * ROWS + i], x, 0, &mut out);
    }
}

/// `rows`, which are outputs `r`, times tokens `t..t + T`; returns `T`.
#[inline(always)]
fn dots<S: Simd, W: Stored, const R: usize, const T: usize>(
    s: S,
    rows: [&[u8]; R],
    r: [usize; R],
    x: &[f32],
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    let cols = rows[0].len() / W::BYTES;
    let mut tokens: [&[f32]; T] = [&[]; T];
    for (token, x) in tokens.iter_mut().zip(x[t * cols..].chunks_exact(cols)) {
        *token = x;
    }
    // A row of four sums, though R may be fewer: the order of additions must not depend on it.
    let mut sums = [[s.splat(0.0); ROWS]; T];
    let whole = cols / S::LANES * S::LANES;
    let mut col = 0;
    while col < whole {
        for i in 0..R {
            // SAFETY: `col + LANES <= cols`.
            let w = unsafe { W::load(s, rows[i], col * W::BYTES) };
            for k in 0..T {
                // SAFETY: `col + LANES <= cols`; a token has `cols` values.
                let x = unsafe { f32::load(s, bytemuck::cast_slice(tokens[k]), col * f32::BYTES) };
                sums[k][i] = s.fma(w, x, sums[k][i]);
            }
        }
        col += S::LANES;
    }
    if whole < cols {
        for i in 0..R {
            let w = W::load_part(s, &rows[i][whole * W::BYTES..]);
            for k in 0..T {
                sums[k][i] = s.fma(w, s.load_part(&tokens[k][whole..], 0.0), sums[k][i]);
            }
        }
    }
    for (k, sums) in sums.into_iter().enumerate() {
        let out = out.row(t + k);
        for (r, sum) in r.iter().zip(s.sums(sums)) {
            out[*r] = sum;
        }
    }
    T
}

/// `out[t]` = sum over `r` of `x[t][r]` times row `r` of `w`.
#[inline(always)]
pub(crate) fn weighted_sum<S: GemmStep, W: Stored>(s: S, x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>) {
    // Without rows there is no first panel that would write zeros.
    if out.tokens() >= MANY / 2 && w.rows() > 0 {
        return gemm::straight::<S, W>(s, w, x, out);
    }
    let mut t = 0;
    while t < out.tokens() {
        t += match out.tokens() - t {
            1 => sum_columns::<S, W, 1>(s, w, x, t, out),
            2 | 4 => sum_columns::<S, W, 2>(s, w, x, t, out),
            _ => sum_columns::<S, W, 3>(s, w, x, t, out),
        };
    }
}

/// All columns of tokens `t..t + T`; returns `T`.
#[inline(always)]
fn sum_columns<S: Simd, W: Stored, const T: usize>(
    s: S,
    w: Rows<'_>,
    x: &[f32],
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    let x = &x[t * w.rows()..][..T * w.rows()];
    let mut col = 0;
    while w.cols() - col >= 4 * S::LANES {
        col += sum_tile::<S, W, T, 4>(s, w, x, t, col, out);
    }
    while w.cols() - col >= S::LANES {
        col += sum_tile::<S, W, T, 1>(s, w, x, t, col, out);
    }
    if col < w.cols() {
        let mut sums = [s.splat(0.0); T];
        for r in 0..w.rows() {
            let values = W::load_part(s, &w.row(r)[col * W::BYTES..]);
            for k in 0..T {
                sums[k] = s.fma(s.splat(x[k * w.rows() + r]), values, sums[k]);
            }
        }
        for (k, sum) in sums.into_iter().enumerate() {
            s.store_part(sum, &mut out.row(t + k)[col..]);
        }
    }
    T
}

/// `V` vectors from column `col` on, of tokens `t..t + T`; returns the number of columns.
#[inline(always)]
fn sum_tile<S: Simd, W: Stored, const T: usize, const V: usize>(
    s: S,
    w: Rows<'_>,
    x: &[f32],
    t: usize,
    col: usize,
    out: &mut MatMut<'_>,
) -> usize {
    assert!(x.len() == T * w.rows() && col + V * S::LANES <= w.cols());
    let mut sums = [[s.splat(0.0); V]; T];
    for r in 0..w.rows() {
        let mut values = [s.splat(0.0); V];
        for (v, values) in values.iter_mut().enumerate() {
            let at = r * w.row_bytes() + (col + v * S::LANES) * W::BYTES;
            // SAFETY: the vector ends inside row `r`, as was just checked.
            *values = unsafe { W::load(s, w.data(), at) };
        }
        for (k, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `k < T` and `r < rows`, and `x` has that many values.
            let x = s.splat(unsafe { *x.get_unchecked(k * w.rows() + r) });
            for (sum, values) in sums.iter_mut().zip(values) {
                *sum = s.fma(x, values, *sum);
            }
        }
    }
    for (k, sums) in sums.into_iter().enumerate() {
        let out = &mut out.row(t + k)[col..];
        for (v, sum) in sums.into_iter().enumerate() {
            s.store(sum, first_mut::<S>(&mut out[v * S::LANES..]));
        }
    }
    V * S::LANES
}

/// The dot product of `a` and `b`.
#[inline(always)]
pub(crate) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut sums = [s.splat(0.0); 4];
    let step = S::LANES;
    let mut i = 0;
    while a.len() - i >= 4 * step {
        for (v, sum) in sums.iter_mut().enumerate() {
            let at = i + v * step;
            *sum = s.fma(s.load(first::<S>(&a[at..])), s.load(first::<S>(&b[at..])), *sum);
        }
        i += 4 * step;
    }
    while a.len() - i >= step {
        sums[0] = s.fma(s.load(first::<S>(&a[i..])), s.load(first::<S>(&b[i..])), sums[0]);
        i += step;
    }
    sums[1] = s.fma(s.load_part(&a[i..], 0.0), s.load_part(&b[i..], 0.0), sums[1]);
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// `y += a * w` for stored values.
#[inline(always)]
pub(crate) fn axpy<S: Simd, W: Stored>(s: S, a: f32, w: &[u8], y: &mut [f32]) {
    axpys::<S, W, 1>(s, [a], [w], y);
}

/// `y += a[0] * w[0]`, then the others likewise, with `y` read and written once.
#[inline(always)]
fn axpys<S: Simd, W: Stored, const N: usize>(s: S, a: [f32; N], w: [&[u8]; N], y: &mut [f32]) {
    for w in w {
        assert_eq!(y.len() * W::BYTES, w.len());
    }
    let (y, y_rest) = crate::simd::split_mut::<S>(y);
    let whole = y.len();
    // Several vectors at a time: else counting them takes as many instructions as multiplying.
    let (strips, last) = y.as_chunks_mut::<4>();
    for (i, strip) in strips.iter_mut().enumerate() {
        axpy_vectors::<S, W, N, 4>(s, a, w, 4 * i, strip);
    }
    for (i, y) in last.iter_mut().enumerate() {
        axpy_vectors::<S, W, N, 1>(s, a, w, whole / 4 * 4 + i, core::array::from_mut(y));
    }
    if !y_rest.is_empty() {
        let mut sum = s.load_part(y_rest, 0.0);
        for k in 0..N {
            let rest = &w[k][whole * S::LANES * W::BYTES..];
            sum = s.fma(s.splat(a[k]), W::load_part(s, rest), sum);
        }
        s.store_part(sum, y_rest);
    }
}

/// [`axpys`] for `Y` vectors of `y`, of which the first is number `at`. All `w` have as many values as `y`.
#[inline(always)]
fn axpy_vectors<S: Simd, W: Stored, const N: usize, const Y: usize>(
    s: S,
    a: [f32; N],
    w: [&[u8]; N],
    at: usize,
    y: &mut [S::Floats; Y],
) {
    let bytes = S::LANES * W::BYTES;
    let mut sums = [s.splat(0.0); Y];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = s.load(&y[i]);
        for k in 0..N {
            // SAFETY: `w[k]` has a value for each of the vector's.
            *sum = s.fma(s.splat(a[k]), unsafe { W::load(s, w[k], (at + i) * bytes) }, *sum);
        }
    }
    for (sum, y) in sums.into_iter().zip(y) {
        s.store(sum, y);
    }
}

/// `out` = sum over the active columns of `h[c]` times the rows `rows` of column `c`. `w` is not quantized.
#[inline(always)]
pub(crate) fn axpy_columns<S: Simd, W: Stored>(
    s: S,
    w: Columns<'_>,
    active: &[u32],
    h: &[f32],
    rows: Range<usize>,
    out: &mut [f32],
) {
    let column = |c: u32| &w.column(c as usize)[rows.start * W::BYTES..rows.end * W::BYTES];
    out.fill(0.0);
    let (active, rest) = active.as_chunks::<ROWS>();
    for (i, chosen) in active.iter().enumerate() {
        for next in active.get(i + AHEAD).map_or(rest, |next| next) {
            s.prefetch(column(*next));
        }
        let (mut weights, mut columns) = ([0.0; ROWS], [&[][..]; ROWS]);
        for k in 0..ROWS {
            (weights[k], columns[k]) = (h[chosen[k] as usize], column(chosen[k]));
        }
        axpys::<S, W, ROWS>(s, weights, columns, out);
    }
    for c in rest {
        axpy::<S, W>(s, h[*c as usize], column(*c), out);
    }
}
