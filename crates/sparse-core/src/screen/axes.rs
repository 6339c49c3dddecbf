//! What the screen looks at: the directions that head inputs vary in, or random ones.

use alloc::vec;
use alloc::vec::Vec;

use sparse_simd::Kernels;

use crate::error::{finite, same_len};
use crate::{Activations, Compute, Error, Matrix};

/// Dimensions come in multiples of this: blocks of int8 activations.
const BLOCK: usize = 32;
/// Seed of the rotation.
const SEED: u64 = 0x5EED;

/// Directions that head and tokens are projected on, and how tokens vary along them.
///
/// The directions are orthonormal, so that what is lost of a vector has a known length.
#[derive(Clone, Debug)]
pub struct Axes {
    pub(super) directions: Directions,
    /// Mean of the tokens, `[d]`.
    mean: Vec<f32>,
    /// Root mean square of the tokens along each direction, less the mean.
    spread: Vec<f32>,
    /// Root mean square of what tokens have outside the directions.
    lost: f32,
    /// How many of the directions are stored in four bits, the first ones; the rest in two.
    nibbles: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Directions {
    /// All of space, turned at random.
    Rotation(Rotation),
    /// The rows of a matrix.
    Matrix(Matrix),
}

impl Axes {
    /// Random directions, all in two bits: a screen that needs no data. `size` is the root mean square of a token's `inputs`
    /// values.
    ///
    /// Vectors that stand out along some of their values have them spread evenly over all directions, where few bits are
    /// enough (as in QuaRot, arXiv 2404.00456).
    pub fn rotated(inputs: usize, size: f32) -> Self {
        Self {
            directions: Directions::Rotation(Rotation::new(inputs)),
            mean: vec![0.0; inputs],
            spread: vec![size; inputs.next_multiple_of(BLOCK)],
            lost: 0.0,
            nibbles: 0,
        }
    }

    /// Axes that were fitted to tokens: the orthonormal rows of `directions`, `[dims x d]`, the first `nibbles` of which
    /// deserve four bits.
    ///
    /// # Errors
    /// If the parts do not fit together, dimensions are no multiples of 32, or a number is not finite or has the wrong sign.
    pub fn new(
        directions: Matrix,
        mean: Vec<f32>,
        spread: Vec<f32>,
        lost: f32,
        nibbles: usize,
    ) -> Result<Self, Error> {
        same_len("mean of the screen", directions.cols(), mean.len())?;
        same_len("spread of the screen", directions.rows(), spread.len())?;
        let whole = |n: usize| n / BLOCK * BLOCK;
        same_len("directions of the screen", whole(spread.len()).max(BLOCK), spread.len())?;
        same_len("directions of the screen in four bits", whole(nibbles).min(spread.len()), nibbles)?;
        finite("mean of the screen", &mean)?;
        if let Some(&value) = spread.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::Value { what: "spread of the screen", value, expected: "above zero" });
        }
        if !(lost.is_finite() && lost >= 0.0) {
            return Err(Error::Value { what: "lost of the screen", value: lost, expected: "at least zero" });
        }
        let mut row = vec![0.0; directions.cols()];
        for r in 0..directions.rows() {
            directions.decode_row(r, &mut row);
            finite("directions of the screen", &row)?;
        }
        Ok(Self { directions: Directions::Matrix(directions), mean, spread, lost, nibbles })
    }

    /// Values per token.
    pub fn inputs(&self) -> usize {
        self.mean.len()
    }

    /// Directions.
    pub fn dims(&self) -> usize {
        self.spread.len()
    }

    /// Directions in four bits.
    pub fn nibbles(&self) -> usize {
        self.nibbles
    }

    /// The matrix of the directions, unless they are random ones.
    pub fn matrix(&self) -> Option<&Matrix> {
        match &self.directions {
            Directions::Rotation(_) => None,
            Directions::Matrix(matrix) => Some(matrix),
        }
    }

    /// Mean of the tokens.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Root mean square of the tokens along each direction.
    pub fn spread(&self) -> &[f32] {
        &self.spread
    }

    /// Root mean square of what tokens have outside the directions.
    pub fn lost(&self) -> f32 {
        self.lost
    }

    /// Bytes that projecting a token reads.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.mean) + self.matrix().map_or(0, Matrix::bytes)
    }

    /// `out[t]` = the vectors `x[t]` along the directions, `[tokens x dims]`; `spare` has room for a token.
    pub(super) fn project(&self, compute: &Compute, x: &Activations, out: &mut [f32], spare: &mut [f32]) {
        match &self.directions {
            Directions::Matrix(matrix) => matrix.matmul(compute, x, out),
            Directions::Rotation(rotation) => {
                let d = self.inputs();
                for (x, out) in x.x().chunks(d).zip(out.chunks_mut(self.dims())) {
                    let (turned, padding) = out.split_at_mut(d);
                    rotation.turn(compute.kernels, x, turned, spare);
                    padding.fill(0.0);
                }
            }
        }
    }
}

