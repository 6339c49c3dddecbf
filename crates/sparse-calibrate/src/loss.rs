//! How far a sparse model's predictions are from the dense model's.

use std::sync::Arc;

use serde::Serialize;
use sparse_core::{Activations, BatchMode, FfnCounts};
use sparse_model::internal::RunningMean;
use sparse_model::sidecar::{MeasuredLoss, OwnText};
use sparse_model::{Model, Session};
use sparse_simd::Kernels;

use crate::Error;
use crate::progress::{Progress, step};

/// Tokens whose dense logits are computed at a time.
const BATCH: usize = 16;
/// Standard errors by which a loss has to miss the budget before the rest of the text is not looked
/// at.
const CLEARLY: f64 = 3.0;
/// Share of the budget below which it is not looked at, either.
const WELL_INSIDE: f64 = 0.7;

/// Loss against the dense model: the divergence `KL` of its predictions, token by token.
///
/// `exp(KL) - 1` is by how much perplexity grows on text that the dense model writes itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Loss {
    /// Tokens scored.
    pub tokens: usize,
    /// Mean divergence from the dense model, in nats.
    pub kl: f64,
    /// Standard error of `kl`.
    pub kl_error: f64,
    /// Mean difference in negative log-likelihood on this text; `exp` of it less 1 is the relative
    /// change of perplexity.
    pub nats: f64,
    /// Standard error of `nats`.
    pub standard_error: f64,
}

impl Loss {
    /// The loss, `exp(KL) - 1`: 0.01 is 1 %.
    pub fn increase(&self) -> f64 {
        self.kl.exp_m1()
    }

    /// Upper end of the 95 % confidence interval of [`increase`](Self::increase).
    pub fn upper(&self) -> f64 {
        self.upper_on(1.0)
    }

    /// [`upper`](Self::upper) as it is to be expected on a text `times` as long.
    pub(crate) fn upper_on(&self, times: f64) -> f64 {
        (self.kl + 1.96 * self.kl_error / times.sqrt()).exp_m1()
    }

    /// Whether a longer text would hardly bring it inside `budget`.
    pub(crate) fn clearly_over(&self, budget: f64) -> bool {
        let lower = (self.kl - CLEARLY * self.kl_error).exp_m1();
        // NaN is over any budget.
        self.tokens > 0 && (lower > budget || lower.is_nan())
    }

    /// Whether a longer text would hardly bring it near `budget`.
    fn well_inside(&self, budget: f64) -> bool {
        (self.kl + CLEARLY * self.kl_error).exp_m1() < WELL_INSIDE * budget
    }
}

/// How much of the text is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// So many windows.
    Windows(usize),
    /// As much as it takes to see that the loss is outside this budget, or well inside; 2, 4, 8
    /// windows, and so on.
    Clear(f64),
    /// As much as it takes to see that the loss is outside this budget.
    Outside(f64),
}

impl Until {
    /// Whether `loss`, measured on so many windows, is known well enough.
    fn enough(self, loss: &Loss, windows: usize) -> bool {
        let looked = windows >= 2 && windows.is_power_of_two();
        match self {
            Self::Windows(most) => windows >= most,
            Self::Clear(budget) => looked && (loss.clearly_over(budget) || loss.well_inside(budget)),
            Self::Outside(budget) => looked && loss.clearly_over(budget),
        }
    }
}

/// Windows of text and what the dense model predicts for them. The second half of each window is
/// scored.
pub(crate) struct Reference {
    dense: Arc<Model>,
    windows: Vec<Vec<u32>>,
    /// What the dense head is given for the scored tokens of each window, as far as that was
    /// computed: logits would take a hundred times the memory.
    heads: Vec<Vec<f32>>,
}

/// A loss, and what the layers did.
pub(crate) struct Measured {
    pub(crate) loss: Loss,
    /// Share of the tokens whose most probable continuation is the same.
    pub(crate) top1: f64,
    pub(crate) counts: Vec<FfnCounts>,
}

impl Reference {
    pub(crate) fn new(dense: &Arc<Model>, windows: Vec<Vec<u32>>) -> Self {
        Self { dense: Arc::clone(dense), windows, heads: Vec::new() }
    }

