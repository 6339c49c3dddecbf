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
    /// Deviation of the logarithm of a neuron's own share; 0 makes all neurons equally likely.
    pub(super) spread: f64,
}

impl Idle {
    pub(super) fn density(&self, layer: usize) -> f64 {
        self.densities[layer % self.densities.len()]
    }
}

/// How the gates of a layer are made.
#[derive(Clone, Copy)]
pub(super) struct Gates {
    pub(super) rank: usize,
    /// Mean share of the inputs that a gate is above zero for.
    pub(super) density: f64,
    /// As [`Idle::spread`].
    pub(super) spread: f64,
}

/// The largest share of the inputs that a gate is above zero for.
const HOTTEST: f64 = 0.95;
/// Deviation of what a gate has beside those, relative to its own.
const NOISE: f32 = 0.1;

/// One layer's gate projection, `[neurons x inputs]`: of low rank but for some noise, so that a predictor of low rank can
/// know it, and with biases that leave the mean share of the neurons above zero, for inputs of variance 1.
pub(super) struct IdleGate {
    /// `[rank x inputs]`.
    directions: Vec<f32>,
    coefficients: Stream,
    noise: Stream,
    /// Standard normal numbers that say how hot neurons are.
    heat: Stream,
    gates: Gates,
    inputs: usize,
    deviation: f32,
    biases: Vec<f32>,
}

impl IdleGate {
    pub(super) fn new(gates: Gates, inputs: usize, deviation: f32, seed: u64, stream: u64) -> Result<Self> {
        let of = |part: u64| Stream::new(seed, (1 << 32) + 3 * stream + part);
        let directions = of(0).next(gates.rank * inputs)?;
        let heat = Stream::new(seed, (1 << 33) + stream);
        Ok(Self {
            directions,
            coefficients: of(1),
            noise: of(2),
            heat,
            gates,
            inputs,
            deviation,
            biases: Vec::new(),
        })
    }

    /// Deviations of the next gate that its bias takes away. Shares are distributed log-normally.
    fn threshold(&mut self) -> Result<f32> {
        let Gates { density, spread, .. } = self.gates;
        let normal = f64::from(self.heat.next(1)?[0]);
        let share = density * (spread * normal - spread * spread / 2.0).exp();
        Ok(quantile(share.min(HOTTEST)) as f32)
    }

    /// The next row.
    pub(super) fn row(&mut self, format: BlockFormat) -> Result<Vec<u8>> {
        let mut row = self.noise.next(self.inputs)?;
        row.iter_mut().for_each(|w| *w *= NOISE);
        let share = ((1.0 - NOISE * NOISE) / self.gates.rank as f32).sqrt();
        for (c, direction) in
            self.coefficients.next(self.gates.rank)?.iter().zip(self.directions.chunks(self.inputs))
        {
            row.iter_mut().zip(direction).for_each(|(w, d)| *w += share * c * d);
        }
        row.iter_mut().for_each(|w| *w *= self.deviation);
        if format == BlockFormat::Tq2_0 {
            ternary(&mut row);
        }
        let threshold = self.threshold()?;
        self.biases.push(-threshold * row.iter().map(|w| w * w).sum::<f32>().sqrt());
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
