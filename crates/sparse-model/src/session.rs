//! A sequence of tokens in the making, and what can be asked of it.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use sparse_core::{Activations, BatchMode, FfnCounts, Screen, ScreenScratch, Wanted};
use web_time::Instant;

use crate::decoder::{self, Watch};
use crate::kv_cache::KvFormat;
use crate::short_conv::ConvState;
use crate::state::{LayerState, State};
use crate::{Error, Logits, Model, Sampler};

/// Tokens computed at a time: enough to read each weight once for many tokens, few enough for small buffers.
const MAX_BATCH: usize = 256;
/// Tokens whose logits are computed at a time when all are asked for.
const MAX_LOGITS: usize = 16;

/// Where time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartTimes {
    /// Attention, with its norm and projections.
    pub attention: Duration,
    /// Feed-forward layers, with their norm.
    pub feed_forward: Duration,
    /// The output head, with its norm.
    pub head: Duration,
}

/// What the screened head did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScreenCounts {
    /// Tokens.
    pub tokens: u64,
    /// Tokens for which the whole head was computed, because the screen could not tell.
    pub fallbacks: u64,
    /// Rows whose exact logits were computed, added over the other tokens.
    pub rows: u64,
    /// Bytes of screen and head that were read.
    pub bytes: u64,
}

impl ScreenCounts {
    /// One token for which `screen` listed so many rows of `model`'s head, or could not tell.
    pub fn of(model: &Model, screen: &Screen, listed: Option<usize>) -> Self {
        let head = model.head();
        let exact = listed.map_or(head.bytes(), |rows| rows * head.row_bytes());
        Self {
            tokens: 1,
            fallbacks: u64::from(listed.is_none()),
            rows: listed.unwrap_or(0) as u64,
            bytes: (screen.bytes() + exact) as u64,
        }
    }
}

impl AddAssign for ScreenCounts {
    fn add_assign(&mut self, o: Self) {
        self.tokens += o.tokens;
        self.fallbacks += o.fallbacks;
        self.rows += o.rows;
        self.bytes += o.bytes;
    }
}

/// How a session stores its sequence.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Room, in tokens.
    pub context: usize,
    /// Storage of keys and values.
    pub kv: KvFormat,
}

impl SessionOptions {
    /// Room for `context` tokens, keys and values in half precision.
    pub fn new(context: usize) -> Self {
        Self { context, kv: KvFormat::default() }
    }

    /// The same with another storage of keys and values.
    #[must_use]
    pub fn kv(self, kv: KvFormat) -> Self {
        Self { kv, ..self }
    }
}

/// One sequence of tokens in the making: what its layers remember, and the buffers that computing needs.
///
/// All memory is allocated here; [`forward`](Self::forward) allocates nothing.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    state: State,
    /// The whole sequence: those that the layers have seen, then those that wait.
    tokens: Vec<u32>,
    snapshots: Vec<Snapshot>,
    screen_scratch: Option<ScreenScratch>,
    screen_counts: ScreenCounts,
    logits: Vec<f32>,
}

/// What [`Session::truncate`] needs to return to a position.
#[derive(Debug)]
struct Snapshot {
    position: usize,
    /// The state of every layer that keeps no history, in order.
    states: Vec<ConvState>,
}

impl Session {
    /// A session with room for `context` tokens.
    ///
    /// # Errors
    /// If `context` is zero or longer than the model was trained for.
    pub fn new(model: &Arc<Model>, context: usize) -> Result<Self, Error> {
        Self::with_options(model, SessionOptions::new(context))
    }