    /// Windows that can be looked at.
    pub(crate) fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// Leaves so many windows, at least one.
    pub(crate) fn truncate(&mut self, windows: usize) {
        self.windows.truncate(windows.max(1));
        self.heads.truncate(windows.max(1));
    }

    /// Mean negative log-likelihood of the dense model on up to so many windows, in nats.
    pub(crate) fn dense_nats(&mut self, windows: usize, progress: &mut dyn Progress) -> Result<f64, Error> {
        let mut nll = RunningMean::default();
        let dense = Arc::clone(&self.dense);
        for w in 0..windows.min(self.windows.len()) {
            self.prepare(w)?;
            let mut logits = DenseLogits::new(&dense, &self.heads[w]);
            for (t, next) in self.windows[w][first_scored(&self.windows[w])..].iter().enumerate() {
                nll.add(sparse_model::negative_log_likelihood(logits.of(t), *next));
            }
            step(progress)?;
        }
        Ok(nll.mean())
    }

    /// The loss of `sparse`, whose selectors choose for every token on its own, as they do when it
    /// generates.
    pub(crate) fn measure(
        &mut self,
        sparse: &Arc<Model>,
        until: Until,
        progress: &mut dyn Progress,
    ) -> Result<Measured, Error> {
        let mut session = session(sparse, &self.windows, BatchMode::Masked)?;
        let (dense, kernels) = (Arc::clone(&self.dense), self.dense.compute().kernels);
        let (mut kl, mut nll) = (RunningMean::default(), RunningMean::default());
        let mut same = 0_usize;
        let mut compare = Compare::default();
        let mut loss = Loss::default();
        for w in 0..self.windows.len() {
            self.prepare(w)?;
            let window = &self.windows[w];
            let first = first_scored(window);
            let mut expected = DenseLogits::new(&dense, &self.heads[w]);
            session.clear();
            session.forward(&window[..first - 1])?;
            session.forward_each(&window[first - 1..window.len() - 1], |t, found| {
                let compared = compare.of(kernels, expected.of(t), found, window[first + t]);
                kl.add(compared.kl);
                nll.add(compared.nll);
                same += usize::from(compared.same);
            })?;
            step(progress)?;
            loss = Loss {
                tokens: kl.count(),
                kl: kl.mean(),
                kl_error: kl.standard_error(),
                nats: nll.mean(),
                standard_error: nll.standard_error(),
            };
            if until.enough(&loss, w + 1) {
                break;
            }
        }
        let top1 = same as f64 / loss.tokens.max(1) as f64;
        Ok(Measured { loss, top1, counts: session.ffn_counts().to_vec() })
    }

    /// Computes what the dense head is given in window `w`, and in those before it.
    fn prepare(&mut self, w: usize) -> Result<(), Error> {
        if w < self.heads.len() {
            return Ok(());
        }
        let mut session = session(&self.dense, &self.windows, BatchMode::Dense)?;
        for window in &self.windows[self.heads.len()..=w] {
            let first = first_scored(window);
            let mut inputs = Vec::new();
            session.clear();
            session.forward(&window[..first - 1])?;
            session.watch_head_inputs(&window[first - 1..window.len() - 1], |x| {
                inputs.extend_from_slice(x.x())
            })?;
            self.heads.push(inputs);
        }
        Ok(())
    }
}

/// The loss on the text and on the model's own, as a sidecar states it. `text_nats` and `own_nats`
/// are the dense model's.
pub(crate) fn stated(text: &Measured, own: Option<&Measured>, text_nats: f64, own_nats: f64) -> MeasuredLoss {
    MeasuredLoss {
        kl: text.loss.kl,
        kl_error: text.loss.kl_error,
        perplexity_increase: text.loss.nats.exp_m1(),
        standard_error: text.loss.standard_error * text.loss.nats.exp(),
        top1: text.top1,
        tokens: text.loss.tokens,
        own: own.map(|own| OwnText {
            kl: own.loss.kl,
            kl_error: own.loss.kl_error,
            tokens: own.loss.tokens,
            perplexity: own_nats.exp(),
            text_perplexity: text_nats.exp(),
        }),
    }
}

