//! Text for a model that comes with none.

use std::ops::ControlFlow;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sparse_model::tokenizer::Tokenizer;
use sparse_model::{GenerateOptions, Model, SamplerConfig, Session, generate};

use crate::Error;
use crate::progress::{Progress, step};

/// Tokens that `model` samples from its own distribution, at least `tokens` of them in pieces of up to `window`: text to
/// calibrate on when there is no other. The same seed gives the same text.
///
/// # Errors
/// If the window is shorter than two tokens or longer than the model's context, the model fails, or `progress` asks to stop.
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
        let options = GenerateOptions {
            max_tokens: window - 1,
            sampler: SamplerConfig { seed: seed.wrapping_add(piece), ..whole },
            ignore_end: true,
        };
        let generation = generate(&mut session, &[start], &options, |_| ControlFlow::Continue(()))?;
        text.push(start);
        text.extend_from_slice(&generation.tokens);
        step(progress)?;
    }
    Ok(text)
}

/// `tokens` of the tokens that there are, each as likely as any other: "text" for a model of random weights, to which none means
/// anything and whose own would repeat itself. The same seed gives the same text.
pub fn drawn_evenly(tokenizer: &Tokenizer, tokens: usize, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let vocabulary = tokenizer.vocab_len() as u64;
    // The upper half of a product is even enough: a vocabulary is far smaller than 2^32.
    (0..tokens).map(|_| ((u64::from(rng.next_u32()) * vocabulary) >> 32) as u32).collect()
}
