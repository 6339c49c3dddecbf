//! Text generation: prompt in, pieces of text out.

use std::ops::ControlFlow;
use std::time::Duration;

use web_time::Instant;

use crate::{Error, Sampler, SamplerConfig, Session};

/// What to generate and when to stop.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens to generate; the session's context ends it too.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// Go on when the model says that it is done.
    pub ignore_end: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: 256, sampler: SamplerConfig::default(), ignore_end: false }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The model chose an end-of-generation token.
    End,
    /// As many tokens as asked for.
    MaxTokens,
    /// The session's context is full.
    ContextFull,
    /// The callback asked to stop.
    Interrupted,
}

/// What [`generate`] did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Generation {
    /// The generated tokens; an end-of-generation token at the end is not among them, though it is
    /// part of the session's sequence.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// Time spent on the prompt.
    pub prompt_time: Duration,
    /// Time spent on the tokens after the first (which the prompt's logits decide).
    pub decode_time: Duration,
    /// Decode steps in `decode_time`.
    pub decode_steps: usize,
}

/// Appends `prompt` to the session and generates from it, calling `on_text` with every piece of text as soon as
/// it is whole characters.
///
/// All sampled tokens are part of the session's sequence afterwards, an end-of-generation token too.
/// So calls one after the other give the same tokens as one call with the text of all of them, and an
/// empty `prompt` goes on where the last call stopped. The repetition penalty looks back over the
/// whole sequence.
///
/// # Errors
/// Those of [`Session::forward`] and [`SamplerConfig::check`]; an empty `prompt` at the start of a session is
/// [`Error::NoTokens`].
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, Error> {
    let model = session.model().clone();
    let tokenizer = model.tokenizer();
    options.sampler.check()?;
    let mut sampler = Sampler::new(options.sampler.clone());
    let mut stream = tokenizer.decode_stream();
    let before = session.tokens().len() + prompt.len();
    let room = session.context().saturating_sub(before) + 1;
    let mut history = Vec::with_capacity(before + options.max_tokens.min(room));
    history.extend_from_slice(session.tokens());
    history.extend_from_slice(prompt);

    let start = Instant::now();
    let mut logits = session.candidates(prompt, &sampler, &history)?;
    let prompt_time = start.elapsed();
    let start = Instant::now();
    let mut decode_steps = 0;
    let stop = loop {
        if history.len() - before == options.max_tokens {
            break Stop::MaxTokens;
        }
        let token = sampler.sample(logits, &history);
        session.push(token)?;
        if tokenizer.is_eog(token) && !options.ignore_end {
            break Stop::End;
        }
        history.push(token);
        if let Some(text) = stream.push(token)
            && on_text(text).is_break()
        {
            break Stop::Interrupted;
        }
        if history.len() - before == options.max_tokens {
            break Stop::MaxTokens;
        }
        if session.position() == session.context() {
            break Stop::ContextFull;
        }
        logits = session.candidates(&[], &sampler, &history)?;
        decode_steps += 1;
    };
    let decode_time = start.elapsed();
    if let Some(rest) = stream.finish() {
        // Nothing is left to stop.
        let _ = on_text(rest);
    }
    history.drain(..before);
    Ok(Generation { tokens: history, stop, prompt_time, decode_time, decode_steps })
}
