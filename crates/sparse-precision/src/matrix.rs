//! Weights in a lane.

use alloc::vec;
use alloc::vec::Vec;

use sparse_simd::{Kernels, MatMut, Q8, Q8Mut, Rows};

use crate::blocks::{BLOCK, Blocks};
use crate::{Error, PrecisionLane};

/// A `[rows x cols]` matrix of weights in a lane, packed: blocks of 32 codes with a half-precision scale.
///
/// Its [`as_rows`](Self::as_rows) are what all kernels for quantized weights read, so a lane can be wherever a GGUF
/// format can: in feed-forward layers too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneMatrix {
    lane: PrecisionLane,
    blocks: Blocks,
}

impl LaneMatrix {
    /// Rounds rows of `cols` values to `lane`. The scale of each block is searched for the least squared error.
    ///
    /// # Errors
    /// If `cols` is zero or no multiple of 32 (any positive number for [`PrecisionLane::Float`]), the values are no whole
    /// number of rows, or one is NaN, infinite, or too large for a half-precision scale.
    pub fn new(lane: PrecisionLane, cols: usize, values: &[f32]) -> Result<Self, Error> {
        Ok(Self { lane, blocks: Blocks::quantize(lane.format(), cols, values, None)? })
    }

    /// Like [`new`](Self::new); errors in column `c` count `importance[c]` times, for instance the mean square of the
    /// input that the column is multiplied with.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if `importance` does not have a value per column.
    pub fn weighted(
        lane: PrecisionLane,
        cols: usize,
        values: &[f32],
        importance: &[f32],
    ) -> Result<Self, Error> {
        Ok(Self { lane, blocks: Blocks::quantize(lane.format(), cols, values, Some(importance))? })
    }

    /// Appends rows, rounded as [`new`](Self::new) does it.
    ///
    /// # Errors
    /// As [`new`](Self::new); the matrix is then as it was.
    pub fn push(&mut self, values: &[f32]) -> Result<(), Error> {
        let rows = Blocks::quantize(self.lane.format(), self.cols(), values, None)?;
        self.blocks.data.extend_from_slice(&rows.data);
        Ok(())
    }

    /// The same values in another lane. To a narrower one they are rounded again.
    ///
    /// # Errors
    /// If `lane` has blocks of 32 and the rows do not consist of them, or a value does not fit (see [`new`](Self::new)).
    pub fn to_lane(&self, lane: PrecisionLane) -> Result<Self, Error> {
        let mut values = vec![0.0; self.rows() * self.cols()];
        for (r, row) in values.chunks_exact_mut(self.cols()).enumerate() {
            self.decode_row(r, row);
        }
        Self::new(lane, self.cols(), &values)
    }

    /// The lane.
    pub fn lane(&self) -> PrecisionLane {
        self.lane
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.as_rows().rows()
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.blocks.cols
    }

    /// The packed bytes, row after row, in [`PrecisionLane::format`].
    pub fn bytes(&self) -> &[u8] {
        &self.blocks.data
    }

    /// The packed bytes, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.blocks.data
    }

    /// The rows, for kernels.
    pub fn as_rows(&self) -> Rows<'_> {
        self.blocks.as_rows()
    }

    /// Decodes row `r` into `out`.
    ///
    /// # Panics
    /// If `r` is out of range or `out` is not `cols` long.
    pub fn decode_row(&self, r: usize, out: &mut [f32]) {
        self.blocks.decode_row(r, out);
    }

    /// `out[r]` = row `r` times `x`.
    ///
    /// But in [`PrecisionLane::Float`], `x` is rounded to int8, each 32 values by at most `max |x| / 254` of theirs. With
    /// the rounding of floats, and in rows of up to 30,000 values, `out[r]` is off by at most the sum over the blocks of
    /// `max |x| * sum |w| / 250`, where `w` are the weights as the lane has them. In floats it is off by at most
    /// `2^-24 (cols + 1)` times `sum |w x|`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn matvec(&self, kernels: &Kernels, x: &LaneInput, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows(), "a value per row");
        if out.is_empty() {
            return;
        }
        let mut out = MatMut::new(out, self.rows());
        match self.lane {
            PrecisionLane::Float => kernels.matmul_f32(self.as_rows(), &x.x, &mut out),
            _ => kernels.matmul_q8(self.as_rows(), x.q8(), &mut out),
        }
    }

    /// `out` = sum over all rows of `h[r]` times row `r`, in floats: `out[c]` is off by at most `2^-24 (rows + 2)` times
    /// `sum |h[r] w[r][c]|`, where `w` are the weights as the lane has them.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn weighted_sum(&self, kernels: &Kernels, h: &[f32], out: &mut [f32]) {
        assert_eq!((h.len(), out.len()), (self.rows(), self.cols()), "shape of the matrix");
        kernels.weighted_sum(h, self.as_rows(), &mut MatMut::new(out, self.cols()));
    }
}

/// What a matrix is multiplied with: a vector of f32, and the same in int8 with a scale per 32.
#[derive(Clone, Debug)]
pub struct LaneInput {
    x: Vec<f32>,
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
}

impl LaneInput {
    /// Zeros, for rows of `cols` values.
    pub fn new(cols: usize) -> Self {
        // Rows of floats may have any length; they do not read the codes.
        let blocks = cols / BLOCK;
        Self {
            x: vec![0.0; cols],
            q: vec![0; BLOCK * blocks],
            d: vec![0.0; blocks],
            sums: vec![0; 2 * blocks],
        }
    }

    /// Makes this `x`.
    ///
    /// # Panics
    /// If `x` has another length.
    pub fn set(&mut self, kernels: &Kernels, x: &[f32]) {
        self.x.copy_from_slice(x);
        let cols = self.q.len();
        if cols > 0 {
            let mut q8 = Q8Mut { cols, q: &mut self.q, d: &mut self.d, sums: &mut self.sums };
            kernels.quantize(&x[..cols], &mut q8);
        }
    }

    fn q8(&self) -> Q8<'_> {
        Q8 { cols: self.x.len(), q: &self.q, d: &self.d, sums: &self.sums }
    }
}
