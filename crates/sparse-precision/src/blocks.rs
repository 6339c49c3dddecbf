//! Rows of blocks of 32 codes, and the search for the scale of a block.

use alloc::vec;
use alloc::vec::Vec;

use sparse_simd::layout::Half;
use sparse_simd::{BlockFormat, Rows, ShapeError};

use crate::Error;

/// Values per block.
pub(crate) const BLOCK: usize = 32;

/// How many codes the search moves the largest value away from the end of the range, and in which steps.
const REACH: f32 = 1.25;
const STEP: f32 = 0.0625;

/// A `[rows x cols]` matrix in the blocks of a format, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) format: BlockFormat,
    pub(crate) cols: usize,
    pub(crate) data: Vec<u8>,
}

impl Blocks {
    /// Quantizes rows of `cols` values. Errors of column `c` count `importance[c]` times, if that is given.
    pub(crate) fn quantize(
        format: BlockFormat,
        cols: usize,
        values: &[f32],
        importance: Option<&[f32]>,
    ) -> Result<Self, Error> {
        let what = "weights";
        let Some(row_bytes) = format.row_bytes(cols).filter(|bytes| *bytes > 0) else {
            return Err(ShapeError::Cols { format, cols }.into());
        };
        let rows = values.len().div_ceil(cols);
        if rows * cols != values.len() {
            return Err(Error::Length { what, expected: rows * cols, found: values.len() });
        }
        if let Some(importance) = importance.filter(|x| x.len() != cols) {
            return Err(Error::Length { what: "importance", expected: cols, found: importance.len() });
        }
        let refused = |index: usize| Error::Value { what, index, value: values[index] };
        if let Some(index) = values.iter().position(|x| !x.is_finite()) {
            return Err(refused(index));
        }
        let mut data = vec![0; rows * row_bytes];
        let Some(range) = format.code_range() else {
            // Floats, the only lane without codes.
            for (bytes, x) in data.chunks_exact_mut(size_of::<f32>()).zip(values) {
                bytes.copy_from_slice(&x.to_le_bytes());
            }
            return Ok(Self { format, cols, data });
        };
        let blocks = values.as_chunks::<BLOCK>().0;
        for (b, (x, block)) in blocks.iter().zip(data.chunks_exact_mut(format.block_bytes())).enumerate() {
            let weights = match importance {
                Some(w) => w.as_chunks::<BLOCK>().0[b % (cols / BLOCK)],
                None => [1.0; BLOCK],
            };
            let scale = scale(x, &weights, range);
            if !scale.to_f32().is_finite() {
                let largest = (0..BLOCK).fold(0, |a, i| if x[a].abs() < x[i].abs() { i } else { a });
                return Err(refused(b * BLOCK + largest));
            }
            format.write_block(scale, &codes(x, scale.to_f32(), range), block);
        }
        Ok(Self { format, cols, data })
    }

    pub(crate) fn as_rows(&self) -> Rows<'_> {
        Rows::new(self.format, self.cols, &self.data).expect("whole rows, by construction")
    }

    pub(crate) fn decode_row(&self, r: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "length of a row");
        self.format.decode(self.as_rows().row(r), out).expect("one whole row");
    }
}

/// The nearest codes, as far as the range goes. A scale of zero has codes of zero, and so has NaN.
pub(crate) fn codes(x: &[f32; BLOCK], scale: f32, range: [i8; 2]) -> [i8; BLOCK] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    rounded(x, inverse, range).map(|q| q as i8)
}

fn rounded(x: &[f32; BLOCK], inverse: f32, [low, high]: [i8; 2]) -> [f32; BLOCK] {
    /// Adding and subtracting this rounds to the nearest integer, ties to even, below 2^22.
    const ROUND: f32 = 12_582_912.0;
    let (low, high) = (f32::from(low), f32::from(high));
    x.map(|x| (x * inverse).clamp(low, high) + ROUND - ROUND)
}

