//! How long computing some neurons takes on this machine.

use alloc::vec;
use alloc::vec::Vec;

use web_time::Instant;

use super::{Crossover, Density, Down, FfnScratch, SparseFfn};
use crate::{Activations, Compute, Linear};

/// Densities that are timed, beside computing everything.
const DENSITIES: [f32; 9] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9];

/// Sizes of batches that are timed.
const BATCHES: [usize; 4] = [2, 4, 8, 16];

/// Seconds that parts of a feed-forward layer take for one token, by the density of random active sets.
///
/// Layers take turns, so that weights come from where they come from in a real model: from memory unless all of them
/// fit the caches.
#[derive(Clone, Debug, PartialEq)]
pub struct FfnTimes {
    /// Of some rows of `up` (or gate), at 2, 5, 10, 20, 30, 45, 60, 75 and 90 %.
    pub rows: Vec<f64>,
    /// Of some columns of `down`.
    pub down: Vec<f64>,
    /// Of all rows, stored as where some are left out.
    pub dense_rows: f64,
    /// Of all rows of the gate as it is stored, which is as a whole where none is left out.
    pub dense_gate: f64,
    /// Of all columns.
    pub dense_down: f64,
}

impl FfnTimes {
    /// Times layers of one shape for `rounds` rounds; medians count. `down` must be stored so that skipping saves bytes.
    pub fn measure(compute: &Compute, ffns: &[&SparseFfn], rounds: usize) -> Self {
        let mut samples = vec![[Vec::new(), Vec::new()]; DENSITIES.len() + 1];
        let mut gates = Vec::new();
        for round in 0..rounds {
            // Each layer is as good as the next; every density meets another one in every round.
            for (i, samples) in samples.iter_mut().enumerate() {
                let Some(ffn) = ffns.get((i + round * 7) % ffns.len().max(1)) else { continue };
                let mut bench = Bench::new(compute, ffn, (i + round * DENSITIES.len()) as u32);
                let density = DENSITIES.get(i).copied();
                samples[0].push(bench.rows(&ffn.up, density));
                samples[1].push(bench.down(&ffn.down, density));
                if let (None, Some(gate)) = (density, &ffn.gate) {
                    gates.push(bench.rows(gate, None));
                }
            }
        }
        let at = |i: usize, part: usize| median(samples[i][part].clone());
        let curve = |part| (0..DENSITIES.len()).map(|i| at(i, part)).collect();
        let dense = |part| at(DENSITIES.len(), part);
        Self {
            rows: curve(0),
            down: curve(1),
            dense_rows: dense(0),
            dense_gate: median(gates),
            dense_down: dense(1),
        }
    }

    /// Seconds that computing everything takes for so many tokens together, as the layers, of one shape, are stored.
    pub fn dense(compute: &Compute, ffns: &[&SparseFfn], tokens: usize, rounds: usize) -> f64 {
        in_turn(compute, ffns, tokens, rounds, |ffn, x, scratch, out| {
            let start = Instant::now();
            ffn.dense(compute, x, scratch, out);
            start.elapsed().as_secs_f64()
        })
    }

    /// Seconds that the selectors of the layers, all of one shape, take to score a token. A layer is computed before each,
    /// so that they come from where they come from in a real model.
    pub fn selector(compute: &Compute, ffns: &[&SparseFfn], rounds: usize) -> f64 {
        if !ffns.first().is_some_and(|ffn| ffn.selector.has_scores()) {
            return 0.0;
        }
        in_turn(compute, ffns, 1, rounds, |ffn, x, scratch, out| {
            ffn.dense(compute, x, scratch, out);
            let start = Instant::now();
            ffn.predict(compute, x, scratch);
            start.elapsed().as_secs_f64()
        })
    }

    /// Seconds of the parts of a layer at this density, its selector left out.
    pub fn layer_at(&self, density: Density) -> f64 {
        // Where there is no gate its density is 0, and so is its time.
        let gate = if density.gate < 1.0 { self.rows_at(density.gate) } else { self.dense_gate };
        gate + self.rows_at(density.up) + self.down_at(density.down)
    }

