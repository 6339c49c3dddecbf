//! A sequence of tokens in the making, and what can be asked of it.

use std::ops::AddAssign;
use std::sync::Arc;

use sparse_core::{Activations, BatchMode, FfnCounts, LazyScreen, Screen, ScreenScratch, Wanted};
use web_time::Instant;

use crate::decoder::{self, Watch};
use crate::workspace::{MAX_BATCH, MAX_LOGITS, PartTimes, Workspace, finite};
use crate::{Error, KvFormat, Logits, Model, Sampler, Sequence, SessionOptions};

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

/// One sequence of tokens in the making, with the buffers that computing it takes.
///
/// Those are allocated here; [`forward`](Self::forward) allocates nothing but room for keys and values, in blocks of some
/// tokens.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    sequence: Sequence,
    workspace: Workspace,
    screening: Option<Screening>,
    screen_counts: ScreenCounts,
}

/// A session's part of screening.
#[derive(Debug)]
struct Screening {
    scratch: ScreenScratch,
    /// Parts of the screen that are there for the next token.
    parts: usize,
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
    /// As [`Sequence::new`].
    pub fn with_options(model: &Arc<Model>, options: SessionOptions) -> Result<Self, Error> {
        Ok(Self {
            sequence: Sequence::new(model, options)?,
            workspace: Workspace::new(model, options.context),
            screening: model
                .screen
                .as_ref()
                .map(|screen| Screening { scratch: screen.scratch(), parts: screen.parts() }),
            screen_counts: ScreenCounts::default(),
            model: Arc::clone(model),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The sequence.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The sequence, to be changed: cut, forked, or read from a file. It must stay one of this session's model, and no
    /// longer than its context.
    pub fn sequence_mut(&mut self) -> &mut Sequence {
        &mut self.sequence
    }

    /// Tokens computed so far; the position of the next one.
    pub fn position(&self) -> usize {
        self.sequence.position()
    }

    /// The whole sequence: the tokens computed so far, then those that were [pushed](Self::push).
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }

    /// Tokens that fit, in all.
    pub fn context(&self) -> usize {
        self.sequence.context()
    }

    /// How keys and values of the layers are stored now, see [`Sequence::kv_format`].
    pub fn kv_format(&self) -> KvFormat {
        self.sequence.kv_format()
    }

    /// Appends a token without computing it: the next call computes it together with its own.
    ///
    /// # Errors
    /// As [`Sequence::extend`].
    pub fn push(&mut self, token: u32) -> Result<(), Error> {
        self.sequence.extend(&[token])
    }

    /// See [`Sequence::snapshot`].
    pub fn snapshot(&mut self) {
        self.sequence.snapshot();
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.sequence.clear();
    }

    /// Forgets all tokens from `position` on.
    ///
    /// # Errors
    /// As [`Sequence::truncate`].
    pub fn truncate(&mut self, position: usize) -> Result<(), Error> {
        self.sequence.truncate(position)
    }

    /// What batches of several tokens do in the feed-forward layers.
    pub fn set_batch_mode(&mut self, mode: BatchMode) {
        self.workspace.batch_mode = mode;
    }

    /// What the feed-forward layer of each model layer has computed for tokens that had an active set of their own: those
    /// of single-token calls, and all in [`BatchMode::Masked`].
    pub fn ffn_counts(&self) -> &[FfnCounts] {
        self.workspace.ffn_counts()
    }

    /// Keeps what neurons give in single-token calls from now on, or no longer; see [`neurons`](Self::neurons). Layers
    /// of experts keep none.
    pub fn keep_neurons(&mut self, keep: bool) {
        let room = || {
            let networks = self.model.feed_forwards().map(|ffn| ffn.selector());
            networks.map(|ffn| vec![0.0; ffn.map_or(0, |(neurons, _)| neurons)]).collect()
        };
        self.workspace.neurons = keep.then(room);
    }

    /// What each layer's `down` multiplied in the last single-token call, a value per neuron: 0 where it was left out or did
    /// not fire. Empty unless it is [kept](Self::keep_neurons).
    pub fn neurons(&self) -> &[Vec<f32>] {
        self.workspace.neurons.as_deref().unwrap_or_default()
    }

    /// What single-token calls of [`candidates`](Self::candidates) took of the head, if the model has a screen.
    pub fn screen_counts(&self) -> ScreenCounts {
        self.screen_counts
    }

    /// Where the time of single-token calls went.
    pub fn times(&self) -> PartTimes {
        self.workspace.times
    }

    /// Weight bytes that decoding a token read, on the average of single-token calls; all of them before the first.
    pub fn bytes_per_token(&self) -> usize {
        let all = self.model.bytes_per_token();
        let parts = self.model.feed_forwards().zip(self.workspace.ffn_counts()).filter(|(_, c)| c.tokens > 0);
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
        let vocab = self.model.vocab_len();
        let mut logits = std::mem::take(&mut self.workspace.logits);
        let range = last..last + 1;
        decoder::head(&self.model, self.model.compute(), &mut self.workspace, range, &mut logits[..vocab]);
        self.workspace.logits = logits;
        if single {
            self.workspace.times.head += start.elapsed();
        }
        let logits = &self.workspace.logits[..vocab];
        finite(logits, self.sequence.position() - 1)?;
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
        let (Some(screen), Some(reach)) = (self.screen(&model), sampler.reach()) else {
            return Ok(self.forward(tokens)?.into());
        };
        let (last, single) = self.advance(tokens)?;
        let start = Instant::now();
        decoder::head_input(&model, &mut self.workspace, last..last + 1);
        let Workspace { normed: input, logits, times, .. } = &mut self.workspace;
        let scratch = &mut self.screening.as_mut().expect("made for a model with a screen").scratch;
        let penalty = sampler.penalty(history);
        let wanted = Wanted { reach, cap: model.config().logit_softcap, adjust: &penalty };
        let list = screen.shortlist(model.compute(), model.head(), input, &wanted, scratch);
        let logits = match list {
            Some(list) => Logits { ids: Some(list.ids), values: list.logits, outside: list.outside },
            None => {
                let logits = &mut logits[..model.vocab_len()];
                decoder::logits(&model, model.compute(), input, logits);
                Logits::from(&*logits)
            }
        };
        if single {
            times.head += start.elapsed();
            self.screen_counts += ScreenCounts::of(&model, screen, logits.ids.map(<[u32]>::len));
        }
        finite(logits.values, self.sequence.position() - 1)?;
        Ok(logits)
    }

    /// The screen of `model`, which is this session's; while it is made, a part of it is added.
    fn screen<'m>(&mut self, model: &'m Model) -> Option<&'m Screen> {
        let screen = model.screen.as_ref().filter(|_| model.can_screen())?;
        let parts = &mut self.screening.as_mut()?.parts;
        let made = screen.make(model.compute(), model.head(), *parts);
        *parts = LazyScreen::PARTS.min(*parts + 1);
        made
    }

