//! Text to calibrate on: given, or made up.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sparse_model::tokenizer::Tokenizer;
use sparse_model::{GenerateOptions, Model, SamplerConfig, Session, generate};

use crate::Error;
use crate::progress::{Progress, Silent, step};

/// Tokens that are made up to see how long that takes.
const PACE: usize = 16;

/// What calibration is to work on.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// These tokens.
    Given {
        /// Selectors are fitted to it, and settings chosen by it.
        text: &'a [u32],
        /// The result is measured on it; a part of `text` that nothing else uses if there is none.
        test: Option<&'a [u32]>,
    },
    /// What the model [makes up](sampled) itself, as much as there is time for.
    Own,
    /// Tokens [drawn evenly](drawn_evenly): for random weights.
    Even,
}

impl<'a> Text<'a> {
    /// One text for everything.
    pub fn of(text: &'a [u32]) -> Self {
        Self::Given { text, test: None }
    }
}

/// Seconds that `model` takes to make up a token.
pub(crate) fn pace(model: &Arc<Model>) -> Result<f64, Error> {
    let tokens = PACE.min(model.config().context);
    let start = Instant::now();
    sampled(model, tokens, tokens, 0, &mut Silent)?;
    Ok(start.elapsed().as_secs_f64() / tokens as f64)
}

/// Tokens that `model` samples from its own distribution, at least `tokens` of them in pieces of up
/// to `window`: text to calibrate on when there is no other. The same seed gives the same text.
///
/// # Errors
/// If the window is shorter than two tokens or longer than the model's context, the model fails, or
/// `progress` asks to stop.
pub fn sampled(
    model: &Arc<Model>,
    tokens: usize,
    window: usize,
    seed: u64,
    progress: &mut dyn Progress,
) -> Result<Vec<u32>, Error> {
    let limit = model.config().context;
    if !(2..=limit).contains(&window) {
        let expected = format!("2 to {limit} tokens");
        return Err(Error::Option { option: "window", value: window.to_string(), expected });
    }
    let start = model.tokenizer().bos().or(model.tokenizer().eos()).unwrap_or(0);
    let mut text = Vec::with_capacity(tokens + window);
    let mut session = Session::new(model, window)?;
    progress.begin("sampling text", tokens.div_ceil(window));
    for piece in 0.. {
        if text.len() >= tokens {
            break;
        }
        session.clear();
        let whole =
            SamplerConfig { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerConfig::default() };
        let sampler = SamplerConfig { seed: seed.wrapping_add(piece), ..whole };
        let options = GenerateOptions::new(window - 1).sampler(sampler).ignore_end(true);
        let generation = generate(&mut session, &[start], &options, |_| ControlFlow::Continue(()))?;
        text.push(start);
        text.extend_from_slice(&generation.tokens);
        step(progress)?;
    }
    Ok(text)
}

/// `tokens` of the tokens that there are, each as likely as any other: "text" for a model of random
/// weights, to which none means anything and whose own would repeat itself. The same seed gives the
/// same text.
pub fn drawn_evenly(tokenizer: &Tokenizer, tokens: usize, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let vocabulary = tokenizer.vocab_len() as u64;
    // The upper half of a product is even enough: a vocabulary is far smaller than 2^32.
    (0..tokens).map(|_| ((u64::from(rng.next_u32()) * vocabulary) >> 32) as u32).collect()
}
