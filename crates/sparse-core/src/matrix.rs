//! Weight matrices in their block format.

#[cfg(feature = "std")]
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
#[cfg(feature = "std")]
use core::ops::Range;

use sparse_simd::{BlockFormat, MatMut, Rows};

use crate::{Activations, Compute};

/// Rows that a worker takes at a time, at least: fewer make the kernels' row streams too short.
const GRAIN_ROWS: usize = 32;

/// Where the bytes of a matrix live.
#[non_exhaustive]
pub enum Storage {
    /// In memory of its own.
    Owned(Vec<u8>),
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
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            #[cfg(feature = "std")]
            Self::Shared { owner, range } => &(**owner).as_ref()[range.clone()],
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Owned(_) => "owned",
            #[cfg(feature = "std")]
            Self::Shared { .. } => "shared",
        };
        write!(f, "{} {kind} bytes", self.bytes().len())
    }
}

/// A shape that does not fit the bytes or the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Rows are no whole number of blocks.
    #[error("rows of {cols} values are no whole number of {} blocks ({} values each)", format.name(), format.block_len())]
    Blocks {
        /// The block format.
        format: BlockFormat,
        /// Values per row.
        cols: usize,
    },
    /// The bytes are more or fewer than the shape needs.
    #[error("{rows} x {cols} values in {} do not fit {found} bytes", format.name())]
    Bytes {
        /// The block format.
        format: BlockFormat,
        /// Rows.
        rows: usize,
        /// Values per row.
        cols: usize,
        /// Bytes at hand.
        found: usize,
    },
}

/// A weight matrix `[rows x cols]`; row `r` holds the weights of output `r`, contiguous, in blocks of `format`.
#[derive(Debug)]
pub struct Matrix {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl Matrix {
    /// A matrix over `storage`.
    ///
    /// # Errors
    /// If `cols` is no multiple of the format's block length, or the number of bytes is not what the shape needs.
    pub fn new(format: BlockFormat, rows: usize, cols: usize, storage: Storage) -> Result<Self, ShapeError> {
        let row_bytes =
            format.row_bytes(cols).filter(|_| cols > 0).ok_or(ShapeError::Blocks { format, cols })?;
        let found = storage.bytes().len();
        if row_bytes.checked_mul(rows) != Some(found) {
            return Err(ShapeError::Bytes { format, rows, cols, found });
        }
        Ok(Self { format, rows, cols, storage })
    }

    /// The block format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows: outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row: inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that one pass over the matrix reads.
    pub fn bytes(&self) -> usize {
        self.storage.bytes().len()
    }

    fn as_rows(&self) -> Rows<'_> {
        Rows::new(self.format, self.cols, self.storage.bytes()).expect("checked by Matrix::new")
    }

    /// Decodes row `r` into `out` (`cols` values): the embedding lookup.
    ///
    /// # Panics
    /// If `r` is out of range or `out` has another length than `cols`.
    pub fn decode_row(&self, r: usize, out: &mut [f32]) {
        assert!(r < self.rows && out.len() == self.cols);
        let row = self.as_rows().slice(r..r + 1);
        self.format.decode(row.data(), out).expect("one whole row");
    }

    /// `out[t][r] = dot(row r, x[t])` for every token of the batch; `out` is `[tokens x rows]`.
    ///
    /// Quantised formats read the int8 form of `x`, which must be up to date. The result does not depend on the
    /// number of threads: each output is one row's dot product, computed by one thread.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn matmul(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols, "input width");
        let rows = self.as_rows();
        compute.pool.for_columns(MatMut::new(out, self.rows), GRAIN_ROWS, |range, mut out| {
            let w = rows.slice(range);
            if self.format.is_quantised() {
                compute.kernels.matmul_q8(w, x.q8(), &mut out);
            } else {
                compute.kernels.matmul_f32(w, x.x(), &mut out);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn shapes_are_checked() {
        let bytes = |n| Storage::Owned(vec![0; n]);
        assert!(Matrix::new(BlockFormat::Q8_0, 3, 64, bytes(3 * 68)).is_ok());
        assert_eq!(
            Matrix::new(BlockFormat::Q8_0, 3, 48, bytes(3 * 51)).unwrap_err(),
            ShapeError::Blocks { format: BlockFormat::Q8_0, cols: 48 }
        );
        assert_eq!(
            Matrix::new(BlockFormat::F32, 3, 4, bytes(47)).unwrap_err().to_string(),
            "3 x 4 values in F32 do not fit 47 bytes"
        );
        assert!(Matrix::new(BlockFormat::F32, usize::MAX, 4, bytes(0)).is_err());
    }

    #[test]
    fn products_do_not_depend_on_the_number_of_threads() {
        let (rows, cols, tokens) = (203, 96, 5);
        let weights: Vec<u8> =
            (0..rows * cols).flat_map(|i| (((i * 7919) % 251) as f32 / 125.0 - 1.0).to_le_bytes()).collect();
        let w = Matrix::new(BlockFormat::F32, rows, cols, Storage::Owned(weights)).unwrap();
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
