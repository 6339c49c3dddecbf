//! Weight matrices in their block format.

use alloc::borrow::Cow;
#[cfg(feature = "std")]
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use sparse_simd::layout::ShapeError;
use sparse_simd::{BlockFormat, Interleaved, InterleavedLayout, Kernels, MatMut, Rows};

use crate::rows::{RowSet, grain};
use crate::{Activations, Compute};

/// Rows that a worker takes at a time, at least: fewer make the kernels' row streams too short.
pub(crate) const GRAIN_ROWS: usize = 32;
/// Columns of weighted rows that a worker takes at a time, at least: whole cache lines of every format.
pub(crate) const GRAIN_COLUMNS: usize = 128;

/// Bytes from which pages of 2 MB are asked for: less has no room for one.
#[cfg(feature = "std")]
const HUGE: usize = 2 << 20;

/// Where the bytes of a matrix live.
#[derive(Clone)]
#[non_exhaustive]
pub enum Storage {
    /// In memory of its own.
    Owned(Vec<u8>),
    /// In the program itself: in the flash of a microcontroller, say.
    Static(&'static [u8]),
    /// In a part of something shared, usually a memory-mapped file.
    #[cfg(feature = "std")]
    Shared {
        /// What holds the bytes.
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        /// Which of its bytes.
        range: Range<usize>,
    },
}

impl Storage {
    /// `len` bytes that `fill` is given, zero, to write: of a weight matrix that is not in a file. Large ones are in pages of
    /// 2 MB where the system has them: rows and columns that are read here and there then cost far fewer look-ups of
    /// addresses.
    pub fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let mut room = Room::zeros(len);
        fill(room.bytes());
        room.into_storage()
    }

    /// What holds the bytes, to be shared: all of them, but of [`Shared`](Self::Shared) those around its range, too.
    #[cfg(feature = "std")]
    pub fn into_shared(self) -> Arc<dyn AsRef<[u8]> + Send + Sync> {
        match self {
            Self::Owned(bytes) => Arc::new(bytes),
            Self::Static(bytes) => Arc::new(bytes),
            Self::Shared { owner, .. } => owner,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
            #[cfg(feature = "std")]
            Self::Shared { owner, range } => &(**owner).as_ref()[range.clone()],
        }
    }
}

/// Memory of a [`Storage`] while it is written.
#[derive(Debug)]
pub(crate) enum Room {
    #[cfg(feature = "std")]
    Huge(crate::memory::Memory),
    Plain(Vec<u8>),
}

impl Room {
    /// `len` zero bytes, in pages of 2 MB if they are many and the system has such pages.
    pub(crate) fn zeros(len: usize) -> Self {
        #[cfg(feature = "std")]
        if len >= HUGE
            && let Ok(memory) = crate::memory::huge(len)
        {
            return Self::Huge(memory);
        }
        Self::Plain(vec![0; len])
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            #[cfg(feature = "std")]
            Self::Huge(memory) => memory,
            Self::Plain(bytes) => bytes,
        }
    }

    pub(crate) fn into_storage(self) -> Storage {
        match self {
            #[cfg(feature = "std")]
            Self::Huge(memory) => {
                let range = 0..memory.len();
                Storage::Shared { owner: Arc::new(memory), range }
            }
            Self::Plain(bytes) => Storage::Owned(bytes),
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Owned(_) => "owned",
            Self::Static(_) => "static",
            #[cfg(feature = "std")]
            Self::Shared { .. } => "shared",
        };
        write!(f, "{} {kind} bytes", self.bytes().len())
    }
}

/// A weight matrix `[rows x cols]`; row `r` holds the weights of output `r`, in blocks of `format`.
///
/// A new matrix has contiguous rows. [`interleave`] stores them by eights where that is faster.
///
/// [`interleave`]: crate::interleave
#[derive(Clone, Debug)]
pub struct Matrix {
    format: BlockFormat,
    cols: usize,
    storage: Storage,
    /// How rows are interleaved, if they are.
    layout: Option<InterleavedLayout>,
}

impl Matrix {
    /// A matrix over `storage`, which holds whole rows of `cols` values.
    ///
    /// # Errors
    /// If `cols` is zero or no multiple of the format's block length, or the bytes are no whole number of rows.
    pub fn new(format: BlockFormat, cols: usize, storage: Storage) -> Result<Self, ShapeError> {
        Rows::new(format, cols, storage.bytes())?;
        Ok(Self { format, cols, storage, layout: None })
    }

