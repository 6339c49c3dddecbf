//! One thread that computes many texts together.
//!
//! In each round it computes a part of one prompt, then a step of all texts whose prompts are done: whoever waits for a
//! token waits for one part of a prompt at most. Texts come and go between rounds.

mod prefixes;
mod statistics;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sparse_model::{
    Event, GenerateOptions, Generation, Generator, KvFormat, Model, Next, Overflow, Sequence, SessionOptions,
    Stop, Workspace,
};

use crate::Error;
use prefixes::Prefixes;
pub use statistics::Statistics;

/// How an engine works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Tokens that prompt and text may have together; 0 is 4,096, or what the model was trained for if that is less.
    pub context: usize,
    /// Storage of keys and values.
    pub kv: KvFormat,
    /// Texts that are computed together at most.
    pub parallel: usize,
    /// Texts that may wait.
    pub queue: usize,
    /// Bytes of keys and values that are kept for prompts to come which begin in the same way.
    pub prefix_bytes: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { context: 0, kv: KvFormat::default(), parallel: 32, queue: 64, prefix_bytes: 256 << 20 }
    }
}

/// A text that is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// What to generate and when to stop.
    pub options: GenerateOptions,
}

impl Request {
    /// Asks for a continuation of `tokens`.
    pub fn new(tokens: Vec<u32>, options: GenerateOptions) -> Self {
        Self { tokens, options }
    }
}

/// Who gets a text's events.
pub(crate) type Sink = Box<dyn FnMut(Result<Event, Error>) -> ControlFlow<()> + Send>;

/// Tokens of a prompt that are computed while others wait for their next token.
const PART: usize = 64;

/// A handle on the thread.
#[derive(Debug)]
pub(crate) struct Engine {
    model: Arc<Model>,
    context: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the thread share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when something was added to the state.
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Waiting>,
    /// Texts that are being computed.
    active: usize,
    closed: bool,
    statistics: Statistics,
}

/// A text whose turn has not come.
struct Waiting {
    request: Request,
    sink: Sink,
    since: Instant,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left numbers and a queue, which are whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    pub(crate) fn start(model: Arc<Model>, mut options: EngineOptions) -> Result<Self, Error> {
        let longest = model.config().context;
        if options.context == 0 {
            options.context = longest.min(4096);
        }
        options.parallel = options.parallel.clamp(1, 128);
        let session = SessionOptions::new(options.context).kv(options.kv);
        // What no sequence can have is an error now.
        Sequence::new(&model, session)?;
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            workspace: Workspace::new(&model, options.context),
            model: Arc::clone(&model),
            session,
            parallel: options.parallel,
            shared: Arc::clone(&shared),
            prefixes: Prefixes::new(options.prefix_bytes),
            texts: Vec::new(),
        };
        shared.lock().statistics.queue_limit = options.queue;
        let thread = thread::Builder::new().name("sparse-engine".into()).spawn(move || worker.run());
        let thread = thread.map_err(|e| Error::Other(Box::new(e)))?;
        Ok(Self { model, context: options.context, shared, thread: Some(thread) })
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub(crate) fn context(&self) -> usize {
        self.context
    }

    pub(crate) fn submit(&self, request: Request, sink: Sink) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Error::Stopped);
        }
        if state.queue.len() >= state.statistics.queue_limit {
            state.statistics.refused += 1;
            return Err(Error::Busy { waiting: state.queue.len() });
        }
        state.queue.push_back(Waiting { request, sink, since: Instant::now() });
        self.shared.news.notify_one();
        Ok(())
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let state = self.shared.lock();
        Statistics { waiting: state.queue.len(), active: state.active, ..state.statistics.clone() }
    }

    pub(crate) fn shut_down(&self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_one();
    }
}

