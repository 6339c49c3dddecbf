//! Time: estimated from curves, and measured.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sparse_core::{Density, Down, FfnCounts, FfnTimes, Selector, SparseFfn, median};
use sparse_gguf::Gguf;
use sparse_model::{Model, Sampler, SamplerConfig, Session};

use crate::Error;
use crate::family::set_selectors;
use crate::low_rank::unfitted;
use crate::progress::{Progress, Schedule, step};

/// Gains below this are noise.
const LEAST_GAIN: f64 = 1.01;
/// Rounds that a curve is the median of.
const ROUNDS: usize = 15;
/// Tokens decoded per round of the whole model.
const DECODE: usize = 32;
/// Rounds, and how many of them are needed for an interval when there is no time for all.
const DECODE_ROUNDS: usize = 15;
const LEAST_ROUNDS: usize = 6;

/// The dense model in the storage that is fastest for it.
pub(crate) fn fastest(gguf: &Gguf, dense: &Arc<Model>) -> Result<Arc<Model>, Error> {
    let neurons = dense.ffns().any(|ffn| matches!(ffn.down(), Down::Neurons(_)));
    let mut model = Model::from_gguf(gguf, dense.compute().pool.threads())?;
    model.make_dense()?;
    let moved = model.interleave();
    Ok(if neurons || moved > 0 { Arc::new(model) } else { Arc::clone(dense) })
}

/// Seconds that the feed-forward layers take for a token, by density: curves measured on this
/// machine.
pub(crate) struct Curves {
    /// Per layer: the curves, and the time of the dense path.
    layers: Vec<(FfnTimes, f64)>,
}

impl Curves {
    /// Measures layers of each kind. `dense` has its weights as the file has them, `sparse` sorted
    /// for skipping.
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