/// A session with room for any of the windows.
pub(crate) fn session(model: &Arc<Model>, windows: &[Vec<u32>], mode: BatchMode) -> Result<Session, Error> {
    let mut session = Session::new(model, windows.first().map_or(1, Vec::len))?;
    session.set_batch_mode(mode);
    Ok(session)
}

/// The first token of a window that is scored: one after its half.
fn first_scored(window: &[u32]) -> usize {
    window.len() / 2 + 1
}

/// Dense logits, computed again from what the head is given.
struct DenseLogits<'a> {
    model: &'a Model,
    inputs: &'a [f32],
    batch: Activations,
    /// The first token in `logits`, and these.
    first: usize,
    logits: Vec<f32>,
}

impl<'a> DenseLogits<'a> {
    fn new(model: &'a Model, inputs: &'a [f32]) -> Self {
        let batch = Activations::with_capacity(BATCH, model.config().embedding);
        Self { model, inputs, batch, first: 0, logits: Vec::new() }
    }

    /// Those of scored token `t`.
    fn of(&mut self, t: usize) -> &[f32] {
        let (rows, width) = (self.model.vocab_len(), self.batch.cols());
        if t < self.first || (t - self.first) * rows >= self.logits.len() {
            self.first = t / BATCH * BATCH;
            let x = &self.inputs[self.first * width..];
            let x = &x[..x.len().min(BATCH * width)];
            self.batch.resize(x.len() / width);
            self.batch.x_mut().copy_from_slice(x);
            self.batch.quantize(self.model.compute().kernels);
            self.logits.resize(x.len() / width * rows, 0.0);
            self.model.logits(&self.batch, &mut self.logits);
        }
        &self.logits[(t - self.first) * rows..][..rows]
    }
}

/// Two predictions of one token.
struct Compared {
    /// `KL(dense || sparse)`, in nats.
    kl: f64,
    /// The difference of negative log-likelihoods of the token that follows.
    nll: f64,
    /// Whether the best token is the same.
    same: bool,
}

/// Compares logits; with buffers for their probabilities.
#[derive(Default)]
struct Compare([Vec<f32>; 2]);

impl Compare {
    /// Compares the dense logits `p` with `q`; `next` is the token that follows.
    fn of(&mut self, kernels: &Kernels, p: &[f32], q: &[f32], next: u32) -> Compared {
        let (of_p, of_q) = (best(p), best(q));
        // Logarithms of sums, from the probability of the best.
        let [sum_p, sum_q] = [(p, of_p), (q, of_q)].map(|(logits, best)| f64::from(logits[best]));
        let mut sums = [sum_p, sum_q];
        for ((values, logits), (sum, best)) in
            self.0.iter_mut().zip([p, q]).zip(sums.iter_mut().zip([of_p, of_q]))
        {
            values.clear();
            values.extend_from_slice(logits);
            kernels.softmax(values);
            *sum -= f64::from(values[best]).ln();
        }
        // The best logit is taken off both, so that large ones that are alike cancel before they
        // are rounded.
        let (top_p, top_q) = (f64::from(p[of_p]), f64::from(q[of_p]));
        let terms = self.0[0].iter().zip(p.iter().zip(q));
        let apart: f64 = terms
            .map(|(share, (p, q))| f64::from(*share) * ((f64::from(*p) - top_p) - (f64::from(*q) - top_q)))
            .sum();
        let kl = apart - ((sums[0] - top_p) - (sums[1] - top_q));
        let at = next as usize;
        let nll = (sums[1] - f64::from(q[at])) - (sums[0] - f64::from(p[at]));
        // Rounding may make a divergence that is none a little less; NaN stays.
        Compared { kl: if kl < 0.0 { 0.0 } else { kl }, nll, same: of_p == of_q }
    }
}

