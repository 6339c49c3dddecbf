//! What a selector costs in accuracy.

use std::sync::Arc;

use serde::Serialize;
use sparse_core::{BatchMode, FfnCounts};
use sparse_model::sidecar::MeasuredLoss;
use sparse_model::{Model, RunningMean, Session, log_sum_exp};

use crate::Error;
use crate::progress::{Progress, step};

/// Loss against the dense model: per scored token the difference of its negative log-likelihoods, which pairs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Loss {
    /// Tokens scored.
    pub tokens: usize,
    /// Mean difference in nats; `exp` of it less 1 is the relative increase of perplexity.
    pub nats: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
}

impl Loss {
    fn new(differences: &RunningMean) -> Self {
        Self {
            tokens: differences.count(),
            nats: differences.mean(),
            standard_error: differences.standard_error(),
        }
    }

    /// Relative increase of perplexity: 0.01 is 1 %.
    pub fn increase(&self) -> f64 {
        self.nats.exp_m1()
    }

    /// Upper end of the 95 % confidence interval of [`increase`](Self::increase).
    pub fn upper(&self) -> f64 {
        (self.nats + 1.96 * self.standard_error).exp_m1()
    }

    /// [`upper`](Self::upper) as it is to be expected on a text so many times as long.
    pub(crate) fn upper_on(&self, times: f64) -> f64 {
        (self.nats + 1.96 * self.standard_error / times.sqrt()).exp_m1()
    }
}

/// Windows of text and how well the dense model predicts them. The second half of each window is scored.
pub(crate) struct Reference {
    windows: Vec<Vec<u32>>,
    /// Negative log-likelihood of every scored token.
    nll: Vec<f64>,
}

/// A loss, and what the layers did.
pub(crate) struct Measured {
    pub(crate) loss: Loss,
    pub(crate) counts: Vec<FfnCounts>,
}

impl Reference {
    pub(crate) fn new(
        dense: &Arc<Model>,
        windows: Vec<Vec<u32>>,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let mut session = session(dense, &windows, BatchMode::Dense)?;
        let mut nll = Vec::new();
        for window in &windows {
            score(&mut session, window, |_, n| nll.push(n))?;
            step(progress)?;
        }
        Ok(Self { windows, nll })
    }

    pub(crate) fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// The loss of `sparse`, whose selectors choose for every token on its own, as they do when it generates.
    pub(crate) fn loss(&self, sparse: &Arc<Model>, progress: &mut dyn Progress) -> Result<Measured, Error> {
        let mut session = session(sparse, &self.windows, BatchMode::Masked)?;
        let mut differences = RunningMean::default();
        let mut reference = self.nll.iter();
        for window in &self.windows {
            score(&mut session, window, |_, n| {
                let dense = reference.next().copied().unwrap_or(f64::NAN);
                differences.add(n - dense);
            })?;
            step(progress)?;
        }
        Ok(Measured { loss: Loss::new(&differences), counts: session.ffn_counts().to_vec() })
    }
}

/// The loss of `sparse` on `windows` in full: with divergence and agreement, which need both models' logits at once.
pub(crate) fn verify(
    dense: &Arc<Model>,
    sparse: &Arc<Model>,
    windows: &[Vec<u32>],
    progress: &mut dyn Progress,
) -> Result<(MeasuredLoss, Vec<FfnCounts>), Error> {
    let mut one = session(dense, windows, BatchMode::Dense)?;
    let mut other = session(sparse, windows, BatchMode::Masked)?;
    let vocab = dense.vocab_len();
    let mut differences = RunningMean::default();
    let (mut kl, mut same) = (0.0, 0_usize);
    let (mut logits, mut nll) = (Vec::new(), Vec::new());
    for window in windows {
        logits.clear();
        nll.clear();
        score(&mut one, window, |l, n| {
            logits.extend_from_slice(l);
            nll.push(n);
        })?;
        let mut pairs = logits.chunks_exact(vocab).zip(&nll);
        score(&mut other, window, |l, n| {
            if let Some((expected, dense)) = pairs.next() {
                differences.add(n - dense);
                kl += divergence(expected, l);
                same += usize::from(best(expected) == best(l));
            }
        })?;
        step(progress)?;
    }
    let loss = Loss::new(&differences);
    let n = loss.tokens.max(1) as f64;
    let measured = MeasuredLoss {
        perplexity_increase: loss.increase(),
        standard_error: loss.standard_error * loss.nats.exp(),
        kl: kl / n,
        top1: same as f64 / n,
        tokens: loss.tokens,
    };
    Ok((measured, other.ffn_counts().to_vec()))
}