    /// A session with these options.
    ///
    /// # Errors
    /// If the context is zero, longer than the model was trained for, or too long for the memory that there is.
    pub fn with_options(model: &Arc<Model>, options: SessionOptions) -> Result<Self, Error> {
        let SessionOptions { context, kv } = options;
        let longest = model.config().context;
        if context == 0 || context > longest {
            return Err(Error::ContextFull { needed: context, context: longest });
        }
        let batch = MAX_BATCH.min(context);
        Ok(Self {
            state: State::new(model, context, batch, kv)?,
            // One more than fits may wait.
            tokens: Vec::with_capacity(context + 1),
            snapshots: Vec::new(),
            screen_scratch: model.screen().map(ScreenScratch::new),
            screen_counts: ScreenCounts::default(),
            logits: vec![0.0; MAX_LOGITS.min(batch) * model.vocab_len()],
            model: Arc::clone(model),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens computed so far; the position of the next one.
    pub fn position(&self) -> usize {
        self.state.position
    }

    /// The whole sequence: the tokens computed so far, then those that were [pushed](Self::push).
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that fit, in all.
    pub fn context(&self) -> usize {
        self.state.context
    }

    /// How keys and values of the layers are stored now: of the widest, since a layer with values
    /// beyond half precision goes on in single precision.
    pub fn kv_format(&self) -> KvFormat {
        let mut formats = self.state.layers.iter().filter_map(|layer| match layer {
            LayerState::Kv(cache) => Some(cache.format()),
            LayerState::Conv(_) => None,
        });
        if formats.any(|f| f == KvFormat::F32) { KvFormat::F32 } else { KvFormat::F16 }
    }

    /// Appends a token without computing it: the next call computes it together with its own.
    ///
    /// One more token than the context holds may wait; computing it is an error then.
    ///
    /// # Errors
    /// If the id is outside the vocabulary, or as many tokens wait.
    pub fn push(&mut self, token: u32) -> Result<(), Error> {
        self.check_ids(&[token])?;
        if self.tokens.len() > self.context() {
            return Err(Error::ContextFull { needed: self.tokens.len() + 1, context: self.context() });
        }
        self.tokens.push(token);
        Ok(())
    }

    /// Keeps what [`truncate`](Self::truncate) needs to return to the current position. Only models
    /// whose layers do not keep all tokens need that, such as LFM2.
    pub fn snapshot(&mut self) {
        let position = self.state.position;
        let states: Vec<_> = self.state.convs().map(|s| s.clone()).collect();
        if !states.is_empty() && self.snapshots.last().is_none_or(|s| s.position < position) {
            self.snapshots.push(Snapshot { position, states });
        }
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.snapshots.clear();
        self.state.clear();
    }

    /// Forgets all tokens from `position` on.
    ///
    /// Layers that do not keep all tokens can go back to the beginning, by one token, or to a
    /// [snapshot](Self::snapshot).
    ///
    /// # Errors
    /// [`Error::CannotRewind`] if a layer cannot go back there; then nothing changes.
    pub fn truncate(&mut self, position: usize) -> Result<(), Error> {
        if position < self.state.position {
            self.rewind(position)?;
            self.snapshots.retain(|s| s.position <= position);
            self.state.position = position;
        }
        self.tokens.truncate(position);
        Ok(())
    }

    /// Takes the states that are not addressed by position back to `position`.
    fn rewind(&mut self, position: usize) -> Result<(), Error> {
        let at = self.state.position;
        let mut states: Vec<_> = self.state.convs().collect();
        if position == 0 {
            states.iter_mut().for_each(|s| s.clear());
        } else if let Some(snapshot) = self.snapshots.iter().find(|s| s.position == position) {
            states.iter_mut().zip(&snapshot.states).for_each(|(s, kept)| s.clone_from(kept));
        } else if position + 1 == at && states.iter().all(|s| s.rewinds()) {
            states.iter_mut().for_each(|s| s.rewind());
        } else if !states.is_empty() {
            return Err(Error::CannotRewind { at, to: position });
        }
        Ok(())
    }

    /// What batches of several tokens do in the feed-forward layers.
    pub fn set_batch_mode(&mut self, mode: BatchMode) {
        self.state.batch_mode = mode;
    }

    /// What the feed-forward layer of each model layer has computed for tokens that had an active set of their own: those
    /// of single-token calls, and all in [`BatchMode::Masked`].
    pub fn ffn_counts(&self) -> &[FfnCounts] {
        &self.state.ffn_counts
    }

    /// What single-token calls of [`candidates`](Self::candidates) took of the head, if the model has a screen.
    pub fn screen_counts(&self) -> ScreenCounts {
        self.screen_counts
    }

    /// Where the time of single-token calls went.
    pub fn times(&self) -> PartTimes {
        self.state.times
    }

    /// Weight bytes that decoding a token read, on the average of single-token calls; all of them before the first.
    pub fn bytes_per_token(&self) -> usize {
        let all = self.model.bytes_per_token();
        let parts = self.model.ffns().zip(&self.state.ffn_counts).filter(|(_, c)| c.tokens > 0);
        let all = parts.fold(all, |all, (ffn, c)| all - ffn.bytes() + (c.bytes / c.tokens) as usize);
        match self.screen_counts {
            ScreenCounts { tokens: 0, .. } => all,
            c => all - self.model.head().bytes() + (c.bytes / c.tokens) as usize,
        }
    }

    /// Appends `tokens` to the sequence and returns the logits after the last of them (one per vocabulary
    /// entry). Several tokens at once are much faster than one by one. Without any, the logits after the sequence
    /// as it is.
    ///
    /// # Errors
    /// If the sequence stays empty, `tokens` holds an id outside the vocabulary, or does not fit the context; then
    /// nothing is appended. Also if the logits are not finite, which damaged weights lead to.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        let (last, single) = self.advance(tokens)?;
        let start = Instant::now();
        let logits = &mut self.logits[..self.model.vocab_len()];
        decoder::head(&self.model, &mut self.state, last..last + 1, logits);
        if single {
            self.state.times.head += start.elapsed();
        }
        finite(logits, self.state.position - 1)?;
        Ok(logits)
    }

    /// Like [`forward`](Self::forward), but only the logits that `sampler` may choose from after `history`, if the model has a
    /// [screen](Model::set_screen) and it can tell; they are the same numbers.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn candidates(
        &mut self,
        tokens: &[u32],
        sampler: &Sampler,
        history: &[u32],
    ) -> Result<Logits<'_>, Error> {
        let model = Arc::clone(&self.model);
        let screen = model.screen().filter(|_| model.can_screen());
        let (Some(screen), Some(reach)) = (screen, sampler.reach()) else {
            return Ok(self.forward(tokens)?.into());
        };
        let (last, single) = self.advance(tokens)?;
        let start = Instant::now();
        decoder::head_input(&model, &mut self.state, last..last + 1);
        let input = &self.state.normed;
        let scratch = self.screen_scratch.as_mut().expect("made for a model with a screen");
        let penalty = sampler.penalty(history);
        let wanted = Wanted { reach, cap: model.config().logit_softcap, adjust: &penalty };
        let list = screen.shortlist(model.compute(), model.head(), input, &wanted, scratch);
        let logits = match list {
            Some(list) => Logits { ids: Some(list.ids), values: list.logits, outside: list.outside },
            None => {
                let logits = &mut self.logits[..model.vocab_len()];
                decoder::logits(&model, input, logits);
                Logits::from(&*logits)
            }
        };
        if single {
            self.state.times.head += start.elapsed();
            self.screen_counts += ScreenCounts::of(&model, screen, logits.ids.map(<[u32]>::len));
        }
        finite(logits.values, self.state.position - 1)?;
        Ok(logits)
    }

