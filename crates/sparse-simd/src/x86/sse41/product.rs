//! The order of a matrix product.

use crate::MatMut;

/// Tokens per tile of a batch: weights are unpacked once for all of them.
const TOKENS: usize = 4;

/// Weights and activations that are to be multiplied.
pub(super) trait Product {
    /// Weight rows `r` times `T` tokens from `t` on.
    ///
    /// # Safety
    /// - The CPU has SSE4.1.
    unsafe fn dot<const R: usize, const T: usize>(&self, r: [usize; R], t: usize) -> [[f32; T]; R];
}

/// All rows times all tokens.
#[target_feature(enable = "sse4.1")]
pub(super) fn write<P: Product>(product: &P, out: &mut MatMut<'_>) {
    // Two streams from far apart keep more of the memory's banks busy than neighbouring rows do.
    let half = out.cols() / 2;
    for r in 0..half {
        write_columns(product, [r, half + r], out);
    }
    if 2 * half < out.cols() {
        write_columns(product, [2 * half], out);
    }
}

/// Rows `r` times all tokens.
#[inline]
#[target_feature(enable = "sse4.1")]
fn write_columns<P: Product, const R: usize>(product: &P, r: [usize; R], out: &mut MatMut<'_>) {
    let tiles = out.tokens() / TOKENS * TOKENS;
    for t in (0..tiles).step_by(TOKENS) {
        // SAFETY: this function asks for the same features.
        write_tile(r, t, unsafe { product.dot::<R, TOKENS>(r, t) }, out);
    }
    for t in tiles..out.tokens() {
        // SAFETY: as above.
        write_tile(r, t, unsafe { product.dot::<R, 1>(r, t) }, out);
    }
}

#[inline]
fn write_tile<const R: usize, const T: usize>(
    r: [usize; R],
    t: usize,
    sums: [[f32; T]; R],
    out: &mut MatMut<'_>,
) {
    for i in 0..T {
        let out = out.row(t + i);
        for (r, sums) in r.iter().zip(&sums) {
            out[*r] = sums[i];
        }
    }
}