/// The mean divergence that giving `sparse` its selectors causes on a few windows whose dense logits are known.
pub(crate) struct Divergence {
    windows: Vec<Vec<u32>>,
    logits: Vec<f32>,
}

impl Divergence {
    pub(crate) fn new(dense: &Arc<Model>, windows: &[Vec<u32>]) -> Result<Self, Error> {
        let mut session = session(dense, windows, BatchMode::Dense)?;
        let mut logits = Vec::new();
        for window in windows {
            score(&mut session, window, |l, _| logits.extend_from_slice(l))?;
        }
        Ok(Self { windows: windows.to_vec(), logits })
    }

    /// That of `sparse`, and what its layers did.
    pub(crate) fn of(&self, sparse: &Arc<Model>) -> Result<(f64, Vec<FfnCounts>), Error> {
        let mut session = session(sparse, &self.windows, BatchMode::Masked)?;
        let mut expected = self.logits.chunks_exact(sparse.vocab_len());
        let (mut kl, mut n) = (0.0, 0_usize);
        for window in &self.windows {
            score(&mut session, window, |l, _| {
                if let Some(expected) = expected.next() {
                    kl += divergence(expected, l);
                    n += 1;
                }
            })?;
        }
        Ok((kl / n.max(1) as f64, session.ffn_counts().to_vec()))
    }
}

/// A session with room for any of the windows.
pub(crate) fn session(model: &Arc<Model>, windows: &[Vec<u32>], mode: BatchMode) -> Result<Session, Error> {
    let mut session = Session::new(model, windows.first().map_or(1, Vec::len))?;
    session.set_batch_mode(mode);
    Ok(session)
}

/// Calls `each(logits, nll of the token that follows)` for the second half of `window`.
fn score(
    session: &mut Session,
    window: &[u32],
    mut each: impl FnMut(&[f32], f64),
) -> Result<(), sparse_model::Error> {
    let half = window.len() / 2;
    session.clear();
    session.forward(&window[..half])?;
    // The last token predicts nothing inside the window.
    session.forward_each(&window[half..window.len() - 1], |t, logits| {
        each(logits, sparse_model::negative_log_likelihood(logits, window[half + t + 1]));
    })
}

/// `KL(p || q)` of the distributions that two vectors of logits mean, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (of_p, of_q) = (log_sum_exp(p), log_sum_exp(q));
    let terms = p.iter().zip(q).map(|(p, q)| {
        let (p, q) = (f64::from(*p) - of_p, f64::from(*q) - of_q);
        p.exp() * (p - q)
    });
    terms.sum()
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_shifted_logits_and_what_the_formula_says() {
        assert!(divergence(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).abs() < 1e-9);
        // p = (3/4, 1/4), q = (1/2, 1/2).
        let kl = divergence(&[3_f32.ln(), 0.0], &[0.0, 0.0]);
        let expected = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        assert!((kl - expected).abs() < 1e-7, "{kl} {expected}");
    }

    #[test]
    fn the_loss_is_the_mean_with_its_standard_error() {
        let mut differences = RunningMean::default();
        (0..100).for_each(|i| differences.add(if i % 2 == 0 { 0.02 } else { 0.0 }));
        let loss = Loss::new(&differences);
        assert!(
            (loss.nats - 0.01).abs() < 1e-12 && (loss.standard_error - 0.01 / 99_f64.sqrt()).abs() < 1e-12
        );
        assert!(loss.increase() > 0.01 && loss.upper() > loss.increase());
        assert_eq!(loss.upper_on(1.0), loss.upper());
        // Four times as long: half as uncertain.
        let (whole, half) = (loss.upper().ln_1p() - loss.nats, loss.upper_on(4.0).ln_1p() - loss.nats);
        assert!((half / whole - 0.5).abs() < 1e-6, "{whole} {half}");
        assert_eq!(best(&[1.0, 3.0, 3.0]), Some(1));
    }
}
