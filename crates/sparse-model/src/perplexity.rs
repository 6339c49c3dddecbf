//! Perplexity, by llama.cpp's method.

use std::ops::ControlFlow;
use std::sync::Arc;

use sparse_core::BatchMode;

use crate::{Error, Model, Session};

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

/// Running sums over scored tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    nll: f64,
    squares: f64,
    scored: usize,
}

impl Sums {
    fn add(&mut self, nll: f64) {
        self.nll += nll;
        self.squares += nll * nll;
        self.scored += 1;
    }

    fn result(&self, windows: usize) -> Perplexity {
        let n = self.scored as f64;
        let mean = self.nll / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        let perplexity = mean.exp();
        let standard_error = perplexity * (variance / (n - 1.0)).sqrt();
        Perplexity { perplexity, standard_error, scored: self.scored, windows }
    }
}

/// Perplexity of `tokens`, cut into windows of `context` tokens of which the second half is scored; what does
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
    context: usize,
    mut on_window: impl FnMut(usize, usize, &Perplexity) -> ControlFlow<()>,
) -> Result<Perplexity, Error> {
    let mut session = Session::new(model, context)?;
    // Sparse layers choose for every token on its own, as they do when it is generated.
    session.set_batch_mode(BatchMode::Masked);
    let needed = 2 * context;
    if tokens.len() < needed || context < 4 {
        return Err(Error::TextTooShort { found: tokens.len(), needed: needed.max(8), context });
    }
    let tokenizer = model.tokenizer();
    let begin = if tokenizer.add_bos() { tokenizer.bos() } else { None };
    let total = tokens.len() / context;
    let mut sums = Sums::default();
    let mut window = Vec::with_capacity(context);
    for (i, source) in tokens.chunks_exact(context).enumerate() {
        window.clear();
        window.extend_from_slice(source);
        if let Some(bos) = begin {
            window[0] = bos;
        }
        session.truncate(0);
        let half = context / 2;
        session.forward(&window[..half])?;
        // The last token predicts nothing inside the window.
        session.forward_each(&window[half..context - 1], |t, logits| {
            sums.add(negative_log_likelihood(logits, window[half + t + 1]));
        })?;
        if on_window(i + 1, total, &sums.result(i + 1)).is_break() {
            return Ok(sums.result(i + 1));
        }
    }
    Ok(sums.result(total))
}

/// `-ln softmax(logits)[token]`: how surprised a model is by `token`, in nats.
///
/// # Panics
/// If there is no such token.
pub fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
    sum.ln() - f64::from(logits[token as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits_have_the_vocabulary_as_perplexity() {
        let mut sums = Sums::default();
        for t in 0..100 {
            sums.add(negative_log_likelihood(&[1.5; 50], t % 50));
        }
        let p = sums.result(1);
        assert!((p.perplexity - 50.0).abs() < 1e-6, "{p:?}");
        assert!(p.standard_error < 1e-3, "{p:?}");
    }

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let mut sums = Sums::default();
        // Mean 2, variance 1, 100 samples.
        (0..100).for_each(|i| sums.add(if i % 2 == 0 { 1.0 } else { 3.0 }));
        let p = sums.result(1);
        assert!((p.perplexity - 2f64.exp()).abs() < 1e-9);
        assert!((p.standard_error - 2f64.exp() / 99f64.sqrt()).abs() < 1e-9);
    }
}
