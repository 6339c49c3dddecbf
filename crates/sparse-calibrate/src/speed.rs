//! Time: estimated from curves, and measured.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sparse_core::{Down, FfnCounts, FfnTimes, Matrix, Selector, SparseFfn, Storage};
use sparse_gguf::{Gguf, quantize};
use sparse_model::{Model, Sampler, SamplerConfig, Session};

use crate::Error;
use crate::progress::{Progress, step};

/// Gains below this are noise.
const LEAST_GAIN: f64 = 1.01;
/// Rounds that a curve is the median of.
const ROUNDS: usize = 15;
/// Tokens decoded per round of the whole model, and rounds.
const DECODE: usize = 32;
const DECODE_ROUNDS: usize = 9;

/// Stores `down` by rows if the file has a row per neuron: the faster way to compute everything, and so what leaving out has
/// to beat. It rounds the weights a second time: for measuring time only.
///
/// # Errors
/// If the neurons are no whole number of blocks.
pub fn store_by_rows(ffn: &mut SparseFfn) -> Result<(), Error> {
    let Down::Neurons(neurons) = ffn.down() else { return Ok(()) };
    let (format, count, outputs) = (neurons.segments()[0].format(), ffn.neurons(), ffn.outputs());
    let (mut values, mut row) = (vec![0.0; count * outputs], vec![0.0; outputs]);
    for j in 0..count {
        neurons.decode_row(j, &mut row);
        row.iter().enumerate().for_each(|(i, w)| values[i * count + j] = *w);
    }
    let bytes = quantize(format, &values)?;
    let storage = Storage::filled(bytes.len(), |out| out.copy_from_slice(&bytes));
    let rows = Matrix::new(format, count, storage).map_err(sparse_core::Error::from)?;
    ffn.set_down(Down::Rows(rows))?;
    Ok(())
}

/// The dense model in the storage that is fastest for it.
pub(crate) fn fastest(gguf: &Gguf, dense: &Arc<Model>) -> Result<Arc<Model>, Error> {
    let neurons = dense.ffns().any(|ffn| matches!(ffn.down(), Down::Neurons(_)));
    let mut model = Model::from_gguf(gguf, dense.compute().pool.threads())?;
    for ffn in model.ffns_mut() {
        ffn.set_selector(Selector::Dense)?;
        store_by_rows(ffn)?;
    }
    let moved = model.interleave();
    Ok(if neurons || moved > 0 { Arc::new(model) } else { Arc::clone(dense) })
}

/// Seconds that the feed-forward layers take for a token, by density: curves measured on this machine.
pub(crate) struct Curves {
    /// Per layer: the curves, and the time of the dense path.
    layers: Vec<(FfnTimes, f64)>,
}

impl Curves {
    /// Measures layers of each kind. `dense` has its weights as the file has them, `sparse` sorted for skipping.
    pub(crate) fn measure(dense: &Model, sparse: &Model) -> Self {
        let kind = |f: &SparseFfn| (f.inputs(), f.neurons(), f.up().weight().bytes(), f.bytes());
        let mut times = HashMap::new();
        let mut layers = Vec::new();
        for (d, s) in dense.ffns().zip(sparse.ffns()) {
            let (curves, all) = times.entry(kind(d)).or_insert_with(|| {
                let alike = |m: &'_ Model| -> Vec<_> { m.ffns().map(kind).collect() };
                let (of_dense, of_sparse) = (alike(dense), alike(sparse));
                let pick = |m, kinds: &[_], wanted| -> Vec<_> {
                    Model::ffns(m).zip(kinds).filter(|(_, k)| **k == wanted).map(|(f, _)| f).collect()
                };
                let sparse = FfnTimes::measure(sparse.compute(), &pick(sparse, &of_sparse, kind(s)), ROUNDS);
                let all = FfnTimes::dense(dense.compute(), &pick(dense, &of_dense, kind(d)), 1, ROUNDS);
                (sparse, all)
            });
            layers.push((curves.clone(), *all));
        }
        Self { layers }
    }

    /// Seconds of the dense layers.
    pub(crate) fn dense(&self) -> f64 {
        self.layers.iter().map(|l| l.1).sum()
    }