    /// The densities up to which skipping is faster, for one token after the other.
    pub fn crossover(&self) -> Crossover {
        let last = |curve: &[f64], dense: f64| {
            let faster = curve.iter().take_while(|t| **t < dense).count();
            if faster == 0 { 0.0 } else { DENSITIES[faster - 1] }
        };
        Crossover {
            rows: last(&self.rows, self.dense_rows),
            down: last(&self.down, self.dense_down),
            ..Crossover::default()
        }
    }

    /// Seconds of some rows at this density: of all of them where that is faster.
    pub fn rows_at(&self, density: f32) -> f64 {
        at(&self.rows, self.dense_rows, density)
    }

    /// Seconds of some columns of `down` at this density.
    pub fn down_at(&self, density: f32) -> f64 {
        at(&self.down, self.dense_down, density)
    }
}

/// Seconds that a feed-forward layer takes for 2, 4, 8 and 16 tokens together, with all its neurons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchTimes(pub [f64; BATCHES.len()]);

impl BatchTimes {
    /// Times layers of one shape for `rounds` rounds; medians count.
    pub fn measure(compute: &Compute, ffns: &[&SparseFfn], rounds: usize) -> Self {
        Self(BATCHES.map(|tokens| FfnTimes::dense(compute, ffns, tokens, rounds)))
    }

    /// Up to how many tokens it is faster if each leaves out neurons by itself, which takes it `alone` seconds.
    pub fn crossover(&self, alone: f64) -> usize {
        let sizes = BATCHES.into_iter().zip(self.0);
        sizes
            .take_while(|(tokens, dense)| *tokens as f64 * alone < *dense)
            .last()
            .map_or(1, |(tokens, _)| tokens)
    }
}

/// The median of what `time` says of the layers in turn, each given so many tokens.
fn in_turn(
    compute: &Compute,
    ffns: &[&SparseFfn],
    tokens: usize,
    rounds: usize,
    mut time: impl FnMut(&SparseFfn, &Activations, &mut FfnScratch, &mut [f32]) -> f64,
) -> f64 {
    let Some(ffn) = ffns.first() else { return 0.0 };
    let x = made_up(compute, tokens, ffn.inputs());
    let mut scratch = FfnScratch::new(tokens, ffns.iter().copied());
    let mut out = vec![0.0; tokens * ffn.outputs()];
    let layers = ffns.iter().cycle().take(rounds);
    let times = layers.map(|ffn| {
        scratch.hidden.reshape(tokens, ffn.neurons());
        time(ffn, &x, &mut scratch, &mut out)
    });
    median(times.collect())
}

/// The value in the middle, of two the higher; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Made-up tokens.
fn made_up(compute: &Compute, tokens: usize, cols: usize) -> Activations {
    let mut x = Activations::with_capacity(tokens, cols);
    x.resize(tokens);
    x.x_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 13) as f32 - 6.0);
    x.quantize(compute.kernels);
    x
}

/// Interpolated linearly, from nothing at 0.
fn at(curve: &[f64], dense: f64, density: f32) -> f64 {
    let points = DENSITIES.iter().zip(curve).map(|(d, t)| (f64::from(*d), *t));
    let (mut before, density) = ((0.0, 0.0), f64::from(density));
    for point in points.chain([(1.0, dense)]) {
        if density <= point.0 {
            let share = (density - before.0) / (point.0 - before.0);
            return (before.1 + share * (point.1 - before.1)).min(dense);
        }
        before = point;
    }
    dense
}

/// One layer with a random input and a random active set.
struct Bench<'a> {
    compute: &'a Compute,
    x: Activations,
    hidden: Activations,
    seed: u32,
    out: Vec<f32>,
}

impl<'a> Bench<'a> {
    fn new(compute: &'a Compute, ffn: &SparseFfn, seed: u32) -> Self {
        let one = |cols| made_up(compute, 1, cols);
        let out = vec![0.0; ffn.neurons().max(ffn.outputs())];
        Self { compute, x: one(ffn.inputs()), hidden: one(ffn.neurons()), seed, out }
    }