    /// Curves that were measured elsewhere.
    #[cfg(test)]
    pub(crate) fn of(layers: Vec<(FfnTimes, f64)>) -> Self {
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

    /// Seconds of each layer at these densities, besides what its selector takes.
    pub(crate) fn layers_at(&self, densities: &[Density]) -> Vec<f64> {
        self.layers.iter().zip(densities).map(|((times, _), density)| times.layer_at(*density)).collect()
    }

    /// Seconds of each layer of `model`, whose layers did `counts`, selectors included.
    pub(crate) fn layers(&self, model: &Model, counts: &[FfnCounts]) -> Vec<f64> {
        let densities: Vec<Density> =
            model.ffns().zip(counts).map(|(ffn, counts)| counts.density(ffn.neurons())).collect();
        let sparse = self.layers_at(&densities).into_iter().zip(selectors(model));
        let layers = model.ffns().zip(counts).zip(&self.layers).zip(sparse);
        layers
            .map(|(((ffn, counts), (_, dense)), (neurons, selector))| {
                match matches!(ffn.selector(), Selector::Dense) || counts.tokens == 0 {
                    true => *dense,
                    false => neurons + selector,
                }
            })
            .collect()
    }

    /// The largest density, per layer, at which a selector that takes so many `seconds` could save
    /// time if it named the neurons that matter and no other; 0 where it takes too long itself. It
    /// looks at all gates or `up` first if `first_is_dense`.
    pub(crate) fn break_even(&self, model: &Model, seconds: &[f64], first_is_dense: bool) -> Vec<f32> {
        let layers = model.ffns().zip(&self.layers).zip(seconds);
        layers
            .map(|((ffn, (times, dense)), seconds)| {
                largest(|density| {
                    let first = if first_is_dense { 1.0 } else { density };
                    let (gate, up) = if ffn.gate().is_some() { (first, density) } else { (0.0, first) };
                    seconds + times.layer_at(Density { gate, up, down: density }) < *dense
                })
            })
            .collect()
    }
}

/// The largest density that is low enough, if all lower ones are, too; 0 if none is.
fn largest(low_enough: impl Fn(f32) -> bool) -> f32 {
    if low_enough(1.0) {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..10 {
        let middle = 0.5 * (low + high);
        match low_enough(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// Seconds that the selector of each layer of `model` takes to choose; layers of one kind are timed
/// together.
pub(crate) fn selectors(model: &Model) -> Vec<f64> {
    let kind = |f: &SparseFfn| (f.inputs(), f.neurons(), f.selector().bytes());
    let mut times = HashMap::new();
    let mut time = |ffn: &SparseFfn| {
        *times.entry(kind(ffn)).or_insert_with(|| {
            let alike: Vec<_> = model.ffns().filter(|f| kind(f) == kind(ffn)).collect();
            FfnTimes::selector(model.compute(), &alike, ROUNDS)
        })
    };
    model.ffns().map(&mut time).collect()
}

/// Seconds that predictors of this rank would take in each layer of `model`, which keeps the last
/// of them.
pub(crate) fn predictors(model: &mut Arc<Model>, rank: usize) -> Result<Vec<f64>, Error> {
    let made: Result<Vec<Selector>, Error> =
        model.ffns().map(|ffn| unfitted(ffn.inputs(), ffn.neurons(), rank)).collect();
    set_selectors(model, made?)?;
    Ok(selectors(model))
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
    /// Lower end of the 95 % confidence interval of that median.
    pub lowest_gain: f64,
    /// Upper end of it.
    pub highest_gain: f64,
    /// Rounds.
    pub rounds: usize,
    /// Threads.
    pub threads: usize,
}

impl Speed {
    fn new(dense: &[Duration], sparse: &[Duration], threads: usize) -> Self {
        let ratios = dense.iter().zip(sparse).map(|(d, s)| d.as_secs_f64() / s.as_secs_f64());
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let (lowest_gain, highest_gain) = interval_of_median(&ratios);
        let rate =
            |times: &[Duration]| DECODE as f64 / median(times.iter().map(Duration::as_secs_f64).collect());
        Self {
            dense_tokens_per_s: rate(dense),
            sparse_tokens_per_s: rate(sparse),
            gain: ratios[ratios.len() / 2],
            lowest_gain,
            highest_gain,
            rounds: ratios.len(),
            threads,
        }
    }

    /// Whether the sparse model is shown to be faster: all of the interval is above 1, and its
    /// median above noise.
    pub(crate) fn pays(&self) -> bool {
        self.gain >= LEAST_GAIN && self.lowest_gain > 1.0
    }

    /// What was shown, in words: a gain or a loss only if the interval does not include 1.
    pub(crate) fn verdict(&self) -> String {
        let interval = format!("{:.2} to {:.2}", self.lowest_gain, self.highest_gain);
        match (self.lowest_gain > 1.0, self.highest_gain < 1.0) {
            (true, _) | (_, true) => {
                format!("the model decodes at {:.2} times its speed without ({interval})", self.gain)
            }
            _ => format!("neither a gain nor a loss of speed is shown ({interval} times the speed without)"),
        }
    }
}

/// The 95 % confidence interval of the median of what `sorted` values were drawn from, by the sign
/// test; unbounded for fewer than six.
fn interval_of_median(sorted: &[f64]) -> (f64, f64) {
    let n = sorted.len();
    // So many values may be left out at each end that, with tosses of a coin, so few heads come
    // with a chance of 2.5 % at most.
    let (mut chance, mut out) = (0.5_f64.powi(n as i32), 0);
    let mut below = chance;
    while below <= 0.025 {
        out += 1;
        chance *= (n + 1 - out) as f64 / out as f64;
        below += chance;
    }
    match out {
        0 => (0.0, f64::INFINITY),
        _ => (sorted[out - 1], sorted[n - out]),
    }
}

/// Decodes with both models by turns.
pub(crate) fn decode(
    dense: &Arc<Model>,
    sparse: &Arc<Model>,
    prompt: &[u32],
    schedule: &mut Schedule<'_>,
) -> Result<Speed, Error> {
    let room = prompt.len() + DECODE;
    let (mut one, mut other) = (Session::new(dense, room)?, Session::new(sparse, room)?);
    let (mut of_dense, mut of_sparse) = (Vec::new(), Vec::new());
    schedule.begin("timing", DECODE_ROUNDS);
    while of_dense.len() < DECODE_ROUNDS && (of_dense.len() < LEAST_ROUNDS || schedule.seconds_left() > 0.0) {
        of_dense.push(round(&mut one, prompt)?);
        of_sparse.push(round(&mut other, prompt)?);
        step(schedule)?;
    }
    Ok(Speed::new(&of_dense, &of_sparse, dense.compute().pool.threads()))
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

#[cfg(test)]
mod tests {
    use sparse_testdata::TinyLlama;

    use super::*;

    #[test]
    fn the_interval_of_a_median_is_that_of_the_sign_test() {
        let values = |n: usize| (1..=n).map(|i| i as f64).collect::<Vec<_>>();
        assert_eq!(interval_of_median(&values(5)), (0.0, f64::INFINITY));
        assert_eq!(interval_of_median(&values(6)), (1.0, 6.0));
        // Tables of the sign test: for 9, 15 and 20 values, the second, fourth and sixth from
        // either end.
        assert_eq!(interval_of_median(&values(9)), (2.0, 8.0));
        assert_eq!(interval_of_median(&values(15)), (4.0, 12.0));
        assert_eq!(interval_of_median(&values(20)), (6.0, 15.0));
    }

    #[test]
    fn gains_and_losses_are_claimed_only_if_they_are_shown() {
        let speed = |ratios: &[f64]| {
            let sparse = vec![Duration::from_secs(1); ratios.len()];
            let dense: Vec<Duration> = ratios.iter().map(|r| Duration::from_secs_f64(*r)).collect();
            Speed::new(&dense, &sparse, 1)
        };
        let gain = speed(&[1.1, 1.2, 1.15, 1.12, 1.3, 1.5]);
        assert!(gain.pays() && gain.verdict().contains("1.20 times"), "{}", gain.verdict());
        // The median gains, but not in all that the interval holds.
        let unclear = speed(&[0.67, 1.33, 1.14, 1.2, 1.14, 1.14]);
        assert!(unclear.gain > 1.1 && !unclear.pays());
        assert!(unclear.verdict().contains("neither a gain nor a loss"), "{}", unclear.verdict());
        let loss = speed(&[0.9, 0.8, 0.85, 0.88, 0.7, 0.99]);
        assert!(!loss.pays() && loss.verdict().contains("0.88 times"), "{}", loss.verdict());
        // A gain in every round that is smaller than noise.
        let small = speed(&[1.005; 6]);
        assert!(small.lowest_gain > 1.0 && !small.pays());
    }

    #[test]
    fn the_break_even_is_the_largest_density_that_saves_time() {
        assert!((largest(|d| d < 0.4) - 0.4).abs() < 1e-3);
        assert_eq!((largest(|_| true), largest(|_| false)), (1.0, 0.0));
    }

    fn tiny() -> Arc<Model> {
        let tiny = TinyLlama { activation: Some("relu"), ..TinyLlama::default() };
        let gguf = Gguf::from_bytes(tiny.build().to_bytes()).unwrap();
        Arc::new(Model::from_gguf(&gguf, 1).unwrap())
    }

    #[test]
    fn a_layer_takes_what_its_selector_takes_too() {
        let mut model = tiny();
        // Neurons take no time at all; a dense layer takes a second.
        let free = FfnTimes {
            rows: vec![0.0; 9],
            down: vec![0.0; 9],
            dense_rows: 0.0,
            dense_gate: 0.0,
            dense_down: 0.0,
        };
        let curves = Curves { layers: vec![(free, 1.0); 2] };
        let some = FfnCounts { tokens: 1, gate: 1, up: 1, down: 1, bytes: 1 };
        set_selectors(&mut model, vec![Selector::Dense, Selector::ExactZero]).unwrap();
        assert_eq!(curves.layers(&model, &[some; 2]), [1.0, 0.0]);
        assert!(predictors(&mut model, 32).unwrap().iter().all(|seconds| *seconds > 0.0));
        let layers = curves.layers(&model, &[some; 2]);
        assert!(layers.iter().all(|seconds| *seconds > 0.0 && *seconds < 1.0), "{layers:?}");
        // What nothing was counted of is as it was.
        assert_eq!(curves.layers(&model, &[FfnCounts::default(); 2]), [1.0, 1.0]);
    }

    #[test]
    fn break_even_is_where_selector_and_neurons_take_as_long_as_the_dense_layer() {
        let line = || [0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9].to_vec();
        let times =
            FfnTimes { rows: line(), down: line(), dense_rows: 1.0, dense_gate: 1.0, dense_down: 1.0 };
        let curves = Curves { layers: vec![(times.clone(), 3.0), (times, 2.5)] };
        let model = tiny();
        let at = |seconds: f64, first: bool| curves.break_even(&model, &[seconds; 2], first);
        let near = |found: Vec<f32>, expected: [f32; 2]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-3), "{found:?} {expected:?}");
        };
        // All three projections, or two beside a gate that is computed whole.
        near(at(1.5, false), [0.5, 1.0 / 3.0]);
        near(at(0.5, true), [0.75, 0.5]);
        near(at(2.6, false), [0.4 / 3.0, 0.0]);
        assert_eq!(at(1.5, true)[1], 0.0);
    }
}