    /// Seconds of each dense layer.
    pub(crate) fn dense_layers(&self) -> Vec<f64> {
        self.layers.iter().map(|l| l.1).collect()
    }

    /// Seconds of each layer of `model`, whose layers did `counts`, selectors included.
    pub(crate) fn layers(&self, model: &Model, counts: &[FfnCounts]) -> Vec<f64> {
        let shape = |f: &SparseFfn| (f.inputs(), f.neurons(), f.selector().bytes());
        let mut selectors = HashMap::new();
        let mut layer = |ffn: &SparseFfn, counts: &FfnCounts, (times, dense): &(FfnTimes, f64)| {
            if matches!(ffn.selector(), Selector::Dense) || counts.tokens == 0 {
                return *dense;
            }
            let selector = *selectors.entry(shape(ffn)).or_insert_with(|| {
                let alike: Vec<_> = model.ffns().filter(|f| shape(f) == shape(ffn)).collect();
                FfnTimes::selector(model.compute(), &alike, ROUNDS)
            });
            selector + times.layer_at(counts.density(ffn.neurons()))
        };
        model.ffns().zip(counts).zip(&self.layers).map(|((f, c), l)| layer(f, c, l)).collect()
    }
}

/// Whole-model decoding, dense and sparse by turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Median of the dense model.
    pub dense_tokens_per_s: f64,
    /// Median of the sparse one.
    pub sparse_tokens_per_s: f64,
    /// Median of the rounds' ratios.
    pub gain: f64,
    /// Lowest ratio of a round.
    pub lowest_gain: f64,
    /// Highest ratio of a round.
    pub highest_gain: f64,
    /// Threads.
    pub threads: usize,
}

impl Speed {
    /// Whether the sparse model is faster, by more than noise.
    pub(crate) fn pays(&self) -> bool {
        self.gain >= LEAST_GAIN
    }
}

/// Decodes with both models by turns.
pub(crate) fn decode(
    dense: &Arc<Model>,
    sparse: &Arc<Model>,
    prompt: &[u32],
    progress: &mut dyn Progress,
) -> Result<Speed, Error> {
    let room = prompt.len() + DECODE;
    let (mut one, mut other) = (Session::new(dense, room)?, Session::new(sparse, room)?);
    let (mut of_dense, mut of_sparse) = (Vec::new(), Vec::new());
    progress.begin("timing", DECODE_ROUNDS);
    for _ in 0..DECODE_ROUNDS {
        of_dense.push(round(&mut one, prompt)?);
        of_sparse.push(round(&mut other, prompt)?);
        step(progress)?;
    }
    let ratios: Vec<f64> =
        of_dense.iter().zip(&of_sparse).map(|(d, s)| d.as_secs_f64() / s.as_secs_f64()).collect();
    let rate = |times: &[Duration]| DECODE as f64 / median(times.iter().map(Duration::as_secs_f64));
    Ok(Speed {
        dense_tokens_per_s: rate(&of_dense),
        sparse_tokens_per_s: rate(&of_sparse),
        gain: median(ratios.iter().copied()),
        lowest_gain: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        highest_gain: ratios.iter().copied().fold(0.0, f64::max),
        threads: dense.compute().pool.threads(),
    })
}

fn round(session: &mut Session, prompt: &[u32]) -> Result<Duration, sparse_model::Error> {
    let sampler = Sampler::new(SamplerConfig::greedy());
    session.clear();
    // The prompt is not timed.
    session.candidates(prompt, &sampler, &[])?;
    let last = session.position();
    let start = Instant::now();
    continuation(session, &prompt[prompt.len() - 1..], DECODE)?;
    debug_assert_eq!(session.position(), last + DECODE);
    Ok(start.elapsed())
}

/// The `tokens` most probable tokens after `prompt`, one by one.
pub(crate) fn continuation(
    session: &mut Session,
    prompt: &[u32],
    tokens: usize,
) -> Result<Vec<u32>, sparse_model::Error> {
    let mut sampler = Sampler::new(SamplerConfig::greedy());
    let mut text: Vec<u32> = Vec::with_capacity(tokens);
    for i in 0..tokens {
        let before = if i == 0 { prompt } else { &text[i - 1..] };
        let logits = session.candidates(before, &sampler, &[])?;
        text.push(sampler.sample(logits, &[]));
    }
    Ok(text)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
