//! Weight rows as bytes with a format.

use crate::{BlockFormat, layout::ShapeError};
use core::ops::Range;

/// A `[rows x cols]` matrix of weights in a [`BlockFormat`], row after row, borrowed.
///
/// The bytes may have any alignment. The shape is checked once, here, so that kernels need not.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    format: BlockFormat,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Views `data` as rows of `cols` values.
    ///
    /// # Errors
    /// If `cols` is zero or no multiple of the format's block length, or `data` is no whole number of rows.
    pub fn new(format: BlockFormat, cols: usize, data: &'a [u8]) -> Result<Self, ShapeError> {
        let row_bytes = match format.row_bytes(cols) {
            None | Some(0) => return Err(ShapeError::Cols { format, cols }),
            Some(row_bytes) => row_bytes,
        };
        if !data.len().is_multiple_of(row_bytes) {
            return Err(ShapeError::Rows { format, cols, row_bytes, bytes: data.len() });
        }
        Ok(Self { format, cols, row_bytes, data })
    }

    /// How the weights are stored.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.row_bytes
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes per row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All the bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of row `r`.
    ///
    /// # Panics
    /// If `r` is out of bounds.
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.data[r * self.row_bytes..][..self.row_bytes]
    }

    /// The rows of `range` alone.
    ///
    /// # Panics
    /// If `range` is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Rows<'a> {
        let data = &self.data[range.start * self.row_bytes..range.end * self.row_bytes];
        Rows { data, ..*self }
    }
}