    /// Like [`forward`](Self::forward), calling `each(index, logits)` for every token of `tokens`.
    pub fn forward_each(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        self.settle(tokens)?;
        let (model, vocab) = (Arc::clone(&self.model), self.model.vocab_len());
        for (b, batch) in tokens.chunks(MAX_BATCH).enumerate() {
            self.append(batch, &mut |_, _| {});
            for start in (0..batch.len()).step_by(MAX_LOGITS) {
                let part = start..(start + MAX_LOGITS).min(batch.len());
                let logits = &mut self.logits[..part.len() * vocab];
                decoder::head(&model, &mut self.state, part.clone(), logits);
                for (logits, t) in logits.chunks(vocab).zip(part) {
                    finite(logits, self.state.position - batch.len() + t)?;
                    each(b * MAX_BATCH + t, logits);
                }
            }
        }
        Ok(())
    }

    /// Appends `tokens` to the sequence and calls `watch(layer, x)` with what each layer's feed-forward part is given, a
    /// vector per token, in batches. For calibration.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), but for the logits, which are not computed.
    pub fn watch_ffn_inputs(
        &mut self,
        tokens: &[u32],
        mut watch: impl FnMut(usize, &Activations),
    ) -> Result<(), Error> {
        self.settle(tokens)?;
        tokens.chunks(MAX_BATCH).for_each(|batch| self.append(batch, &mut watch));
        Ok(())
    }

