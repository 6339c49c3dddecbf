//! Products with some rows or some columns of a matrix.

use super::{Kernels, same_len};
use crate::{ColumnLayout, Columns, MatMut, Q8, Rows, q8};
use core::ops::Range;

impl Kernels {
    /// Products of some rows of quantized weights with one token: `out[i]` = row `active[i]` of `w` times `x`, whatever
    /// the order of `active`.
    ///
    /// # Panics
    /// If the shapes do not fit together, `x` is not one token, `active` names a row that does not exist, or `w` is not quantized (see [`matmul_rows_f32`](Self::matmul_rows_f32)).
    pub fn matmul_rows_q8(&self, w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
        q8::check(x.cols, x.q.len(), x.d.len(), x.sums.len());
        same_len("matmul_rows_q8", "w.cols", w.cols(), "x.cols", x.cols);
        same_len("matmul_rows_q8", "x.tokens", x.tokens(), "one", 1);
        same_len("matmul_rows_q8", "active", active.len(), "out", out.len());
        exist("matmul_rows_q8", active, w.rows());
        let kernel = self.int8_products("matmul_rows", w.format()).rows;
        // SAFETY: the shapes fit and the rows exist, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, active, x, out) }
    }

    /// Like [`matmul_rows_q8`](Self::matmul_rows_q8), of float weights and one token `x` of f32.
    ///
    /// # Panics
    /// If the shapes do not fit together, `active` names a row that does not exist, or `w` is quantized.
    pub fn matmul_rows_f32(&self, w: Rows<'_>, active: &[u32], x: &[f32], out: &mut [f32]) {
        same_len("matmul_rows_f32", "active", active.len(), "out", out.len());
        exist("matmul_rows_f32", active, w.rows());
        same_len("matmul_rows_f32", "x", x.len(), "w.cols", w.cols());
        let kernel = self.float_products("matmul_rows", w.format()).rows;
        // SAFETY: the shapes fit and the rows exist, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, active, x, out) }
    }

    /// The sum of some weighted rows: `out[c - cols.start]` = sum over `i` of `h[i] * w[active[i]][c]`, for the columns
    /// `cols`. With neurons that are stored as rows, this is the product with their down projection.
    ///
    /// All formats have it; weights are decoded to f32, nothing else is rounded. (That is fast for blocks of 32 only: the
    /// K formats are slower by a multiple.) `h` has a value per active row. Each
    /// column is summed in the order of `active`, which may be any, and by itself: its result does not depend on `cols`. See
    /// [`weighted_sum`](Self::weighted_sum) for all rows and many tokens.
    ///
    /// # Panics
    /// If the shapes do not fit together, `cols` is out of bounds or does not consist of whole blocks, or `active`
    /// names a row that does not exist.
    pub fn axpy_rows(&self, w: Rows<'_>, active: &[u32], h: &[f32], cols: Range<usize>, out: &mut [f32]) {
        out.fill(0.0);
        self.add_rows(w, active, h, cols, out);
    }

    /// Like [`axpy_rows`](Self::axpy_rows), added to what `out` holds: with parts of the rows one after the other it gives
    /// what it gives with all of them.
    ///
    /// # Panics
    /// As [`axpy_rows`](Self::axpy_rows).
    pub fn add_rows(&self, w: Rows<'_>, active: &[u32], h: &[f32], cols: Range<usize>, out: &mut [f32]) {
        same_len("axpy_rows", "active", active.len(), "h", h.len());
        same_len("axpy_rows", "cols", cols.len(), "out", out.len());
        let (len, bound) = (w.format().block_len(), w.cols());
        assert!(cols.start <= cols.end && cols.end <= bound, "axpy_rows: columns {cols:?} of {bound}");
        assert!(
            cols.start.is_multiple_of(len) && cols.end.is_multiple_of(len),
            "axpy_rows: columns {cols:?} are no whole blocks of {len}"
        );
        exist("axpy_rows", active, w.rows());
        // SAFETY: the shapes fit and the rows exist, and a table is only handed out on CPUs of its level.
        unsafe { (self.of(w.format()).add_rows)(w, active, h, cols, out) }
    }

    /// The sum of some columns of quantized weights: `out[r - rows.start]` = sum over the columns `c` in `active` of
    /// `w[r][c] * h[c]`, for the rows `rows`.
    ///
    /// `h` is one token of all columns; what it holds for columns that are not active does not matter, but that they
    /// had their part in the scale of their block of 32. If they were zero, this is the product of
    /// [`matmul_q8`](Self::matmul_q8), with floats added in another order. A row's result does not depend on `rows`.
    ///
    /// # Panics
    /// If the shapes do not fit together, `h` is not one token, `rows` does not begin at a multiple of
    /// [`ColumnLayout::CHUNK`] or is out of bounds, `active` is not strictly ascending or names a column that does
    /// not exist, or `w` is not quantized (see [`axpy_columns_f32`](Self::axpy_columns_f32)).
    pub fn axpy_columns_q8(
        &self,
        w: Columns<'_>,
        active: &[u32],
        h: Q8<'_>,
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        q8::check(h.cols, h.q.len(), h.d.len(), h.sums.len());
        same_len("axpy_columns_q8", "w.cols", w.cols(), "h.cols", h.cols);
        same_len("axpy_columns_q8", "h.tokens", h.tokens(), "one", 1);
        same_len("axpy_columns_q8", "rows", rows.len(), "out", out.len());
        chunks("axpy_columns_q8", &rows, w.rows());
        ascending("axpy_columns_q8", active, w.cols());
        w.check_places(active);
        let kernel = self.column_products("axpy_columns", w.format()).axpy;
        // SAFETY: the shapes fit and the columns exist, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, active, h, rows, out) }
    }