impl Drop for Engine {
    /// Ends when the texts that it has are done; sinks that are gone end theirs at the next token.
    fn drop(&mut self) {
        self.shut_down();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Worker {
    model: Arc<Model>,
    workspace: Workspace,
    session: SessionOptions,
    parallel: usize,
    shared: Arc<Shared>,
    prefixes: Prefixes,
    texts: Vec<Text>,
}

/// A text in the making.
struct Text {
    sequence: Sequence,
    generator: Generator,
    sink: Sink,
    since: Instant,
    /// When its prompt began to be computed, and when its first token was chosen.
    begun: Instant,
    first: Option<Instant>,
    /// Tokens of the prompt, and those that were computed for another text.
    prompt: usize,
    known: usize,
    /// Nobody wants more.
    done: bool,
    /// What the sink is told last, when the text is counted and its beginning is kept.
    last: Option<Result<Event, Error>>,
}

impl Worker {
    fn run(mut self) {
        // A panic must not leave anyone waiting: the queue goes with the guard.
        let guard = Closed(Arc::clone(&self.shared));
        while self.admit() {
            self.prompt();
            self.steps();
            self.dismiss();
        }
        drop(guard);
    }

    /// Takes texts from the queue as long as there is room; waits if there is nothing to do. False when all is done.
    fn admit(&mut self) -> bool {
        loop {
            let waiting = {
                let shared = Arc::clone(&self.shared);
                let mut state = shared.lock();
                while self.texts.is_empty() && state.queue.is_empty() {
                    if state.closed {
                        return false;
                    }
                    state = shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                let room = self.texts.len() < self.parallel;
                let waiting = if room { state.queue.pop_front() } else { None };
                state.active = self.texts.len() + usize::from(waiting.is_some());
                waiting
            };
            match waiting {
                Some(waiting) => self.begin(waiting),
                None => return true,
            }
        }
    }

    /// Makes a text of a request.
    fn begin(&mut self, waiting: Waiting) {
        let Waiting { request, mut sink, since } = waiting;
        let Request { tokens, options } = request;
        let made = || -> Result<_, Error> {
            let room = self.session.context.saturating_sub(tokens.len()) + 1;
            let generator = Generator::new(&self.model, options, tokens.clone(), room)?;
            if tokens.is_empty() {
                return Err(sparse_model::Error::NoTokens.into());
            }
            let mut sequence = match self.prefixes.find(&tokens) {
                Some(sequence) => sequence,
                None => Sequence::new(&self.model, self.session)?,
            };
            let known = sequence.position();
            if tokens.len() > self.session.context {
                let (needed, context) = (tokens.len(), self.session.context);
                return Err(sparse_model::Error::ContextFull { needed, context }.into());
            }
            sequence.extend(&tokens[known..])?;
            Ok((generator, sequence, known))
        };
        match made() {
            Ok((generator, sequence, known)) => self.texts.push(Text {
                sequence,
                generator,
                sink,
                since,
                begun: Instant::now(),
                first: None,
                prompt: tokens.len(),
                known,
                done: false,
                last: None,
            }),
            Err(error) => {
                self.shared.lock().statistics.failed += 1;
                // Whoever asked may be gone.
                let _ = sink(Err(error));
            }
        }
    }

    /// Computes a part of the prompt that has waited longest.
    fn prompt(&mut self) {
        let others = self.texts.iter().any(|t| !t.is_prompt());
        let Some(text) = self.texts.iter_mut().find(|t| t.is_prompt() && !t.done) else { return };
        if text.generator.is_cancelled() {
            text.generator.end(Stop::Cancelled);
            return text.pass_on();
        }
        let before = text.sequence.position();
        let most = if others { PART } else { usize::MAX };
        match self.workspace.prefill(&mut text.sequence, most) {
            Ok(None) => {}
            Ok(Some(logits)) => {
                let next = text.generator.choose(logits);
                text.take(next);
            }
            Err(error) => text.fail(error.into()),
        }
        self.shared.lock().statistics.prompt_tokens += (text.sequence.position() - before) as u64;
    }

    /// Computes a step of all texts whose prompts are done.
    fn steps(&mut self) {
        let mut texts: Vec<&mut Text> = self
            .texts
            .iter_mut()
            .filter(|t| !t.is_prompt() && !t.done && t.sequence.waiting() == 1)
            .collect();
        for text in &mut texts {
            if text.generator.is_cancelled() {
                text.generator.end(Stop::Cancelled);
                text.pass_on();
            }
        }
        texts.retain(|t| !t.done);
        if texts.is_empty() {
            return;
        }
        let start = Instant::now();
        let (mut sequences, mut rest): (Vec<_>, Vec<_>) =
            texts.into_iter().map(|t| (&mut t.sequence, (&mut t.generator, None))).unzip();
        let count = sequences.len();
        let result = self.workspace.steps(&mut sequences, |i, _, logits| {
            let (generator, next) = &mut rest[i];
            *next = Some(generator.choose(logits));
            Ok(())
        });
        let nexts: Vec<_> = rest.into_iter().map(|(_, next)| next).collect();
        let texts = self.texts.iter_mut().filter(|t| !t.is_prompt() && !t.done);
        // The steps moved positions on; those that took part wait for nothing.
        let texts = texts.filter(|t| t.sequence.waiting() == 0 || result.is_err());
        for (text, next) in texts.zip(nexts) {
            match (next, &result) {
                (Some(next), _) => text.take(next),
                (None, Err(error)) => text.fail(Error::Computation(error.to_string())),
                (None, Ok(())) => text.fail(Error::Stopped),
            }
        }
        let mut state = self.shared.lock();
        let statistics = &mut state.statistics;
        statistics.steps += 1;
        statistics.step_tokens += count as u64;
        statistics.step_time += start.elapsed();
        statistics.count_neurons(&self.model, &self.workspace);
    }

    /// Lets go of texts that are done, and keeps what later prompts may begin with.
    fn dismiss(&mut self) {
        let (done, kept): (Vec<_>, Vec<_>) = self.texts.drain(..).partition(|text| text.done);
        self.texts = kept;
        let mut ends = Vec::with_capacity(done.len());
        for text in done {
            let mut state = self.shared.lock();
            let statistics = &mut state.statistics;
            statistics.texts += 1;
            statistics.generated_tokens += text.generator.generated() as u64;
            statistics.known_tokens += text.known as u64;
            if let Some(first) = text.first {
                statistics.first_token.observe(first - text.since);
                statistics.queue_time.observe(text.begun - text.since);
            }
            statistics.prompts += text.prompt as u64;
            drop(state);
            self.prefixes.keep(text.sequence);
            ends.extend(text.last.map(|last| (text.sink, last)));
        }
        self.shared.lock().active = self.texts.len();
        for (mut sink, last) in ends {
            // Whoever asked may be gone.
            let _ = sink(last);
        }
    }
}

impl Text {
    /// Whether tokens of the prompt are still to be computed, or those that are left after a shift.
    fn is_prompt(&self) -> bool {
        self.generator.generated() == 0 || self.sequence.waiting() > 1
    }

    /// Appends what was chosen, and tells.
    fn take(&mut self, next: Result<Next, sparse_model::Error>) {
        self.first.get_or_insert_with(Instant::now);
        let appended = next.and_then(|next| match next {
            Next::Token(token) | Next::Last(token) => self.sequence.extend(&[token]),
            _ => Ok(()),
        });
        if let Err(error) = appended {
            return self.fail(error.into());
        }
        if self.sequence.position() == self.sequence.context() && !self.generator.has_ended() {
            match self.generator.options().overflow {
                Overflow::Shift { keep } => self.sequence.shift(keep),
                _ => self.generator.end(Stop::ContextFull),
            }
        }
        self.pass_on();
    }

    /// Passes events on.
    fn pass_on(&mut self) {
        while let Some(event) = self.generator.next_event() {
            if let Event::End(generation) = event {
                self.last = Some(Ok(Event::End(self.timed(generation))));
            } else if (self.sink)(Ok(event)).is_break() {
                self.done = true;
                return;
            }
        }
        self.done = self.generator.has_ended();
    }

    fn fail(&mut self, error: Error) {
        self.last = Some(Err(error));
        self.done = true;
    }

    /// The times of a text that is done: that of its prompt, then that of its other tokens, those of others included.
    fn timed(&self, mut generation: Generation) -> Generation {
        let first = self.first.unwrap_or_else(Instant::now);
        generation.prompt_time = first - self.begun;
        generation.decode_time = first.elapsed();
        generation.decode_steps = generation.tokens.len().saturating_sub(1);
        generation
    }
}

/// Closes the queue when the thread ends, for whatever reason.
struct Closed(Arc<Shared>);

impl Drop for Closed {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        for mut waiting in queue {
            let _ = (waiting.sink)(Err(Error::Stopped));
        }
    }
}

/// A duration's place in a histogram, see [`Statistics`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Histogram {
    /// How many were at most as long as each of [`BOUNDS`](Self::BOUNDS).
    pub counts: [u64; Self::BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// All of them added up.
    pub sum: Duration,
}

impl Histogram {
    /// Bounds in seconds.
    pub const BOUNDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

    fn observe(&mut self, time: Duration) {
        self.count += 1;
        self.sum += time;
        let counts = self.counts.iter_mut().zip(Self::BOUNDS);
        counts.filter(|(_, bound)| time.as_secs_f64() <= *bound).for_each(|(count, _)| *count += 1);
    }
}