/// The first of the largest logits; 0 if none is a number.
fn best(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if *l > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(p: &[f32], q: &[f32], next: u32) -> Compared {
        Compare::default().of(Kernels::get(), p, q, next)
    }

    #[test]
    fn divergence_is_zero_for_shifted_logits_and_what_the_formula_says() {
        let shifted = compare(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0], 0);
        assert!(shifted.kl.abs() < 1e-6 && shifted.nll.abs() < 1e-6 && shifted.same);
        // p = (3/4, 1/4), q = (1/2, 1/2).
        let other = compare(&[3_f32.ln(), 0.0], &[0.0, 0.0], 1);
        let expected = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((other.kl - expected).abs() < 1e-6, "{} {expected}", other.kl);
        // The token that follows became twice as probable.
        assert!((other.nll + 2_f64.ln()).abs() < 1e-6, "{}", other.nll);
        // A better prediction of what follows is as far from the dense model as a worse one.
        let (better, worse) = (compare(&[0.0, 0.0], &[0.0, 2.0], 1), compare(&[0.0, 0.0], &[0.0, 2.0], 0));
        assert!(better.nll < -0.1 && worse.nll > 0.1 && better.kl == worse.kl && better.kl > 0.3);
        assert!(!compare(&[0.0, 1.0], &[1.0, 0.0], 0).same);
        assert!(compare(&[0.0, 1.0], &[f32::NAN, 0.0], 0).kl.is_nan());
    }

    #[test]
    fn the_dense_model_has_no_loss_and_one_without_neurons_has() {
        use crate::family::set_selectors;
        use crate::progress::Silent;
        use sparse_core::Selector;
        let gguf = sparse_testdata::TinyLlama::default().build().to_bytes();
        let gguf = sparse_gguf::Gguf::from_bytes(gguf).unwrap();
        let open = || Arc::new(Model::from_gguf(&gguf, 1).unwrap());
        let (dense, mut sparse) = (open(), open());
        let windows: Vec<Vec<u32>> =
            (0..4).map(|w| (0..32).map(|t| (w * 71 + t * 37) % 260).collect()).collect();
        let mut reference = Reference::new(&dense, windows);
        let same = reference.measure(&sparse, Until::Windows(4), &mut Silent).unwrap();
        assert_eq!((same.loss.tokens, same.top1), (60, 1.0));
        assert!(same.loss.kl < 1e-6, "{:?}", same.loss);
        let none = || Selector::Intermediate { hidden: vec![1e9; 160] };
        set_selectors(&mut sparse, vec![none(), none()]).unwrap();
        let lost = reference.measure(&sparse, Until::Windows(2), &mut Silent).unwrap();
        assert_eq!((lost.loss.tokens, lost.counts[0].tokens, lost.counts[0].down), (30, 62, 0));
        assert!(lost.top1 < 1.0 && lost.loss.kl > 1e-3 && lost.loss.kl_error > 0.0, "{:?}", lost.loss);
    }

    #[test]
    fn losses_have_intervals_and_are_looked_at_until_they_are_clear() {
        let loss = |kl, kl_error| Loss { tokens: 100, kl, kl_error, ..Loss::default() };
        let some = loss(0.01, 0.001);
        assert!((some.increase() - 0.01_f64.exp_m1()).abs() < 1e-12);
        assert!((some.upper() - 0.01196_f64.exp_m1()).abs() < 1e-12);
        // Four times as long: half as uncertain.
        assert!((some.upper_on(4.0) - 0.01098_f64.exp_m1()).abs() < 1e-12);
        assert!(some.clearly_over(0.006) && !some.clearly_over(0.008));
        assert!(some.well_inside(0.02) && !some.well_inside(0.015));
        assert!(loss(f64::NAN, 0.0).clearly_over(1e9) && !Loss::default().clearly_over(0.0));

        for (until, enough) in [
            (Until::Windows(3), [false, false, true, true]),
            (Until::Clear(0.02), [false, true, false, true]),
            (Until::Clear(0.012), [false; 4]),
            (Until::Clear(0.005), [false, true, false, true]),
            (Until::Outside(0.02), [false; 4]),
            (Until::Outside(0.005), [false, true, false, true]),
        ] {
            assert_eq!([1, 2, 3, 4].map(|windows| until.enough(&some, windows)), enough);
        }
        assert_eq!(best(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(best(&[f32::NAN, -3.0, f32::NAN]), 1);
    }
}
