//! From logits to tokens, text and an end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stops::StopStrings;
use super::{Event, GenerateOptions, Generation, Stop, Token, TokenLogprobs};
#[cfg(feature = "grammar")]
use crate::grammar::Matcher;
use crate::tokenizer::DecodeState;
use crate::{Error, Logits, Model, Sampler, Session};

/// Chooses the tokens of one text, and says what happens.
///
/// Whoever computes the sequence gives it the logits of each position, appends the token that it chose, and passes its
/// events on.
#[derive(Debug)]
pub struct Generator {
    model: Arc<Model>,
    options: GenerateOptions,
    sampler: Sampler,
    decoding: DecodeState,
    stops: StopStrings,
    #[cfg(feature = "grammar")]
    matcher: Option<Matcher>,
    /// Logits of the tokens that the grammar allows.
    #[cfg(feature = "grammar")]
    allowed: Vec<f32>,
    /// The sequence, a token that ended it excluded.
    history: Vec<u32>,
    /// Tokens in `history` when it began.
    begin: usize,
    events: VecDeque<Event>,
    ended: bool,
}

/// What a [`Generator`] chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// A token, to be appended to the sequence.
    Token(u32),
    /// The token that ends the text, to be appended to the sequence.
    Last(u32),
    /// Nothing: there is to be no token.
    Nothing,
}

impl Generator {
    /// At the end of `history`, prompt included; `room` is the number of tokens that may follow it at most.
    ///
    /// # Errors
    /// If the options do not pass [`GenerateOptions::check`], or nothing can match the grammar.
    pub fn new(
        model: &Arc<Model>,
        options: GenerateOptions,
        mut history: Vec<u32>,
        room: usize,
    ) -> Result<Self, Error> {
        options.check()?;
        history.reserve(options.max_tokens.min(room));
        Ok(Self {
            sampler: Sampler::new(options.sampler.clone()),
            decoding: DecodeState::default(),
            stops: StopStrings::new(options.stop.clone()),
            #[cfg(feature = "grammar")]
            matcher: options.grammar.as_ref().map(|g| Matcher::new(model, g)).transpose()?,
            #[cfg(feature = "grammar")]
            allowed: Vec::new(),
            begin: history.len(),
            history,
            events: VecDeque::new(),
            ended: false,
            model: Arc::clone(model),
            options,
        })
    }

    /// What was asked for.
    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    /// The sequence: what was there before, and the chosen tokens but for one that ended the text.
    pub fn history(&self) -> &[u32] {
        &self.history
    }

    /// Tokens chosen, one that ended the text excluded.
    pub fn generated(&self) -> usize {
        self.history.len() - self.begin
    }

    /// The next event, if there is one before the next token.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether no further token is wanted. There may be events left.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether [`GenerateOptions::cancel`] is set.
    pub fn is_cancelled(&self) -> bool {
        self.options.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// Appends `tokens` to `session` and computes what is needed to choose the next one.
    pub(super) fn logits<'s>(&self, session: &'s mut Session, tokens: &[u32]) -> Result<Logits<'s>, Error> {
        match self.needs_all() {
            true => Ok(session.forward(tokens)?.into()),
            false => session.candidates(tokens, &self.sampler, self.penalized()),
        }
    }

    /// Whether the logits of all tokens are needed, whatever the sampler chooses from.
    fn needs_all(&self) -> bool {
        #[cfg(feature = "grammar")]
        let matched = self.matcher.is_some();
        #[cfg(not(feature = "grammar"))]
        let matched = false;
        matched || self.options.logprobs.is_some()
    }

    /// Where penalties look.
    fn penalized(&self) -> &[u32] {
        if self.options.penalize_prompt { &self.history } else { &self.history[self.begin..] }
    }

    /// Chooses a token from the logits after the sequence.
    ///
    /// # Errors
    /// If the grammar allows no token of the vocabulary.
    pub fn choose<'a>(&mut self, logits: impl Into<Logits<'a>>) -> Result<Next, Error> {
        if self.generated() == self.options.max_tokens {
            self.end(Stop::MaxTokens);
            return Ok(Next::Nothing);
        }
        let logits = logits.into();
        let token = self.sample(logits)?;
        let ends = self.model.tokenizer().is_eog(token);
        if self.options.stop_tokens.contains(&token) {
            self.end(Stop::StopToken(token));
            return Ok(Next::Last(token));
        }
        if ends && !self.options.ignore_end {
            self.end(Stop::End);
            return Ok(Next::Last(token));
        }
        self.history.push(token);
        let logprobs = self.options.logprobs.map(|n| TokenLogprobs::new(logits.values, token, n));
        self.events.push_back(Event::Token(Token { id: token, logprobs }));
        let piece = self.decoding.push(self.model.tokenizer(), token);
        let (text, stop) = piece.map(|piece| self.stops.push(piece)).unwrap_or_default();
        self.give(text);
        let stop = match stop {
            Some(stop) => Some(Stop::StopString(stop)),
            None if self.match_ends(token)? => Some(Stop::End),
            None if self.generated() == self.options.max_tokens => Some(Stop::MaxTokens),
            None => None,
        };
        if let Some(stop) = stop {
            self.end(stop);
        }
        Ok(Next::Token(token))
    }

    /// Ends the text. What was held back comes out, unless a stop string ended it.
    pub fn end(&mut self, stop: Stop) {
        if !matches!(stop, Stop::StopString(_)) {
            let rest = self.decoding.finish().map(str::to_owned);
            let (text, _) = rest.map(|rest| self.stops.push(&rest)).unwrap_or_default();
            let held = self.stops.finish();
            self.give(text + &held);
        }
        self.ended = true;
        self.events.push_back(Event::End(Generation {
            tokens: self.history[self.begin..].to_vec(),
            stop,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
            decode_steps: 0,
        }));
    }

    fn give(&mut self, text: String) {
        if !text.is_empty() {
            self.events.push_back(Event::Text(text));
        }
    }

    #[cfg(not(feature = "grammar"))]
    fn sample(&mut self, logits: Logits<'_>) -> Result<u32, Error> {
        let history = if self.options.penalize_prompt { &self.history } else { &self.history[self.begin..] };
        Ok(self.sampler.sample(logits, history))
    }

    #[cfg(not(feature = "grammar"))]
    fn match_ends(&mut self, _: u32) -> Result<bool, Error> {
        Ok(false)
    }

    /// A token that the grammar allows.
    #[cfg(feature = "grammar")]
    fn sample(&mut self, logits: Logits<'_>) -> Result<u32, Error> {
        let history = if self.options.penalize_prompt { &self.history } else { &self.history[self.begin..] };
        let Some(matcher) = &mut self.matcher else { return Ok(self.sampler.sample(logits, history)) };
        self.allowed.clear();
        self.allowed.extend_from_slice(logits.values);
        matcher.exclude(&mut self.allowed)?;
        Ok(self.sampler.sample(&self.allowed[..], history))
    }

    /// Tells the grammar what was chosen; says whether nothing can follow.
    #[cfg(feature = "grammar")]
    fn match_ends(&mut self, token: u32) -> Result<bool, Error> {
        self.matcher.as_mut().map_or(Ok(false), |matcher| matcher.push(token))
    }
}