    /// The same matrix with its rows interleaved in `storage`, as `layout` says.
    #[cfg(feature = "std")]
    pub(crate) fn set_interleaved(&mut self, layout: InterleavedLayout, storage: Storage) {
        assert_eq!((self.rows(), self.cols, self.format), (layout.rows(), layout.cols(), layout.format()));
        assert_eq!(storage.bytes().len(), layout.bytes(), "bytes of interleaved rows");
        (self.layout, self.storage) = (Some(layout), storage);
    }

    /// Whether rows are interleaved.
    pub fn is_interleaved(&self) -> bool {
        self.layout.is_some()
    }

    /// The same matrix with contiguous rows.
    pub fn to_rows(&self) -> Cow<'_, Self> {
        let Some(w) = self.interleaved() else { return Cow::Borrowed(self) };
        let len = w.layout().rows() * w.layout().row_bytes();
        let storage = Storage::filled(len, |bytes| w.restore(bytes));
        Cow::Owned(Self { storage, layout: None, ..*self })
    }

    /// The same matrix with contiguous rows in memory of its own: this one may be in a file.
    pub fn to_memory(&self) -> Self {
        let rows = self.to_rows();
        let bytes = rows.storage.bytes();
        let storage = Storage::filled(bytes.len(), |memory| memory.copy_from_slice(bytes));
        Self { storage, layout: None, ..*self }
    }

    /// Makes rows contiguous again, for a matrix whose rows are used one by one.
    pub fn make_rows(&mut self) {
        if let Cow::Owned(rows) = self.to_rows() {
            *self = rows;
        }
    }

    /// A matrix of f32 values, row by row.
    ///
    /// # Errors
    /// If `cols` is zero, or the values are no whole number of rows.
    pub fn from_f32(cols: usize, values: impl IntoIterator<Item = f32>) -> Result<Self, ShapeError> {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self::new(BlockFormat::F32, cols, Storage::Owned(bytes))
    }

    /// The block format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows: outputs.
    pub fn rows(&self) -> usize {
        self.layout.map_or_else(|| self.as_rows().rows(), |layout| layout.rows())
    }

    /// Values per row: inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.layout.map_or_else(|| self.as_rows().row_bytes(), |layout| layout.row_bytes())
    }

    /// Bytes of all rows, without what [interleaving](crate::interleave) adds to fill the last eight.
    pub fn bytes(&self) -> usize {
        self.layout.map_or(self.storage.bytes().len(), |layout| layout.rows() * layout.row_bytes())
    }

    /// The rows, which are contiguous.
    pub(crate) fn as_rows(&self) -> Rows<'_> {
        assert!(self.layout.is_none(), "rows are interleaved");
        Rows::new(self.format, self.cols, self.storage.bytes()).expect("checked by Matrix::new")
    }

    fn interleaved(&self) -> Option<Interleaved<'_>> {
        let of = |layout| Interleaved::new(layout, self.storage.bytes()).expect("checked when it was set");
        self.layout.map(of)
    }

    /// Decodes row `r` into `out` (`cols` values): the embedding lookup.
    ///
    /// # Panics
    /// If `r` is out of range or `out` has another length than `cols`.
    pub fn decode_row(&self, r: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "row length");
        let Some(w) = self.interleaved() else {
            return self.format.decode(self.as_rows().row(r), out).expect("one whole row");
        };
        let mut block = [0; 256];
        let block = &mut block[..self.format.block_bytes()];
        for (b, out) in out.chunks_exact_mut(self.format.block_len()).enumerate() {
            w.restore_block(r, b, block);
            self.format.decode(block, out).expect("one whole block");
        }
    }

    /// Adds row `r` to `out` (`cols` values).
    ///
    /// # Panics
    /// As [`decode_row`](Self::decode_row).
    #[cfg(feature = "std")]
    pub(crate) fn add_row(&self, k: &Kernels, r: usize, out: &mut [f32]) {
        if !self.is_interleaved() {
            return k.add_rows(self.as_rows(), &[r as u32], &[1.0], 0..self.cols, out);
        }
        let mut row = vec![0.0; self.cols];
        self.decode_row(r, &mut row);
        out.iter_mut().zip(row).for_each(|(y, w)| *y += w);
    }

    /// `out[t][r] = dot(row r, x[t])` for every token of the batch; `out` is `[tokens x rows]`.
    ///
    /// Quantized formats read the int8 form of `x`, which must be up to date. The result does not depend on the
    /// number of threads: each output is one row's dot product, computed by one thread.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn matmul(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols, "input width");
        let out = MatMut::new(out, self.rows());
        compute.pool.for_columns(out, GRAIN_ROWS, self.bytes(), |range, mut out| {
            self.multiply(compute, range, x, &mut out);
        });
    }

    /// The outputs in `active` (ascending) alone, of one token: `out[i] = dot(row active[i], x)`, the same number as
    /// that of [`matmul`](Self::matmul).
    ///
    /// # Panics
    /// If the shapes do not match, `x` is not one token, or `active` is not strictly ascending and in range.
    pub fn matmul_rows(&self, compute: &Compute, active: &[u32], x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols, "input width");
        assert_eq!(active.len(), out.len(), "a value per active row");
        if !self.is_interleaved() {
            return RowSet { slab: self.as_rows(), places: active }.products(compute, x, out);
        }
        if active.is_empty() {
            return;
        }
        let (work, out) = (active.len() * self.row_bytes(), MatMut::new(out, active.len()));
        compute.pool.for_columns(out, grain(compute, active.len()), work, |range, mut out| {
            self.multiply_rows(compute.kernels, &active[range], x, out.row(0));
        });
    }

    /// The products of the rows in `range`.
    pub(crate) fn multiply(
        &self,
        compute: &Compute,
        range: Range<usize>,
        x: &Activations,
        out: &mut MatMut<'_>,
    ) {
        let k = compute.kernels;
        if let Some(w) = self.interleaved() {
            return k.matmul_interleaved(w.slice(range), x.q8(), out);
        }
        let rows = self.as_rows().slice(range);
        match (self.format.is_quantized(), compute.is_each()) {
            (true, false) => k.matmul_q8(rows, x.q8(), out),
            (true, true) => k.matmul_each_q8(rows, x.q8(), out),
            (false, false) => k.matmul_f32(rows, x.x(), out),
            (false, true) => k.matmul_each_f32(rows, x.x(), out),
        }
    }

    /// The products of the rows in `active`, of one token. Of interleaved rows it computes all eight that one is among.
    pub(crate) fn multiply_rows(&self, k: &Kernels, active: &[u32], x: &Activations, out: &mut [f32]) {
        if let Some(w) = self.interleaved() {
            const ROWS: usize = InterleavedLayout::ROWS;
            let mut rest = &mut *out;
            for run in active.chunk_by(|a, b| *a as usize / ROWS == *b as usize / ROWS) {
                let first = run[0] as usize / ROWS * ROWS;
                let mut products = [0.0; ROWS];
                let products = &mut products[..ROWS.min(w.layout().rows() - first)];
                let range = first..first + products.len();
                k.matmul_interleaved(w.slice(range.clone()), x.q8(), &mut MatMut::new(products, range.len()));
                let (out, after) = rest.split_at_mut(run.len());
                out.iter_mut().zip(run).for_each(|(y, r)| *y = products[*r as usize - first]);
                rest = after;
            }
            return;
        }
        match self.format.is_quantized() {
            true => k.matmul_rows_q8(self.as_rows(), active, x.q8(), out),
            false => k.matmul_rows_f32(self.as_rows(), active, x.x(), out),
        }
    }

    /// The rows in `rows`, in that order, in memory of their own.
    ///
    /// # Panics
    /// If one is out of range.
    #[must_use]
    pub fn select(&self, rows: &[u32]) -> Self {
        let (all, bytes) = (self.to_rows(), self.row_bytes());
        let of = all.as_rows();
        let storage = Storage::filled(rows.len() * bytes, |out| {
            for (row, out) in rows.iter().zip(out.chunks_exact_mut(bytes)) {
                out.copy_from_slice(of.row(*row as usize));
            }
        });
        Self { storage, layout: None, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        let bytes = |n| Storage::Owned(vec![0; n]);
        let rows = |format, cols, n| Matrix::new(format, cols, bytes(n)).map(|m| m.rows()).ok();
        assert_eq!(rows(BlockFormat::Q8_0, 64, 3 * 68), Some(3));
        assert_eq!(rows(BlockFormat::Q8_0, 48, 3 * 51), None);
        assert_eq!(rows(BlockFormat::F32, 4, 47), None);
        assert_eq!(rows(BlockFormat::F32, 0, 0), None);
    }

    #[test]
    fn products_do_not_depend_on_the_number_of_threads() {
        let (rows, cols, tokens) = (203, 96, 5);
        let weights = (0..rows * cols).map(|i| ((i * 7919) % 251) as f32 / 125.0 - 1.0);
        let w = Matrix::from_f32(cols, weights).unwrap();
        let mut x = Activations::with_capacity(tokens, cols);
        x.resize(tokens);
        x.x_mut().iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 31) % 17) as f32 - 8.0);
        let run = |threads| {
            let mut out = vec![0.0; tokens * rows];
            w.matmul(&Compute::new(threads), &x, &mut out);
            out
        };
        let one = run(1);
        assert!(one.iter().any(|v| *v != 0.0));
        for threads in [2, 4] {
            assert_eq!(one, run(threads), "{threads} threads");
        }
    }
}