/// The scale with which the codes of a block have the least weighted squared error, of those tried.
///
/// With codes `q` the best scale is `sum w x q / sum w q^2`, and it leaves an error that is smaller by
/// `(sum w x q)^2 / sum w q^2` than that of zeros. Codes that are tried come from scales that put the largest value near
/// either end of the range; then the best scale of the best codes gives the next codes, until they get no better.
pub(crate) fn scale(x: &[f32; BLOCK], weights: &[f32; BLOCK], range: [i8; 2]) -> Half {
    let extreme = x.iter().fold(0.0, |max: f32, x| if max.abs() < x.abs() { *x } else { max });
    if extreme == 0.0 {
        return Half::from_f32(0.0);
    }
    let gain = |inverse: f32| {
        let (mut xq, mut qq) = (0.0, 0.0);
        for ((x, q), w) in x.iter().zip(rounded(x, inverse, range)).zip(weights) {
            xq += w * x * q;
            qq += w * q * q;
        }
        if qq > 0.0 { (xq * xq / qq, xq / qq) } else { (0.0, 0.0) }
    };
    let steps = (2.0 * REACH / STEP) as i32;
    let tried = range
        .into_iter()
        .flat_map(|end| (0..=steps).map(move |i| (f32::from(end) + STEP * i as f32 - REACH) / extreme));
    let start = f32::from(range[0]) / extreme;
    let mut best = gain(start);
    for inverse in tried {
        let found = gain(inverse);
        best = if found.0 > best.0 { found } else { best };
    }
    while best.1 != 0.0 {
        let found = gain(1.0 / best.1);
        if found.0 <= best.0 {
            break;
        }
        best = found;
    }
    // All weights may be zero; and values so small that products vanish are stored as zero.
    Half::from_f32(if best.1 == 0.0 { 1.0 / start } else { best.1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::PiChaos;

    fn values(seed: usize) -> [f32; BLOCK] {
        core::array::from_fn(|i| PiChaos::new().jitter(seed * BLOCK + i))
    }

    fn error(x: &[f32; BLOCK], d: f32, range: [i8; 2], weights: &[f32; BLOCK]) -> f32 {
        let q = codes(x, d, range);
        (0..BLOCK).map(|i| weights[i] * (x[i] - d * f32::from(q[i])).powi(2)).sum()
    }

    #[test]
    fn the_search_is_within_a_decibel_of_the_best_scale_there_is() {
        for range in [[-4, 3], [-16, 15], [-64, 63]] {
            let (mut found, mut best) = (0.0, 0.0);
            for x in (0..40).map(values) {
                let weights = core::array::from_fn(|i| 0.1 + (i % 5) as f32);
                found += error(&x, scale(&x, &weights, range).to_f32(), range, &weights);
                let top = x.iter().fold(0.0, |a: f32, x| a.max(x.abs())) / f32::from(range[1]);
                let tried = (1..4000).flat_map(|i| [i as f32 / 2000.0 * top, i as f32 / -2000.0 * top]);
                best += tried.fold(f32::MAX, |best, d| best.min(error(&x, d, range, &weights)));
            }
            assert!(found < 1.26 * best, "{range:?}: {found}, best {best}");
        }
    }

    #[test]
    fn weights_move_the_error_to_where_it_counts_less() {
        let first = |from, to| core::array::from_fn(|i| if i < 8 { from } else { to });
        let at = |weights: &[f32; BLOCK]| {
            let error = |x| error(&x, scale(&x, weights, [-4, 3]).to_f32(), [-4, 3], &first(1.0, 0.0));
            (0..40).map(values).map(error).sum::<f32>()
        };
        let (heavy, equal) = (at(&first(100.0, 1.0)), at(&[1.0; BLOCK]));
        assert!(heavy < 0.9 * equal, "{heavy} {equal}");
    }

    #[test]
    fn blocks_of_zeros_and_of_what_is_too_small_are_zeros() {
        for x in [0.0, -0.0, 1e-30, f32::MIN_POSITIVE] {
            let scale = scale(&[x; BLOCK], &[1.0; BLOCK], [-4, 3]).to_f32();
            assert_eq!(scale.abs(), 0.0);
            assert_eq!(codes(&[x; BLOCK], scale, [-4, 3]), [0; BLOCK]);
        }
    }
}
