//! Text generation: prompt in, events out.
//!
//! A [`Generator`] decides what the next token is, what text that makes, and when to stop. It is fed with logits, by
//! [`Session::generate`] here, or by whoever computes several sequences together.

mod generator;
mod logprobs;
mod lookup;
mod options;
mod stops;

use std::borrow::BorrowMut;
use std::ops::ControlFlow;
use std::time::Duration;

use web_time::Instant;

pub use generator::{Generator, Next};
pub use logprobs::TokenLogprobs;
pub use options::{GenerateOptions, Overflow};

use lookup::Lookup;

use crate::{Error, Session};

/// What happens while text is generated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A token was chosen. One that ends the text is reported by [`End`](Self::End) alone.
    Token(Token),
    /// Text that is whole characters, and cannot be the beginning of a stop string.
    Text(String),
    /// The last event.
    End(Generation),
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// How probable it and others were, if that was [asked for](GenerateOptions::logprobs).
    pub logprobs: Option<TokenLogprobs>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The model chose an end-of-generation token, or the grammar allows nothing more.
    End,
    /// The model chose one of the [stop tokens](GenerateOptions::stop_tokens).
    StopToken(u32),
    /// The text reached a [stop string](GenerateOptions::stop): the one with this index.
    StopString(usize),
    /// As many tokens as asked for.
    MaxTokens,
    /// The session's context is full.
    ContextFull,
    /// The caller asked to stop.
    Cancelled,
}

/// What was generated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Generation {
    /// The generated tokens; a token that ends the text is not among them, though it is part of the session's
    /// sequence. Those that a stop string is made of are.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// Time spent on the prompt.
    pub prompt_time: Duration,
    /// Time spent on the tokens after the first (which the prompt's logits decide).
    pub decode_time: Duration,
    /// Tokens that were decided in `decode_time`.
    pub decode_steps: usize,
}

/// Text in the making: an iterator over [`Event`]s, which computes when it is asked for the next one.
///
/// Made by [`Session::generate`] and [`Session::into_generate`]. Whoever drops it stops the generation; the tokens that it
/// gave out are then part of the session's sequence.
#[derive(Debug)]
pub struct Generate<S> {
    session: S,
    state: State,
    lookup: Option<Lookup>,
}

#[derive(Debug)]
enum State {
    /// The prompt is still to be computed.
    Prompt(Box<Generator>, Vec<u32>),
    Decode(Box<Generator>, Times),
    /// Could not begin.
    Failed(Option<Error>),
}

/// Where time went.
#[derive(Clone, Copy, Debug)]
struct Times {
    prompt: Duration,
    start: Instant,
    steps: usize,
}

impl Times {
    fn begin() -> Self {
        Self { prompt: Duration::ZERO, start: Instant::now(), steps: 0 }
    }
}

impl Session {
    /// Appends `prompt` to the sequence and continues it, event by event.
    ///
    /// ```no_run
    /// # use sparse_model::{Error, Event, GenerateOptions, Session};
    /// # fn write(session: &mut Session, prompt: &[u32]) -> Result<(), Error> {
    /// for event in session.generate(prompt, &GenerateOptions::new(100)) {
    ///     if let Event::Text(piece) = event? {
    ///         print!("{piece}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// All chosen tokens are part of the session's sequence afterwards, one that ends the text too. So calls one
    /// after the other give the same tokens as one call with the text of all of them, and an empty `prompt` goes on
    /// where the last call stopped. Penalties look back over the whole sequence.
    ///
    /// # Errors
    /// The iterator gives an error and ends if the [options](GenerateOptions::check) make no sense, or for the
    /// reasons of [`Session::forward`]; an empty `prompt` at the start of a session is [`Error::NoTokens`].
    pub fn generate(&mut self, prompt: &[u32], options: &GenerateOptions) -> Generate<&mut Self> {
        Generate::new(self, prompt, options)
    }

    /// Like [`generate`](Self::generate), for whoever keeps the iterator: it owns the session, and
    /// [gives it back](Generate::into_session).
    pub fn into_generate(self, prompt: &[u32], options: &GenerateOptions) -> Generate<Self> {
        Generate::new(self, prompt, options)
    }
}

impl<S: BorrowMut<Session>> Generate<S> {
    fn new(session: S, prompt: &[u32], options: &GenerateOptions) -> Self {
        let s = session.borrow();
        let history = [s.tokens(), prompt].concat();
        let room = s.context().saturating_sub(history.len()) + 1;
        let state = match Generator::new(s.model(), options.clone(), history, room) {
            Ok(generator) => State::Prompt(Box::new(generator), prompt.to_vec()),
            Err(error) => State::Failed(Some(error)),
        };
        let lookup = (options.lookup && s.can_verify()).then(Lookup::new);
        Self { session, state, lookup }
    }

    /// The session, to look at between events.
    pub fn session(&self) -> &Session {
        self.session.borrow()
    }

    /// The session, to go on with.
    pub fn into_session(self) -> S {
        self.session
    }
}

