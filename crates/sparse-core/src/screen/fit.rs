//! Fitting axes to what a head is given.

use alloc::vec;
use alloc::vec::Vec;

use faer::{Mat, MatRef, Side};
use half::f16;
use sparse_simd::BlockFormat;

use super::Axes;
use crate::error::same_len;
use crate::{Error, Matrix, Storage};

/// Tokens so far: their sum and the sum of their outer products. The axes are the principal components.
#[derive(Debug)]
pub struct AxesFit {
    tokens: usize,
    sum: Vec<f64>,
    products: Mat<f64>,
}

impl AxesFit {
    /// Of tokens with `inputs` values.
    pub fn new(inputs: usize) -> Self {
        Self { tokens: 0, sum: vec![0.0; inputs], products: Mat::zeros(inputs, inputs) }
    }

    /// Takes tokens `x`, `[tokens x inputs]`, into account.
    ///
    /// # Errors
    /// If these are no whole tokens, or not finite.
    pub fn add(&mut self, x: &[f32]) -> Result<(), Error> {
        let d = self.sum.len();
        let tokens = x.len().checked_div(d).unwrap_or(0);
        same_len("values of the tokens", tokens * d, x.len())?;
        crate::error::finite("value of a token", x)?;
        let batch = MatRef::from_row_major_slice(x, tokens, d);
        let products = batch.transpose() * batch;
        for j in 0..d {
            for i in 0..d {
                self.products[(i, j)] += f64::from(products[(i, j)]);
            }
            self.sum[j] += (0..tokens).map(|t| f64::from(batch[(t, j)])).sum::<f64>();
        }
        self.tokens += tokens;
        Ok(())
    }

    /// The axes along which tokens vary most: a 16th of the inputs in four bits and a third in two, in blocks of 32. And the
    /// directions that are left, each times how much tokens vary along it, `[rest x d]`: what
    /// [`lost_rows`](super::lost_rows) asks for.
    ///
    /// # Errors
    /// If there are no tokens, or inputs are fewer than 32.
    pub fn axes(&self) -> Result<(Axes, Matrix), Error> {
        let d = self.sum.len();
        if d < 32 {
            return Err(Error::Value {
                what: "inputs of the head",
                value: d as f32,
                expected: "at least 32",
            });
        }
        let n = self.tokens as f64;
        let bad = |value| Error::Value { what: "number of tokens", value, expected: "enough to vary" };
        if self.tokens < 2 {
            return Err(bad(n as f32));
        }
        let blocks = |n: usize| (n / 32).max(1) * 32;
        let nibbles = blocks(d / 16);
        let dims = (nibbles + blocks(d / 3)).min(d / 32 * 32);
        let mean: Vec<f64> = self.sum.iter().map(|s| s / n).collect();
        let covariance = Mat::from_fn(d, d, |i, j| self.products[(i, j)] / n - mean[i] * mean[j]);
        let eigen = covariance.self_adjoint_eigen(Side::Lower).map_err(|_| bad(n as f32))?;
        // In ascending order.
        let variance = |k: usize| eigen.S().column_vector()[d - 1 - k].max(0.0);
        let least = (0..d).map(variance).sum::<f64>() / d as f64 * 1e-6 + f64::from(f32::MIN_POSITIVE);
        let directions = eigen.U();
        let direction = |k: usize| (0..d).map(move |i| directions[(i, d - 1 - k)]);
        let bytes = (0..dims).flat_map(direction).flat_map(|v| f16::from_f64(v).to_le_bytes()).collect();
        let rest = (dims..d).flat_map(|k| {
            let deviation = variance(k).sqrt();
            direction(k).map(move |v| (v * deviation) as f32)
        });
        let axes = Axes::new(
            Matrix::new(BlockFormat::F16, d, Storage::Owned(bytes))?,
            mean.iter().map(|m| *m as f32).collect(),
            (0..dims).map(|k| variance(k).max(least).sqrt() as f32).collect(),
            (dims..d).map(variance).sum::<f64>().sqrt() as f32,
            nibbles,
        )?;
        Ok((axes, Matrix::from_f32(d, rest)?))
    }
}