/// A random orthogonal map in `O(d log d)`: signs and Hadamard matrices of a power of two that divides `d`, twice, with the
/// values dealt out anew in between.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    block: usize,
    /// Random ones, times what keeps lengths the same.
    signs: [Vec<f32>; 2],
    /// Where each value comes from between the rounds.
    deal: Vec<u32>,
}

impl Rotation {
    fn new(d: usize) -> Self {
        let block = 1 << d.trailing_zeros().min(12);
        // SplitMix64 (Steele et al. 2014).
        let mut state = SEED;
        let mut next = move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        let scale = 1.0 / (block as f32).sqrt();
        let mut signs = || (0..d).map(|_| if next() >> 63 == 0 { scale } else { -scale }).collect();
        let blocks = (d / block).max(1);
        let deal = (0..d).map(|i| (i % blocks * block + i / blocks) as u32).collect();
        Self { block, signs: [signs(), signs()], deal }
    }

    /// `out` = `x`, turned; `spare` is as long.
    fn turn(&self, k: &Kernels, x: &[f32], out: &mut [f32], spare: &mut [f32]) {
        let [first, second] = &self.signs;
        if self.block == x.len() {
            out.iter_mut().zip(x).zip(first).for_each(|((out, x), sign)| *out = x * sign);
            return k.hadamard_runs(out, self.block);
        }
        spare.iter_mut().zip(x).zip(first).for_each(|((out, x), sign)| *out = x * sign);
        k.hadamard_runs(spare, self.block);
        let dealt = self.deal.iter().map(|from| spare[*from as usize]);
        out.iter_mut().zip(dealt).zip(second).for_each(|((out, x), sign)| *out = x * sign);
        k.hadamard_runs(out, self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_keep_lengths_and_angles_and_spread_what_stands_out() {
        for d in [1, 6, 32, 96, 100, 576, 1024] {
            let rotation = Rotation::new(d);
            let turned = |i: usize| {
                let (mut x, mut out) = (vec![0.0; d], vec![0.0; d]);
                x[i] = 1.0;
                rotation.turn(Kernels::get(), &x, &mut out, &mut vec![0.0; d]);
                out
            };
            let (a, b) = (turned(0), turned(d - 1));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((dot(&a, &a) - 1.0).abs() < 1e-5, "{d}");
            if d > 1 {
                assert!(dot(&a, &b).abs() < 1e-5, "{d}: {}", dot(&a, &b));
            }
            if d == 576 {
                let largest = a.iter().fold(0_f32, |m, x| m.max(x.abs()));
                assert!(largest < 0.3, "{largest}");
            }
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let new = |rows: usize, mean: f32, spread: Vec<f32>, lost: f32, nibbles: usize| {
            let matrix = Matrix::from_f32(8, vec![0.1; 8 * rows]).unwrap();
            Axes::new(matrix, vec![mean; 8], spread, lost, nibbles)
                .map(|a| a.dims())
                .map_err(|e| e.to_string())
        };
        assert_eq!(new(64, 0.0, vec![1.0; 64], 0.5, 32), Ok(64));
        for (refused, part) in [
            (new(64, f32::NAN, vec![1.0; 64], 0.5, 32), "mean"),
            (new(64, 0.0, vec![1.0; 32], 0.5, 32), "spread"),
            (new(40, 0.0, vec![1.0; 40], 0.5, 32), "directions"),
            (new(0, 0.0, vec![], 0.5, 0), "directions"),
            (new(64, 0.0, vec![1.0; 64], 0.5, 33), "four bits"),
            (new(64, 0.0, vec![1.0; 64], 0.5, 96), "four bits"),
            (new(64, 0.0, vec![0.0; 64], 0.5, 32), "spread"),
            (new(64, 0.0, vec![f32::NAN; 64], 0.5, 32), "spread"),
            (new(64, 0.0, vec![1.0; 64], f32::NAN, 32), "lost"),
            (new(64, 0.0, vec![1.0; 64], -1.0, 32), "lost"),
        ] {
            let refused = refused.unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