    /// Like [`forward`](Self::forward), calling `each(index, logits)` for every token of `tokens`.
    pub fn forward_each(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        self.settle(tokens)?;
        let (model, vocab) = (Arc::clone(&self.model), self.model.vocab_len());
        let mut logits = std::mem::take(&mut self.workspace.logits);
        let mut result = Ok(());
        for (b, batch) in tokens.chunks(MAX_BATCH).enumerate() {
            result = result.and_then(|()| self.append(batch, &mut |_, _| {}));
            for start in (0..batch.len()).step_by(MAX_LOGITS) {
                if result.is_err() {
                    break;
                }
                let part = start..(start + MAX_LOGITS).min(batch.len());
                let logits = &mut logits[..part.len() * vocab];
                decoder::head(&model, model.compute(), &mut self.workspace, part.clone(), logits);
                for (logits, t) in logits.chunks(vocab).zip(part) {
                    result = result.and_then(|()| finite(logits, self.position() - batch.len() + t));
                    if result.is_ok() {
                        each(b * MAX_BATCH + t, logits);
                    }
                }
            }
        }
        self.workspace.logits = logits;
        result
    }

    /// Whether [`verify`](Self::verify) is of use: what turns out wrong can be taken back, and no screen makes single
    /// tokens cheaper.
    pub(crate) fn can_verify(&self) -> bool {
        self.sequence.rewinds() && self.screening.is_none()
    }

    /// Appends `tokens`, computes them and all that wait as [steps](Workspace::steps), and calls `each(index, logits)` with
    /// the logits after the last of those that waited, then after each of `tokens`. They are the same bits as from single
    /// calls, in about the time of one, if there are few.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and as `each`; nothing may wait but one token.
    pub(crate) fn verify(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.sequence.check(tokens)?;
        self.sequence.extend(tokens)?;
        self.workspace.steps(&mut [&mut self.sequence], |_, i, logits| each(i, logits))
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
        tokens.chunks(MAX_BATCH).try_for_each(|batch| self.append(batch, &mut watch))
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
            self.append(batch, &mut |_, _| {})?;
            decoder::head_input(&model, &mut self.workspace, 0..batch.len());
            watch(&self.workspace.normed);
        }
        Ok(())
    }

    /// Appends `tokens` and computes all that wait, at least one. Returns where in `residual` the last of them is, and
    /// whether it was alone.
    fn advance(&mut self, tokens: &[u32]) -> Result<(usize, bool), Error> {
        self.sequence.check(tokens)?;
        if tokens.is_empty() && self.sequence.waiting() == 0 {
            // The logits of the last token are not kept: it is computed again.
            self.sequence.step_back()?;
        }
        self.sequence.extend(tokens)?;
        let single = self.sequence.waiting() == 1;
        let last = self.compute(&mut |_, _| {})?;
        Ok((last - 1, single))
    }

    /// Checks `tokens`, and computes those that wait.
    fn settle(&mut self, tokens: &[u32]) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        self.sequence.check(tokens)?;
        self.compute(&mut |_, _| {})?;
        Ok(())
    }

    /// Appends a batch and computes it.
    fn append(&mut self, batch: &[u32], watch: &mut Watch<'_>) -> Result<(), Error> {
        self.sequence.extend(batch)?;
        self.compute(watch)?;
        Ok(())
    }

    /// Computes the tokens that wait; returns how many there were in the last batch.
    fn compute(&mut self, watch: &mut Watch<'_>) -> Result<usize, Error> {
        let mut last = 0;
        while self.sequence.waiting() > 0 {
            last = self.workspace.advance(&mut self.sequence, MAX_BATCH, watch)?;
        }
        Ok(last)
    }
}
