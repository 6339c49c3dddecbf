//! Feed-forward layers that compute some of their neurons, beside the same layers computed densely.
//!
//! As a criterion bench: `ffn/<inputs>x<neurons>-<format>/<threads>/<what>`, a pass over layers of [`MEMORY`] bytes.
//! With the arguments `rounds SHAPE FORMAT THREADS ROUNDS` it measures one of them in turn with the dense path and
//! prints JSON; `cargo xtask bench ffn` makes a table of that.
//!
//! Active sets are random, the worst case for memory: real ones cluster. Weights repeat, layers do not share them.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::{Value, json};
use sparse_benches::{Matrix as Random, thread_counts};
use sparse_core::{
    ActivationType, Activations, BatchMode, Compute, Down, FfnScratch, Linear, LowRankPredictor, Matrix,
    Rule, Selector, SparseFfn, Storage, interleave,
};
use sparse_simd::BlockFormat;

/// Bytes of all layers of gated FFNs: far more than the caches hold.
const MEMORY: usize = 256 << 20;
/// Rank of the predictor. Its weights are random, in Q8_0: what it costs is real, what it predicts is given to it as bias.
const RANK: usize = 64;
/// Active neurons, in percent.
const DENSITIES: [u64; 5] = [10, 30, 50, 70, 100];

/// Width of input and output, and number of neurons.
#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    neurons: usize,
    /// Without a gate, one layer with ReLU that stays in the cache; else SwiGLU.
    gated: bool,
}

const SHAPES: [Shape; 4] = [
    Shape { width: 512, neurons: 2048, gated: false },
    Shape { width: 576, neurons: 1536, gated: true },
    Shape { width: 2048, neurons: 5632, gated: true },
    Shape { width: 4096, neurons: 11008, gated: true },
];

impl Shape {
    fn name(self) -> String {
        format!("{}x{}", self.width, self.neurons)
    }

    fn formats(self) -> &'static [BlockFormat] {
        if self.gated {
            &[BlockFormat::Q4_0, BlockFormat::Q4_1, BlockFormat::Q4K]
        } else {
            &[BlockFormat::F32]
        }
    }
}

/// What is left out for neurons that are not active.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Skip {
    /// Nothing: the reference, with `down` stored by rows.
    Nothing,
    /// `up` and `down`, as if the gate had to say who is active; without a gate `down` alone.
    AfterGate,
    /// All three.
    All,
    /// All three, as a predictor says.
    Predicted,
}

/// The same layers three times, each stored as it is used: dense; with `down` by columns and a gate that is computed as a
/// whole; and with all three for skipping.
struct Layers {
    compute: Compute,
    dense: Vec<SparseFfn>,
    after_gate: Vec<SparseFfn>,
    sparse: Vec<SparseFfn>,
    /// The factors of each layer's predictor.
    factors: Vec<[Matrix; 2]>,
    x: Activations,
    projected: Activations,
    scores: Vec<f32>,
    scratch: FfnScratch,
    out: Vec<f32>,
    seed: u64,
}