    /// Products of quantized weights by columns with int8 activations: `out[t][r - rows.start]` = row `r` of `w`
    /// times token `t` of `x`, for the rows `rows`. The dense counterpart of
    /// [`axpy_columns_q8`](Self::axpy_columns_q8), for one token or many.
    ///
    /// # Panics
    /// If the shapes do not fit together, `rows` does not begin at a multiple of [`ColumnLayout::CHUNK`] or is out
    /// of bounds, or `w` is not quantized (see [`matmul_columns_f32`](Self::matmul_columns_f32)).
    pub fn matmul_columns_q8(&self, w: Columns<'_>, x: Q8<'_>, rows: Range<usize>, out: &mut MatMut<'_>) {
        q8::check(x.cols, x.q.len(), x.d.len(), x.sums.len());
        same_len("matmul_columns_q8", "w.cols", w.cols(), "x.cols", x.cols);
        same_len("matmul_columns_q8", "rows", rows.len(), "out.cols", out.cols());
        same_len("matmul_columns_q8", "x.tokens", x.tokens(), "out.tokens", out.tokens());
        chunks("matmul_columns_q8", &rows, w.rows());
        assert!(!w.is_apart(), "matmul_columns_q8: codes are apart");
        let kernel = self.column_products("matmul_columns", w.format()).matmul;
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, x, rows, out) }
    }

    /// Like [`axpy_columns_q8`](Self::axpy_columns_q8), of float weights and one token `h` of f32.
    ///
    /// # Panics
    /// If the shapes do not fit together, `rows` is out of bounds, `active` is not strictly ascending or names a
    /// column that does not exist, or `w` is quantized.
    pub fn axpy_columns_f32(
        &self,
        w: Columns<'_>,
        active: &[u32],
        h: &[f32],
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        same_len("axpy_columns_f32", "w.cols", w.cols(), "h", h.len());
        same_len("axpy_columns_f32", "rows", rows.len(), "out", out.len());
        chunks("axpy_columns_f32", &rows, w.rows());
        ascending("axpy_columns_f32", active, w.cols());
        w.check_places(active);
        let kernel = self.float_products("axpy_columns", w.format()).axpy_columns;
        // SAFETY: the shapes fit and the columns exist, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, active, h, rows, out) }
    }

    /// Like [`matmul_columns_q8`](Self::matmul_columns_q8), of float weights and all their rows, with activations
    /// `x`, `[tokens x w.cols()]`.
    ///
    /// # Panics
    /// If the shapes do not fit together, or `w` is quantized.
    pub fn matmul_columns_f32(&self, w: Columns<'_>, x: &[f32], out: &mut MatMut<'_>) {
        self.float_products("matmul_columns", w.format());
        assert!(!w.is_apart(), "matmul_columns_f32: columns are apart");
        same_len("matmul_columns_f32", "w.rows", w.rows(), "out.cols", out.cols());
        // Columns of floats are the rows of the transposed matrix. Without rows there is nothing to compute.
        if let Ok(transposed) = Rows::new(w.format(), w.rows(), w.data()) {
            self.weighted_sum(x, transposed, out);
        }
    }
}

/// Panics unless all of `active` is below `bound`.
#[track_caller]
fn exist(kernel: &str, active: &[u32], bound: usize) {
    // All of them, so that the loop vectorizes.
    let last = active.iter().fold(0, |last, r| last.max(*r));
    assert!(
        active.is_empty() || (last as usize) < bound,
        "{kernel}: active has {last}, but there are {bound}"
    );
}

/// Panics unless `active` is strictly ascending and below `bound`.
#[track_caller]
fn ascending(kernel: &str, active: &[u32], bound: usize) {
    assert!(active.is_sorted_by(|a, b| a < b), "{kernel}: active is not strictly ascending");
    if let Some(&last) = active.last() {
        assert!((last as usize) < bound, "{kernel}: active has {last}, but there are {bound}");
    }
}

/// Panics unless `rows` begins with a chunk and ends inside.
#[track_caller]
fn chunks(kernel: &str, rows: &Range<usize>, bound: usize) {
    assert!(rows.start <= rows.end && rows.end <= bound, "{kernel}: rows {rows:?} of {bound}");
    let chunk = ColumnLayout::CHUNK;
    assert!(
        rows.start.is_multiple_of(chunk),
        "{kernel}: rows {rows:?} do not begin at a multiple of {chunk}"
    );
}
