//! Gates that leave most of their neurons idle.

use anyhow::{Context, Result};
use sparse_gguf::{BlockFormat, quantize};
use sparse_testdata::Weights;

/// Idle neurons.
pub(super) struct Idle {
    /// Directions of the input that gates listen to.
    pub(super) rank: usize,
    /// Share of the neurons that is not idle: of every layer, or of one after the other and again.
    pub(super) densities: Vec<f64>,
}

impl Idle {
    pub(super) fn density(&self, layer: usize) -> f64 {
        self.densities[layer % self.densities.len()]
    }
}

/// Deviation of what a gate has beside those, relative to its own.
const NOISE: f32 = 0.1;

/// One layer's gate projection, `[neurons x inputs]`: of low rank but for some noise, so that a predictor of low rank can
/// know it, and with biases that leave the share of the neurons asked for above zero, for inputs of variance 1.
pub(super) struct IdleGate {
    rank: usize,
    /// `[rank x inputs]`.
    directions: Vec<f32>,
    coefficients: Stream,
    noise: Stream,
    inputs: usize,
    deviation: f32,
    /// Deviations of a gate that its bias takes away.
    threshold: f32,
    biases: Vec<f32>,
}

impl IdleGate {
    pub(super) fn new(
        rank: usize,
        inputs: usize,
        deviation: f32,
        density: f64,
        seed: u64,
        stream: u64,
    ) -> Result<Self> {
        let of = |part: u64| Stream::new(seed, (1 << 32) + 3 * stream + part);
        let directions = of(0).next(rank * inputs)?;
        let (coefficients, noise, threshold) = (of(1), of(2), quantile(density) as f32);
        Ok(Self { rank, directions, coefficients, noise, inputs, deviation, threshold, biases: Vec::new() })
    }

    /// The next row.
    pub(super) fn row(&mut self, format: BlockFormat) -> Result<Vec<u8>> {
        let mut row = self.noise.next(self.inputs)?;
        row.iter_mut().for_each(|w| *w *= NOISE);
        let share = ((1.0 - NOISE * NOISE) / self.rank as f32).sqrt();
        for (c, direction) in
            self.coefficients.next(self.rank)?.iter().zip(self.directions.chunks(self.inputs))
        {
            row.iter_mut().zip(direction).for_each(|(w, d)| *w += share * c * d);
        }
        row.iter_mut().for_each(|w| *w *= self.deviation);
        if format == BlockFormat::Tq2_0 {
            ternary(&mut row);
        }
        self.biases.push(-self.threshold * row.iter().map(|w| w * w).sum::<f32>().sqrt());
        quantize(format, &row).context("gates can be of the formats F32 to Q8_0 and TQ2_0 only")
    }

    /// The biases of the rows so far.
    pub(super) fn biases(&self) -> Vec<u8> {
        self.biases.iter().flat_map(|b| b.to_le_bytes()).collect()
    }
}

/// Rounds to -1, 0 and 1 times one scale, as BitNet's training does: the mean magnitude is the step
/// (Ma et al. 2024, arXiv 2402.17764). The length of the row stays.
fn ternary(row: &mut [f32]) {
    let length = |row: &[f32]| row.iter().map(|w| w * w).sum::<f32>().sqrt();
    let step = row.iter().map(|w| w.abs()).sum::<f32>() / row.len() as f32;
    let before = length(row);
    row.iter_mut().for_each(|w| *w = (*w / step).round().clamp(-1.0, 1.0));
    let scale = before / length(row);
    row.iter_mut().for_each(|w| *w *= scale);
}

/// A normally distributed value is above so many deviations with this probability.
fn quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match 0.5 * libm::erfc(middle / std::f64::consts::SQRT_2) > probability {
            true => low = middle,
            false => high = middle,
        }
    }
    f64::midpoint(low, high)
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
