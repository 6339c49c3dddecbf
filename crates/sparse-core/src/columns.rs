//! Weight matrices stored column by column.

use alloc::vec;

use sparse_simd::{BlockFormat, ColumnLayout, Columns, MatMut};

use crate::{Activations, Compute, Error, Matrix, Storage};

/// A weight matrix `[rows x cols]` whose columns are contiguous ([`ColumnLayout`]): leaving a column out saves its
/// bytes. It holds the same numbers as the [`Matrix`] that it was made from.
#[derive(Clone, Debug)]
pub struct ColumnMatrix {
    layout: ColumnLayout,
    storage: Storage,
}

impl ColumnMatrix {
    /// Sorts the weights of `matrix` by columns. Nothing is rounded.
    ///
    /// # Errors
    /// If its format [cannot be stored by columns](BlockFormat::has_columns), or it is too large to address.
    pub fn from_rows(matrix: &Matrix) -> Result<Self, Error> {
        let layout = ColumnLayout::new(matrix.format(), matrix.rows(), matrix.cols())?;
        let storage =
            Storage::filled(layout.bytes(), |bytes| layout.relayout(matrix.to_rows().as_rows(), bytes));
        Ok(Self { layout, storage })
    }

    /// The matrix whose copy in `layout` is `storage`.
    ///
    /// # Errors
    /// If it has another length.
    pub fn new(layout: ColumnLayout, storage: Storage) -> Result<Self, Error> {
        Columns::new(layout, storage.bytes())?;
        Ok(Self { layout, storage })
    }

    /// Where its parts are.
    pub fn layout(&self) -> &ColumnLayout {
        &self.layout
    }

    /// The bytes.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The matrix that this was made from.
    pub fn to_rows(&self) -> Matrix {
        let format = self.format();
        let row_bytes = self.cols() / format.block_len() * format.block_bytes();
        let storage = Storage::filled(self.rows() * row_bytes, |bytes| self.as_columns().restore(bytes));
        Matrix::new(format, self.cols(), storage).expect("the shape it had")
    }

    /// The block format that the weights came in.
    pub fn format(&self) -> BlockFormat {
        self.layout.format()
    }

    /// Number of rows: outputs.
    pub fn rows(&self) -> usize {
        self.layout.rows()
    }

    /// Number of columns: inputs.
    pub fn cols(&self) -> usize {
        self.layout.cols()
    }

    /// Bytes that a product with all columns reads.
    pub fn bytes(&self) -> usize {
        self.layout.bytes()
    }

    /// Bytes that a product with the columns in `active` (ascending) reads: their codes, and the scales of every
    /// group of columns that one of them is in.
    pub fn bytes_of(&self, active: &[u32]) -> usize {
        self.layout.bytes_of(active)
    }

    fn as_columns(&self) -> Columns<'_> {
        Columns::new(self.layout, self.storage.bytes()).expect("made with this layout")
    }

    /// `out[t][r] = dot(row r, x[t])` for every token of the batch; `out` is `[tokens x rows]`.
    ///
    /// The numbers are those of [`Matrix::matmul`], added in another order, on any number of threads.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn matmul(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols(), "input width");
        let (w, k) = (self.as_columns(), compute.kernels);
        if self.format().is_quantized() {
            let out = MatMut::new(out, self.rows());
            compute.pool.for_columns(out, ColumnLayout::CHUNK, self.bytes(), |rows, mut out| {
                if !compute.is_each() {
                    return k.matmul_columns_q8(w, x.q8(), rows, &mut out);
                }
                for t in 0..x.tokens() {
                    k.matmul_columns_q8(w, x.q8().row(t), rows.clone(), &mut out.rows(t..t + 1));
                }
            });
        } else {
            // Columns of floats are cut into tokens, not rows: the kernel takes whole columns.
            let mut threads = vec![(); compute.pool.threads()];
            let tile = (x.tokens().div_ceil(compute.pool.threads()).max(1), self.rows());
            compute.pool.for_tiles(
                &mut threads,
                MatMut::new(out, self.rows()),
                tile,
                |(), tokens, _, mut out| {
                    // The kernel takes few tokens in another way than many.
                    let some = if compute.is_each() { 1 } else { tokens.len() };
                    for (i, x) in x.x()[tokens.start * self.cols()..tokens.end * self.cols()]
                        .chunks(some * self.cols())
                        .enumerate()
                    {
                        k.matmul_columns_f32(w, x, &mut out.rows(i * some..i * some + x.len() / self.cols()));
                    }
                },
            );
        }
    }

    /// The sum of the columns in `active`, each times its input: `out[r]` = sum over `c` in `active` of
    /// `w[r][c] * x[c]`, for one token. What `x` holds elsewhere must be zero.
    ///
    /// # Panics
    /// If the shapes do not match, `x` is not one token, or `active` is not strictly ascending and in range.
    pub fn axpy(&self, compute: &Compute, active: &[u32], x: &Activations, out: &mut [f32]) {
        axpy(self.as_columns(), compute, active, x, out);
    }
}

/// [`ColumnMatrix::axpy`] of columns wherever they are.
pub(crate) fn axpy(w: Columns<'_>, compute: &Compute, active: &[u32], x: &Activations, out: &mut [f32]) {
    assert_eq!(out.len(), w.rows(), "output width");
    let k = compute.kernels;
    let work = active.len() * w.layout().column_bytes();
    // Every part walks over all columns: one for a thread that is alone, two for each of several.
    let parts = match compute.pool.threads() {
        1 => 1,
        threads => 2 * threads,
    };
    let grain = w.rows().div_ceil(parts).next_multiple_of(ColumnLayout::CHUNK);
    let out = MatMut::new(out, w.rows());
    compute.pool.for_columns(out, grain, work, |rows, mut out| {
        let out = out.row(0);
        if w.format().is_quantized() {
            k.axpy_columns_q8(w, active, x.q8(), rows, out);
        } else {
            k.axpy_columns_f32(w, active, x.x(), rows, out);
        }
    });
}
