//! Perplexity, by llama.cpp's method.

use std::ops::ControlFlow;
use std::sync::Arc;

use sparse_core::BatchMode;

use crate::mean::RunningMean;
use crate::{Error, Model, Session, SessionOptions};

/// Result of [`perplexity`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// `exp(mean negative log-likelihood)`.
    pub perplexity: f64,
    /// Standard error of `perplexity`.
    pub standard_error: f64,
    /// Tokens scored.
    pub scored: usize,
    /// Windows measured.
    pub windows: usize,
}

impl Perplexity {
    fn new(nll: &RunningMean, windows: usize) -> Self {
        let perplexity = nll.mean().exp();
        let standard_error = perplexity * nll.standard_error();
        Self { perplexity, standard_error, scored: nll.count(), windows }
    }
}

/// Perplexity of `tokens`, cut into windows of a context of which the second half is scored; what does
/// not fill a window is left out. The first token of every window is replaced by the beginning-of-text token if
/// the model's tokenizer adds one.
///
/// `on_window(done, total, so far)` is called after every window; `Break` ends the measurement with what it has.
///
/// # Errors
/// If there are fewer than two windows' worth of tokens (as in llama.cpp), or those of [`Session`].
pub fn perplexity(
    model: &Arc<Model>,
    tokens: &[u32],
    options: impl Into<SessionOptions>,
    mut on_window: impl FnMut(usize, usize, &Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity, Error> {
    let options = options.into();
    let context = options.context;
    let mut session = Session::with_options(model, options)?;
    // Sparse layers choose for every token on its own, as they do when it is generated.
    session.set_batch_mode(BatchMode::Masked);
    let needed = 2 * context;
    if tokens.len() < needed || context < 4 {
        return Err(Error::TextTooShort { found: tokens.len(), needed: needed.max(8), context });
    }
    let tokenizer = model.tokenizer();
    let begin = if tokenizer.add_bos() { tokenizer.bos() } else { None };
    let total = tokens.len() / context;
    let mut nll = RunningMean::default();
    let mut window = Vec::with_capacity(context);
    for (i, source) in tokens.chunks_exact(context).enumerate() {
        window.clear();
        window.extend_from_slice(source);
        if let Some(bos) = begin {
            window[0] = bos;
        }
        session.clear();
        let half = context / 2;
        session.forward(&window[..half])?;
        // The last token predicts nothing inside the window.
        session.forward_each(&window[half..context - 1], |t, logits| {
            nll.add(negative_log_likelihood(logits, window[half + t + 1]));
        })?;
        let so_far = Perplexity::new(&nll, i + 1);
        if on_window(i + 1, total, &so_far).is_break() {
            return Ok(so_far);
        }
    }
    Ok(Perplexity::new(&nll, total))
}

/// `-ln softmax(logits)[token]`: how surprised a model is by `token`, in nats.
///
/// # Panics
/// If there is no such token.
pub fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    log_sum_exp(logits) - f64::from(logits[token as usize])
}

/// `ln` of the sum of `exp(logit)`: what a logit is above its token's log-probability.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits_have_the_vocabulary_as_perplexity() {
        let mut nll = RunningMean::default();
        for t in 0..100 {
            nll.add(negative_log_likelihood(&[1.5; 50], t % 50));
        }
        let p = Perplexity::new(&nll, 1);
        assert!((p.perplexity - 50.0).abs() < 1e-6, "{p:?}");
        assert!(p.standard_error < 1e-3, "{p:?}");
    }

    #[test]
    fn the_standard_error_is_relative_to_the_perplexity() {
        let mut nll = RunningMean::default();
        (0..100).for_each(|i| nll.add(if i % 2 == 0 { 1.0 } else { 3.0 }));
        let p = Perplexity::new(&nll, 1);
        assert!((p.perplexity - 2f64.exp()).abs() < 1e-9);
        assert!((p.standard_error - 2f64.exp() / 99f64.sqrt()).abs() < 1e-9);
    }
}
