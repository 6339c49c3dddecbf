//! Gates that leave most of their neurons idle.

use anyhow::{Context, Result};
use sparse_gguf::{BlockFormat, quantise};
use sparse_testdata::Weights;

/// Directions of the input that gates listen to.
const RANK: usize = 16;
/// Deviation of what a gate has beside those, relative to its own.
const NOISE: f32 = 0.1;
/// A normally distributed value is above this many deviations one time in ten.
const TENTH: f32 = 1.281_55;

/// One layer's gate projection, `[neurons x inputs]`: of low rank but for some noise, so that a predictor of low rank can
/// know it, and with biases that leave nine neurons in ten below zero for inputs of variance 1.
pub(super) struct IdleGate {
    /// `[RANK x inputs]`.
    directions: Vec<f32>,
    coefficients: Stream,
    noise: Stream,
    inputs: usize,
    deviation: f32,
    biases: Vec<f32>,
}

impl IdleGate {
    pub(super) fn new(inputs: usize, deviation: f32, seed: u64, stream: u64) -> Result<Self> {
        let of = |part: u64| Stream::new(seed, (1 << 32) + 3 * stream + part);
        let directions = of(0).next(RANK * inputs)?;
        Ok(Self { directions, coefficients: of(1), noise: of(2), inputs, deviation, biases: Vec::new() })
    }

    /// The next row.
    pub(super) fn row(&mut self, format: BlockFormat) -> Result<Vec<u8>> {
        let mut row = self.noise.next(self.inputs)?;
        row.iter_mut().for_each(|w| *w *= NOISE);
        let share = ((1.0 - NOISE * NOISE) / RANK as f32).sqrt();
        for (c, direction) in self.coefficients.next(RANK)?.iter().zip(self.directions.chunks(self.inputs)) {
            row.iter_mut().zip(direction).for_each(|(w, d)| *w += share * c * d);
        }
        row.iter_mut().for_each(|w| *w *= self.deviation);
        self.biases.push(-TENTH * row.iter().map(|w| w * w).sum::<f32>().sqrt());
        quantise(format, &row).context("gates can be of the formats F32 to Q8_0 only")
    }

    /// The biases of the rows so far.
    pub(super) fn biases(&self) -> Vec<u8> {
        self.biases.iter().flat_map(|b| b.to_le_bytes()).collect()
    }
}

/// Normal numbers.
struct Stream(Weights);

impl Stream {
    fn new(seed: u64, stream: u64) -> Self {
        Self(Weights::new(BlockFormat::F32, 0.0, 1.0, seed, stream))
    }

    fn next(&mut self, n: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * n];
        self.0.fill(&mut bytes);
        let mut values = vec![0.0; n];
        BlockFormat::F32.decode(&bytes, &mut values)?;
        Ok(values)
    }
}