impl Layers {
    /// `None` if the rows are no whole blocks of the format.
    fn new(shape: Shape, format: BlockFormat, threads: usize) -> Option<Self> {
        let Shape { width, neurons, gated } = shape;
        let matrix = |format: BlockFormat, rows: usize, cols: usize| {
            let random = Random::of_bytes(format, cols, rows * format.row_bytes(cols)?);
            let storage =
                Storage::filled(random.bytes(), |bytes| bytes.copy_from_slice(random.rows().data()));
            Matrix::new(format, cols, storage).ok()
        };
        let linear = |weight: &Matrix| Linear::new(weight.clone(), None).expect("no bias");
        let size = 3 * neurons * format.row_bytes(width)?;
        let (mut dense, mut after_gate, mut sparse) = (Vec::new(), Vec::new(), Vec::new());
        let mut factors = Vec::new();
        for _ in 0..if gated { MEMORY.div_ceil(size) } else { 1 } {
            let [up, down] = [matrix(format, neurons, width)?, matrix(format, width, neurons)?];
            let gate = if gated { Some(matrix(format, neurons, width)?) } else { None };
            let layer = || {
                let (up, down) = (linear(&up), Down::Rows(down.clone()));
                match &gate {
                    Some(gate) => SparseFfn::gated(linear(gate), up, down, ActivationType::Silu),
                    None => SparseFfn::plain(up, down, ActivationType::Relu),
                }
                .expect("shapes that fit")
            };
            dense.push(layer());
            for skipping in [&mut after_gate, &mut sparse] {
                let mut layer = layer();
                layer.sort_by_columns().expect("a size that can be addressed");
                skipping.push(layer);
            }
            factors
                .push([matrix(BlockFormat::Q8_0, RANK, width)?, matrix(BlockFormat::Q8_0, neurons, RANK)?]);
        }
        let compute = Compute::new(threads);
        for ffn in &mut after_gate {
            let all = Selector::Fixed { active: vec![true; neurons], skip_gate: false };
            ffn.set_selector(all).expect("a selector that fits");
        }
        for layers in [&mut dense, &mut after_gate] {
            interleave(&compute, layers.iter_mut().flat_map(SparseFfn::whole_matrices_mut), |_| ());
        }
        let mut x = Activations::with_capacity(1, width);
        x.resize(1);
        x.x_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i * 31 % 97) as f32 / 48.0 - 1.0);
        x.quantize(compute.kernels);
        let scratch = FfnScratch::new(1, &dense);
        let projected = Activations::with_capacity(1, RANK);
        let (scores, out) = (vec![0.0; neurons], vec![0.0; width]);
        Some(Self {
            compute,
            dense,
            after_gate,
            sparse,
            factors,
            x,
            projected,
            scores,
            scratch,
            out,
            seed: 1,
        })
    }

    /// Bytes that a dense pass reads.
    fn bytes(&self) -> usize {
        self.dense.iter().map(SparseFfn::bytes).sum()
    }

    /// Gives every layer another random set of `percent` active neurons.
    fn choose(&mut self, skip: Skip, percent: u64) {
        let layers = if skip == Skip::AfterGate { &mut self.after_gate } else { &mut self.sparse };
        for (ffn, [p, q]) in layers.iter_mut().zip(&self.factors) {
            let mut active = Vec::with_capacity(ffn.neurons());
            for _ in 0..ffn.neurons() {
                self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                active.push((self.seed >> 33) % 100 < percent);
            }
            let selector = match skip {
                Skip::Nothing => Selector::Dense,
                Skip::AfterGate => Selector::Fixed { active, skip_gate: false },
                Skip::All => Selector::Fixed { active, skip_gate: true },
                Skip::Predicted => {
                    let bias = active.iter().map(|a| if *a { 1e6 } else { -1e6 }).collect();
                    let predictor =
                        LowRankPredictor::new(p.clone(), q.clone(), bias).expect("shapes that fit");
                    Selector::LowRank { predictor, rule: Rule::Threshold(0.0) }
                }
            };
            ffn.set_selector(selector).expect("a selector that fits");
        }
    }

    /// Computes one token in every layer; returns how long it took and the bytes read.
    fn pass(&mut self, skip: Skip) -> (Duration, u64) {
        let layers = match skip {
            Skip::Nothing => &self.dense,
            Skip::AfterGate => &self.after_gate,
            Skip::All | Skip::Predicted => &self.sparse,
        };
        let (mut bytes, start) = (0, Instant::now());
        for ffn in layers {
            let Self { compute, x, scratch, out, .. } = self;
            bytes += ffn.forward(compute, x, BatchMode::Dense, scratch, out).bytes;
        }
        (start.elapsed(), bytes)
    }

    /// Scores the neurons of every layer, without computing any.
    fn predict(&mut self) -> Duration {
        let start = Instant::now();
        for ffn in &self.sparse {
            if let Selector::LowRank { predictor, .. } = ffn.selector() {
                self.projected.reshape(1, RANK);
                predictor.scores(&self.compute, &self.x, &mut self.projected, &mut self.scores);
            }
        }
        start.elapsed()
    }

    /// All densities in turn, each beside a dense pass of its own.
    fn rounds(&mut self, rounds: usize) -> Value {
        // A pass in the cache is too short to be timed by itself.
        let passes = if self.dense.len() > 1 { 1 } else { 20 };
        let calls = (passes * self.dense.len()) as f64;
        let mut table = DENSITIES.map(|_| [const { Vec::new() }; 5]);
        let mut bytes = [[0; 3]; DENSITIES.len()];
        for _ in 0..=rounds {
            for (d, percent) in DENSITIES.into_iter().enumerate() {
                let cases = [Skip::Nothing, Skip::AfterGate, Skip::All, Skip::Predicted];
                for (i, skip) in cases.into_iter().enumerate() {
                    let mut time = Duration::ZERO;
                    for _ in 0..passes {
                        if i > 0 {
                            self.choose(skip, percent);
                        }
                        let (took, read) = self.pass(skip);
                        time += took;
                        if i > 0 {
                            bytes[d][i - 1] = read;
                        }
                    }
                    table[d][i].push(time.as_secs_f64() * 1e6 / calls);
                }
                let time: Duration = (0..passes).map(|_| self.predict()).sum();
                table[d][4].push(time.as_secs_f64() * 1e6 / calls);
            }
        }
        let all = self.bytes() as f64;
        let rows = DENSITIES.iter().zip(&table).zip(bytes).map(|((percent, times), bytes)| {
            // The first round warmed up.
            let [dense, gate, three, predicted, selector] = times.each_ref().map(|t: &Vec<f64>| &t[1..]);
            let [gate_bytes, all_bytes, predicted_bytes] = bytes.map(|b| b as f64 / all);
            json!({
                "percent": percent, "dense_us": dense, "gate_us": gate, "all_us": three,
                "predicted_us": predicted, "selector_us": selector,
                "gate_bytes": gate_bytes, "all_bytes": all_bytes, "predicted_bytes": predicted_bytes,
            })
        });
        json!({
            "level": self.compute.kernels.level().name(),
            "layers": self.dense.len(),
            "layer_bytes": all / self.dense.len() as f64,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

fn ffn(c: &mut Criterion) {
    for shape in SHAPES {
        for format in shape.formats() {
            for threads in thread_counts() {
                let Some(mut layers) = Layers::new(shape, *format, threads) else { continue };
                let mut group =
                    c.benchmark_group(format!("ffn/{}-{}/{threads}", shape.name(), format.name()));
                group.throughput(Throughput::Bytes(layers.bytes() as u64));
                group.bench_function("dense", |b| b.iter(|| layers.pass(Skip::Nothing)));
                for percent in DENSITIES {
                    for (name, skip) in [("gate-dense", Skip::AfterGate), ("all-three", Skip::All)] {
                        layers.choose(skip, percent);
                        group.bench_function(BenchmarkId::new(name, percent), |b| {
                            b.iter(|| layers.pass(skip))
                        });
                    }
                }
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, shape, format, threads, rounds, ..] = &arguments[..]
        && command == "rounds"
    {
        let shape = SHAPES.into_iter().find(|s| s.name() == *shape).expect("one of the shapes");
        let format = shape.formats().iter().find(|f| f.name() == format).expect("a format of this shape");
        let [threads, rounds] = [threads, rounds].map(|n| n.parse().expect("a number"));
        let report = Layers::new(shape, *format, threads).map(|mut layers| layers.rounds(rounds));
        return println!("{}", json!(report));
    }
    let short = Duration::from_secs(1);
    let mut criterion = Criterion::default()
        .measurement_time(short)
        .warm_up_time(short / 2)
        .sample_size(10)
        .configure_from_args();
    ffn(&mut criterion);
    criterion.final_summary();
}
