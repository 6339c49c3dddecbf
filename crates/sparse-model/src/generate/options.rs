//! What to generate and when to stop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::{Error, SamplerConfig};

/// What to generate and when to stop. The [default](Self::default) is 256 tokens by the default sampler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Most tokens to generate; the context ends it too, unless it [shifts](Self::overflow).
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// Go on when the model says that it is done. A grammar that allows nothing more ends the text all the same.
    pub ignore_end: bool,
    /// Texts that end the generation, also across the borders of tokens. They are not part of the text.
    pub stop: Vec<String>,
    /// Tokens that end the generation, beside those of the model.
    pub stop_tokens: Vec<u32>,
    /// Report how probable each token was, and so many of the most probable ones beside it.
    pub logprobs: Option<usize>,
    /// Whether penalties look back into the prompt, as llama.cpp's do. OpenAI's look at the new text alone.
    pub penalize_prompt: bool,
    /// What happens when the context is full.
    pub overflow: Overflow,
    /// Compute what followed the same tokens before together with the next one, where that is faster. The text is the same
    /// either way.
    pub lookup: bool,
    /// What the text has to match.
    #[cfg(feature = "grammar")]
    pub grammar: Option<crate::grammar::Grammar>,
    /// Stops the generation before its next step once it is true; another thread may set it.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Generation ends.
    #[default]
    Stop,
    /// The first tokens stay, the older half of the others is forgotten, and the rest is computed anew: what follows
    /// is what would follow a prompt of these tokens.
    Shift {
        /// Tokens that stay, such as those of the system message. At most half the context does.
        keep: usize,
    },
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampler: SamplerConfig::default(),
            ignore_end: false,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            logprobs: None,
            penalize_prompt: true,
            overflow: Overflow::default(),
            lookup: true,
            #[cfg(feature = "grammar")]
            grammar: None,
            cancel: None,
        }
    }
}

impl GenerateOptions {
    /// At most `max_tokens` tokens.
    pub fn new(max_tokens: usize) -> Self {
        Self { max_tokens, ..Self::default() }
    }

    /// The same with another sampler.
    #[must_use]
    pub fn sampler(self, sampler: SamplerConfig) -> Self {
        Self { sampler, ..self }
    }

    /// The same, going on when the model says that it is done.
    #[must_use]
    pub fn ignore_end(self, ignore_end: bool) -> Self {
        Self { ignore_end, ..self }
    }

    /// The same with these stop strings.
    #[must_use]
    pub fn stop(self, stop: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { stop: stop.into_iter().map(Into::into).collect(), ..self }
    }

    /// Whether text can be generated so.
    ///
    /// # Errors
    /// If a stop string is empty, or the sampler does not pass [`SamplerConfig::check`].
    pub fn check(&self) -> Result<(), Error> {
        self.sampler.check()?;
        match self.stop.iter().any(String::is_empty) {
            true => Err(Error::setting("stop", "is an empty text, with which nothing could begin")),
            false => Ok(()),
        }
    }
}
