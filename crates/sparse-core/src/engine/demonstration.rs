//! A network to try the engine with.

use alloc::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sparse_simd::Kernels;

use super::numbered;
use crate::error::share;
use crate::{Error, LowRankPredictor, Matrix};

/// Deviation of what no predictor can know of a neuron's sum, whose own is 1.
const NOISE: f32 = 0.02;
/// Inputs per unit of rank, and the smallest and largest rank.
const INPUTS_PER_RANK: usize = 16;
const RANKS: (usize, usize) = (4, 64);
/// Of all weights: the same dimensions and density give the same network.
const SEED: u64 = 0x5ba7_5e1e_c7ed;

/// A plain ReLU network whose neurons can be predicted.
///
/// Its first matrix is a product of low rank plus a little noise, its rows of unit norm, so that the sum of neuron j is
/// normally distributed around its bias if the inputs are standard normal. Biases make neuron j active with frequency
/// `u^(1/density - 1)`, `u` being uniform in 0..1: the mean of that is the density, and as in trained networks a few
/// neurons do most of the work.
pub(super) struct Demonstration {
    /// `[hidden x inputs]`.
    pub(super) w1: Vec<f32>,
    pub(super) b1: Vec<f32>,
    /// `[hidden x inputs]`: a row per neuron. There are as many outputs as inputs.
    pub(super) w2: Vec<f32>,
    /// Of the sums, but for the noise.
    pub(super) predictor: LowRankPredictor,
}

impl Demonstration {
    pub(super) fn new(inputs: usize, hidden: usize, density: f32) -> Result<Self, Error> {
        for (what, n) in [("input_dim", inputs), ("hidden_dim", hidden)] {
            if n == 0 {
                return Err(Error::Value { what, value: 0.0, expected: "at least 1" });
            }
        }
        share("density", density)?;
        numbered(hidden)?;
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let rank = (inputs / INPUTS_PER_RANK).clamp(RANKS.0, RANKS.1);
        let p = centered(&mut rng, rank, inputs, 1.0 / (inputs as f32).sqrt())?;
        let mut q = centered(&mut rng, hidden, rank, 1.0 / (rank as f32).sqrt())?;
        let mut w1 = centered(&mut rng, hidden, inputs, NOISE / (inputs as f32).sqrt())?;
        let kernels = Kernels::get();
        for (row, q) in w1.chunks_mut(inputs).zip(q.chunks_mut(rank)) {
            for (q, p) in q.iter().zip(p.chunks(inputs)) {
                kernels.axpy_f32(*q, p, row);
            }
            let scale = 1.0 / kernels.dot_f32(row, row).sqrt();
            row.iter_mut().chain(q).for_each(|w| *w *= scale);
        }
        let b1: Vec<f32> =
            (0..hidden).map(|_| normal_quantile(uniform(&mut rng).powf(1.0 / density - 1.0))).collect();
        let w2 = centered(&mut rng, hidden, inputs, 1.0 / (density * hidden as f32).sqrt())?;
        let predictor =
            LowRankPredictor::new(Matrix::from_f32(inputs, p)?, Matrix::from_f32(rank, q)?, b1.clone())?;
        Ok(Self { w1, b1, w2, predictor })
    }
}

/// Uniform in 0..1.
fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// `rows * cols` numbers, uniform around 0, of this deviation.
fn centered(rng: &mut ChaCha8Rng, rows: usize, cols: usize, deviation: f32) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    let room = rows.checked_mul(cols).filter(|n| values.try_reserve_exact(*n).is_ok());
    let Some(n) = room else {
        let value = rows as f32 * cols as f32;
        return Err(Error::Value { what: "number of weights", value, expected: "no more than memory holds" });
    };
    values.resize_with(n, || (uniform(rng) - 0.5) * 12_f32.sqrt() * deviation);
    Ok(values)
}

/// What standard normal numbers are below with probability `p`, nearly: the logistic distribution is off by less than
/// 0.01 in `p`.
fn normal_quantile(p: f32) -> f32 {
    let p = p.clamp(1e-6, 0.999);
    (p / (1.0 - p)).ln() / 1.702
}
