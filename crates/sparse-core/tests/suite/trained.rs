//! The predictor on a small ReLU layer that was trained, here and now, to be sparse.
//!
//! `cargo test --release -p sparse-core --features fit --test suite trained -- --nocapture` prints recall, precision and
//! kept energy by rank.

use sparse_core::{Activations, Compute, Linear, Matrix, PredictorFit, SelectorQuality};
use sparse_simd::BlockFormat;
use sparse_testdata::Weights;

const INPUTS: usize = 64;
const NEURONS: usize = 256;
const OUTPUTS: usize = 16;
/// Inputs vary about these many points.
const TOPICS: usize = 24;
const BATCH: usize = 64;
const STEPS: usize = 1500;
const RATE: f32 = 0.02;
/// Weight of the L1 penalty on the neurons' values.
const PENALTY: f32 = 0.02;
const FITTED: usize = 4096;
const HELD_OUT: usize = 1024;

/// Nearly normal numbers; `stream` tells calls apart.
fn normals(n: usize, stream: u64) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    Weights::new(BlockFormat::F32, 0.0, 1.0, 11, stream).fill(&mut bytes);
    let mut values = vec![0.0; n];
    BlockFormat::F32.decode(&bytes, &mut values).unwrap();
    values
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What there is to learn: inputs of full rank about a few points, and sines of some directions.
struct Task {
    topics: Vec<f32>,
    directions: Vec<f32>,
}

impl Task {
    fn new() -> Self {
        Self { topics: normals(TOPICS * INPUTS, 1), directions: normals(OUTPUTS * INPUTS, 2) }
    }

    fn inputs(&self, tokens: usize, stream: u64) -> Vec<f32> {
        let mut x = normals(tokens * INPUTS, stream);
        for (t, x) in x.chunks_mut(INPUTS).enumerate() {
            let topic = &self.topics[t % TOPICS * INPUTS..][..INPUTS];
            x.iter_mut().zip(topic).for_each(|(x, c)| *x = 0.5 * *x + c);
        }
        x
    }

    fn target(&self, x: &[f32]) -> impl Iterator<Item = f32> {
        self.directions.chunks(INPUTS).map(move |d| (dot(d, x) / 8.0).sin())
    }
}

/// `down relu(up x + bias)`.
struct Layer {
    up: Vec<f32>,
    bias: Vec<f32>,
    down: Vec<f32>,
}

impl Layer {
    /// Trains by stochastic gradient descent; returns the layer, and its mean squared error before and after.
    fn train(task: &Task) -> (Self, f32, f32) {
        let small = |n, stream, scale: f32| normals(n, stream).iter().map(|v| v * scale).collect();
        let mut layer = Self {
            up: small(NEURONS * INPUTS, 3, 0.1),
            bias: vec![0.0; NEURONS],
            down: small(NEURONS * OUTPUTS, 4, 0.1),
        };
        let mut errors = Vec::new();
        for step in 0..STEPS {
            let x = task.inputs(BATCH, 100 + step as u64);
            errors.push(layer.step(task, &x));
        }
        let mean = |errors: &[f32]| errors.iter().sum::<f32>() / errors.len() as f32;
        (layer, mean(&errors[..10]), mean(&errors[STEPS - 50..]))
    }

    /// What the neurons make of an input: `up x + bias`.
    fn sums(&self, x: &[f32]) -> Vec<f32> {
        self.up.chunks(INPUTS).zip(&self.bias).map(|(w, b)| dot(w, x) + b).collect()
    }

