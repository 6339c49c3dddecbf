//! Rows of weights wherever they are in memory.

use sparse_simd::{MatMut, Rows};

#[cfg(feature = "std")]
use crate::matrix::GRAIN_COLUMNS;
use crate::matrix::GRAIN_ROWS;
use crate::{Activations, Compute};

/// Rows by place: row i of the set is row `places[i]` of the slab.
///
/// The set has an order of its own, in which sums are added. So a matrix in memory and the rooms of a cache, which have
/// rows in any order, give the same bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSet<'a> {
    pub(crate) slab: Rows<'a>,
    pub(crate) places: &'a [u32],
}

impl RowSet<'_> {
    /// `out[i] = dot(row i, x)` for one token.
    ///
    /// # Panics
    /// If the shapes do not match, `x` is not one token, or a place is out of range.
    pub(crate) fn products(self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        let Self { slab, places } = self;
        assert_eq!(x.cols(), slab.cols(), "input width");
        assert_eq!(places.len(), out.len(), "a value per row");
        if places.is_empty() {
            return;
        }
        let (work, out) = (places.len() * slab.row_bytes(), MatMut::new(out, places.len()));
        compute.pool.for_columns(out, grain(compute, places.len()), work, |range, mut out| {
            let (k, places, out) = (compute.kernels, &places[range], out.row(0));
            match slab.format().is_quantized() {
                true => k.matmul_rows_q8(slab, places, x.q8(), out),
                false => k.matmul_rows_f32(slab, places, x.x(), out),
            }
        });
    }

    /// `out` = sum over `i`, in that order, of `values[i]` times row i.
    ///
    /// # Panics
    /// If the shapes do not match, or a place is out of range.
    #[cfg(feature = "std")]
    pub(crate) fn weighted_sum(self, compute: &Compute, values: &[f32], out: &mut [f32]) {
        let Self { slab, places } = self;
        assert_eq!(places.len(), values.len(), "a value per row");
        let (work, out) = (places.len() * slab.row_bytes(), MatMut::new(out, slab.cols()));
        let grain = GRAIN_COLUMNS.max(slab.format().block_len());
        compute.pool.for_columns(out, grain, work, |cols, mut out| {
            compute.kernels.axpy_rows(slab, places, values, cols, out.row(0));
        });
    }
}

/// Rows that a worker takes at a time of `rows` that are far apart, at least.
pub(crate) fn grain(compute: &Compute, rows: usize) -> usize {
    // The first rows of a chunk are waited for: two chunks per thread.
    GRAIN_ROWS.max(rows.div_ceil(2 * compute.pool.threads()))
}