    fn active(&self, neurons: usize, density: f32) -> Vec<u32> {
        let bound = (f64::from(density) * 4_294_967_296.0) as u64;
        (0..neurons as u32).filter(|j| u64::from(scramble(*j ^ self.seed.rotate_left(16))) < bound).collect()
    }

    fn rows(&mut self, linear: &Linear, density: Option<f32>) -> f64 {
        let active = density.map(|d| self.active(linear.weight().rows(), d));
        let start = Instant::now();
        match &active {
            None => linear.forward(self.compute, &self.x, &mut self.out[..linear.weight().rows()]),
            Some(active) => {
                linear.forward_rows(self.compute, active, &self.x, &mut self.out[..active.len()]);
            }
        }
        start.elapsed().as_secs_f64()
    }

    fn down(&mut self, down: &Down, density: Option<f32>) -> f64 {
        let active = density.map(|d| self.active(down.neurons(), d));
        let everyone: Vec<u32> = (0..down.neurons() as u32).collect();
        let out = &mut self.out[..down.outputs()];
        let start = Instant::now();
        match (&active, down) {
            // As a single token is computed: by an active set, which threads can share.
            (None, Down::Neurons(w)) => w.axpy_rows(self.compute, &everyone, self.hidden.x(), out),
            (None, _) => down.forward(self.compute, &self.hidden, out),
            (Some(active), _) => {
                let values = vec![1.0; active.len()];
                let all = down.neurons();
                down.forward_active(self.compute, active, &values, all, &mut self.hidden, out);
            }
        }
        start.elapsed().as_secs_f64()
    }
}

/// A number that looks random (the finalizer of MurmurHash3, which is a bijection).
fn scramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_interpolated_and_end_at_dense() {
        let line = |slope: f32| DENSITIES.iter().map(|d| f64::from(slope * d)).collect::<Vec<_>>();
        let times =
            FfnTimes { rows: line(1.0), down: line(2.0), dense_rows: 1.0, dense_gate: 1.0, dense_down: 1.0 };
        assert!((times.rows_at(0.5) - 0.5).abs() < 1e-6);
        assert!((times.rows_at(0.01) - 0.01).abs() < 1e-6);
        assert!((times.down_at(0.25) - 0.5).abs() < 1e-6);
        assert_eq!((times.rows_at(1.0), times.down_at(0.7)), (1.0, 1.0));
        let layer = times.layer_at(Density { gate: 1.0, up: 0.5, down: 0.25 });
        assert!((layer - 2.0).abs() < 1e-6, "{layer}");
        assert_eq!(times.crossover(), Crossover { rows: 0.9, down: 0.45, tokens: 1 });
        // Faster again at higher densities, by noise: skipping ends where it first is slower.
        let noisy = [0.1, 0.2, 1.5, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8].to_vec();
        let times =
            FfnTimes { rows: noisy.clone(), down: noisy, dense_rows: 1.0, dense_gate: 1.0, dense_down: 0.15 };
        assert_eq!(times.crossover(), Crossover { rows: 0.05, down: 0.02, tokens: 1 });
    }

    #[test]
    fn batches_skip_while_that_is_faster() {
        let times = BatchTimes([4.0, 6.0, 9.0, 15.0]);
        assert_eq!([0.5, 1.0, 1.2, 1.7, 2.0].map(|alone| times.crossover(alone)), [16, 8, 4, 2, 1]);
        assert_eq!(times.crossover(f64::NAN), 1);
    }

    #[test]
    fn random_sets_have_the_density_asked_for() {
        let compute = Compute::new(1);
        let x = || Activations::with_capacity(1, 32);
        for seed in [0, 1, 77] {
            let bench = Bench { compute: &compute, x: x(), hidden: x(), seed, out: Vec::new() };
            let share = |d| bench.active(10_000, d).len() as f32 / 1e4;
            assert_eq!(share(0.0), 0.0);
            assert!((share(0.3) - 0.3).abs() < 0.03, "{}", share(0.3));
        }
    }
}