    fn step(&mut self, task: &Task, x: &[f32]) -> f32 {
        let mut error = 0.0;
        for x in x.chunks(INPUTS) {
            let sums = self.sums(x);
            let mut out = [0.0; OUTPUTS];
            for (s, down) in sums.iter().zip(self.down.chunks(OUTPUTS)).filter(|(s, _)| **s > 0.0) {
                out.iter_mut().zip(down).for_each(|(o, d)| *o += s * d);
            }
            let wrong: Vec<f32> = out.iter().zip(task.target(x)).map(|(o, t)| o - t).collect();
            error += dot(&wrong, &wrong) / OUTPUTS as f32;
            for (j, s) in sums.iter().enumerate().filter(|(_, s)| **s > 0.0) {
                let down = &mut self.down[j * OUTPUTS..][..OUTPUTS];
                let slope = RATE / BATCH as f32 * (dot(down, &wrong) + PENALTY);
                down.iter_mut().zip(&wrong).for_each(|(d, w)| *d -= RATE / BATCH as f32 * w * s);
                self.up[j * INPUTS..][..INPUTS].iter_mut().zip(x).for_each(|(u, x)| *u -= slope * x);
                self.bias[j] -= slope;
            }
        }
        error / BATCH as f32
    }
}

#[test]
fn a_trained_layer_is_predicted_the_better_the_higher_the_rank() {
    let task = Task::new();
    let (layer, before, after) = Layer::train(&task);
    assert!(after < before / 2.0, "squared error {before} before and {after} after training");

    let x = task.inputs(FITTED + HELD_OUT, 5);
    let sums: Vec<f32> = x.chunks(INPUTS).flat_map(|x| layer.sums(x)).collect();
    let norms: Vec<f32> = layer.down.chunks(OUTPUTS).map(|d| dot(d, d).sqrt()).collect();
    let active: Vec<bool> = sums[..FITTED * NEURONS].iter().map(|s| *s > 0.0).collect();
    let up = Matrix::from_f32(INPUTS, layer.up.iter().copied()).unwrap();
    let up = Linear::new(up, Some(layer.bias.clone())).unwrap();
    let fit = PredictorFit::above_zero(&x[..FITTED * INPUTS], INPUTS, &active, &up).unwrap();

    let compute = Compute::new(1);
    let mut input = Activations::with_capacity(HELD_OUT, INPUTS);
    input.resize(HELD_OUT);
    input.x_mut().copy_from_slice(&x[FITTED * INPUTS..]);
    input.quantize(compute.kernels);
    let scores = |rank: usize| {
        let predictor = fit.factors(rank, 200).predictor().unwrap();
        let mut projected = Activations::with_capacity(HELD_OUT, rank);
        let mut scores = vec![0.0; HELD_OUT * NEURONS];
        predictor.scores(&compute, &input, &mut projected, &mut scores);
        scores
    };
    let quality = |scores: &[f32], threshold: f32| {
        let mut quality = SelectorQuality::default();
        for (i, (score, sum)) in scores.iter().zip(&sums[FITTED * NEURONS..]).enumerate() {
            quality.add(*score > threshold, *sum > 0.0, sum.max(0.0) * norms[i % NEURONS]);
        }
        quality
    };
    println!("squared error {after:.3} (untrained {before:.3})");
    println!(
        "| rank | logit above | density | recall | precision | kept energy |\n|---|---|---|---|---|---|"
    );
    let mut at_zero = Vec::new();
    for rank in [4, 8, 16, 32, 64] {
        let scores = scores(rank);
        for threshold in [0.0, -1.0, -2.0] {
            let q = quality(&scores, threshold);
            println!(
                "| {rank} | {threshold} | {:.3} | {:.3} | {:.3} | {:.4} |",
                q.density(),
                q.recall(),
                q.precision(),
                q.kept_energy()
            );
            if threshold == 0.0 {
                at_zero.push(q);
            }
        }
    }
    for pair in at_zero.windows(2) {
        assert!(pair[1].recall() > pair[0].recall() - 0.01, "{pair:?}");
        assert!(pair[1].precision() > pair[0].precision() - 0.01, "{pair:?}");
    }
    let (lowest, full) = (at_zero[0], at_zero[4]);
    assert!(full.recall() > 0.9 && full.kept_energy() > 0.99, "{full:?}");
    assert!(lowest.recall() < full.recall() - 0.05, "{lowest:?} {full:?}");
}