impl<S: BorrowMut<Session>> Iterator for Generate<S> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match &mut self.state {
                State::Failed(error) => return error.take().map(Err),
                State::Decode(generator, times) => {
                    if let Some(event) = generator.next_event() {
                        return Some(Ok(times.complete(event)));
                    }
                    if generator.has_ended() {
                        return None;
                    }
                }
                State::Prompt(..) => {}
            }
            if let Err(error) = self.step() {
                self.state = State::Failed(None);
                return Some(Err(error));
            }
        }
    }
}

impl<S: BorrowMut<Session>> Generate<S> {
    /// Computes once, and chooses what follows.
    fn step(&mut self) -> Result<(), Error> {
        let (mut generator, mut times, prompt) = match std::mem::replace(&mut self.state, State::Failed(None))
        {
            State::Prompt(generator, prompt) => (generator, Times::begin(), Some(prompt)),
            State::Decode(generator, times) => (generator, times, None),
            State::Failed(_) => return Ok(()),
        };
        if generator.has_ended() {
            // Cancelled before it began.
        } else if generator.is_cancelled() {
            generator.end(Stop::Cancelled);
        } else if let Some(prompt) = prompt {
            let logits = generator.logits(self.session.borrow_mut(), &prompt)?;
            times.prompt = times.start.elapsed();
            times.start = Instant::now();
            let next = generator.choose(logits)?;
            self.append(&mut generator, next)?;
        } else {
            times.steps += self.decode(&mut generator)?;
        }
        self.state = State::Decode(generator, times);
        Ok(())
    }

    /// Computes the token that waits, and as many as are likely to follow. Returns the number of tokens chosen.
    fn decode(&mut self, generator: &mut Generator) -> Result<usize, Error> {
        let (start, session) = (Instant::now(), self.session.borrow_mut());
        let most = session.context() - session.position() - 1;
        let draft = match &self.lookup {
            Some(lookup) if session.sequence().waiting() == 1 => {
                lookup.draft(generator.history(), most).to_vec()
            }
            _ => Vec::new(),
        };
        if draft.is_empty() {
            let single = session.sequence().waiting() == 1;
            let logits = generator.logits(session, &[])?;
            if let Some(lookup) = self.lookup.as_mut().filter(|_| single) {
                lookup.single(start.elapsed());
            }
            let next = generator.choose(logits)?;
            self.append(generator, next)?;
            return Ok(1);
        }
        let position = session.position();
        let (mut accepted, mut last) = (0, None);
        session.verify(&draft, |i, logits| {
            // What follows a token that was not chosen means nothing.
            if last.is_none() {
                let next = generator.choose(logits)?;
                match next {
                    Next::Token(token) if draft.get(i) == Some(&token) && !generator.has_ended() => {
                        accepted += 1
                    }
                    next => last = Some(next),
                }
            }
            Ok(())
        })?;
        session.truncate(position + 1 + accepted)?;
        if let Some(lookup) = &mut self.lookup {
            lookup.several(draft.len(), accepted, start.elapsed());
        }
        self.append(generator, last.unwrap_or(Next::Nothing))?;
        Ok(accepted + 1)
    }

    /// Appends what was chosen.
    fn append(&mut self, generator: &mut Generator, next: Next) -> Result<(), Error> {
        let session = self.session.borrow_mut();
        match next {
            Next::Token(token) => {
                session.push(token)?;
                if session.position() == session.context() && !generator.has_ended() {
                    overflow(session, generator);
                }
            }
            Next::Last(token) => session.push(token)?,
            Next::Nothing => {}
        }
        Ok(())
    }
}

/// The context is full, and the last token waits.
fn overflow(session: &mut Session, generator: &mut Generator) {
    match generator.options().overflow {
        Overflow::Stop => generator.end(Stop::ContextFull),
        Overflow::Shift { keep } => session.sequence_mut().shift(keep),
    }
}

impl Times {
    /// Fills in the times of the last event.
    fn complete(&self, event: Event) -> Event {
        match event {
            Event::End(generation) => Event::End(Generation {
                prompt_time: self.prompt,
                decode_time: self.start.elapsed(),
                decode_steps: self.steps,
                ..generation
            }),
            other => other,
        }
    }
}

/// [`Session::generate`] with a callback: `on_text` gets every piece of text as soon as it is whole characters, and may
/// [stop](Stop::Cancelled) the generation.
///
/// # Errors
/// As [`Session::generate`].
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, Error> {
    let mut events = session.generate(prompt, options);
    loop {
        match events.next().transpose()? {
            Some(Event::Text(piece)) if on_text(&piece).is_break() => events.cancel(),
            Some(Event::End(generation)) => return Ok(generation),
            Some(_) => {}
            None => unreachable!("the last event is the end"),
        }
    }
}

impl<S> Generate<S> {
    /// Ends the generation, unless it has ended already: the end is the next event.
    pub fn cancel(&mut self) {
        if let State::Prompt(generator, _) | State::Decode(generator, _) = &mut self.state
            && !generator.has_ended()
        {
            generator.end(Stop::Cancelled);
        }
    }
}