    /// Appends `tokens` to the sequence and calls `watch(x)` with what the head is given: the last layer's output, normalized,
    /// a vector per token, in batches. For calibration.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), but for the logits, which are not computed.
    pub fn watch_head_inputs(
        &mut self,
        tokens: &[u32],
        mut watch: impl FnMut(&Activations),
    ) -> Result<(), Error> {
        self.settle(tokens)?;
        let model = Arc::clone(&self.model);
        for batch in tokens.chunks(MAX_BATCH) {
            self.append(batch, &mut |_, _| {});
            decoder::head_input(&model, &mut self.state, 0..batch.len());
            watch(&self.state.normed);
        }
        Ok(())
    }

    /// Appends `tokens` and computes all that wait, at least one. Returns where in `residual` the last of them is, and
    /// whether it was alone.
    fn advance(&mut self, tokens: &[u32]) -> Result<(usize, bool), Error> {
        self.check(tokens)?;
        if tokens.is_empty() && self.tokens.len() == self.state.position {
            // The logits of the last token are not kept: it is computed again.
            let position = self.state.position.checked_sub(1).ok_or(Error::NoTokens)?;
            self.rewind(position)?;
            self.state.position = position;
        }
        self.tokens.extend_from_slice(tokens);
        let waiting = self.tokens.len() - self.state.position;
        self.compute(&mut |_, _| {});
        Ok(((waiting - 1) % MAX_BATCH, waiting == 1))
    }

    /// Checks `tokens`, and computes those that wait.
    fn settle(&mut self, tokens: &[u32]) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        self.check(tokens)?;
        self.compute(&mut |_, _| {});
        Ok(())
    }

    /// Appends a batch and computes it.
    fn append(&mut self, batch: &[u32], watch: &mut Watch<'_>) {
        self.tokens.extend_from_slice(batch);
        self.compute(watch);
    }

    /// Computes the tokens that wait.
    fn compute(&mut self, watch: &mut Watch<'_>) {
        for batch in self.tokens[self.state.position..].chunks(MAX_BATCH) {
            decoder::transform(&self.model, &mut self.state, batch, watch);
        }
    }

    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        self.check_ids(tokens)?;
        let needed = self.tokens.len() + tokens.len();
        if needed > self.context() {
            return Err(Error::ContextFull { needed, context: self.context() });
        }
        Ok(())
    }

    fn check_ids(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocab = self.model.vocab_len();
        match tokens.iter().find(|id| **id as usize >= vocab) {
            Some(&id) => Err(Error::TokenId { id, vocab }),
            None => Ok(()),
        }
    }
}

/// NaN or infinity among the logits is an error. Looks at all of them, so that the loop vectorizes.
fn finite(logits: &[f32], position: usize) -> Result<(), Error> {
    const EXPONENT: u32 = 0x7f80_0000;
    match logits.iter().fold(false, |bad, l| bad | (l.to_bits() & EXPONENT == EXPONENT)) {
        false => Ok(()),
        true => Err(Error::NotFinite { position }),
    }
}
