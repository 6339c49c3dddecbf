//! The forward pass of the llama architecture, from token ids to logits.
//!
//! Read [`Session::forward`], then `layer`, `attention` and `feed_forward`: this is the whole computation.

use std::ops::{AddAssign, Range};
use std::sync::Arc;
use std::time::Duration;

use sparse_core::{Activations, BatchMode, FfnCounts, FfnScratch, Screen, ScreenScratch};
use sparse_simd::MatMut;
use web_time::Instant;

use crate::attention::{Group, Scratch};
use crate::kv_cache::KvCache;
use crate::weights::Layer;
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

/// One sequence of tokens in the making: its KV cache and the buffers that computing needs.
///
/// All memory is allocated here; [`forward`](Self::forward) allocates nothing.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    cache: KvCache,
    position: usize,
    /// The residual stream, `[tokens x embedding]`.
    residual: Vec<f32>,
    /// Normalized residual: input of attention, FFN and head.
    normed: Activations,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// Output of the attention heads.
    attended: Activations,
    /// Output of attention or FFN, to be added to the residual.
    delta: Vec<f32>,
    /// Cosine and sine per token and rotary pair.
    cos: Vec<f32>,
    sin: Vec<f32>,
    group: Group,
    /// Buffers of attention, one per thread.
    scratch: Vec<Scratch>,
    ffn_scratch: FfnScratch,
    ffn_counts: Vec<FfnCounts>,
    screen_scratch: Option<ScreenScratch>,
    screen_counts: ScreenCounts,
    times: PartTimes,
    batch_mode: BatchMode,
    logits: Vec<f32>,
}

impl Session {
    /// A session with room for `context` tokens.
    ///
    /// # Errors
    /// If `context` is zero or longer than the model was trained for.
    pub fn new(model: &Arc<Model>, context: usize) -> Result<Self, Error> {
        let c = model.config();
        if context == 0 || context > c.context {
            return Err(Error::ContextFull { needed: context, context: c.context });
        }
        let batch = MAX_BATCH.min(context);
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let group = Group { heads: c.heads / c.kv_heads, head_dim: c.head_dim, scale: c.attention_scale };
        let threads = model.compute().pool.threads();
        Ok(Self {
            cache: KvCache::new(c.layers, c.kv_heads, context, c.head_dim),
            position: 0,
            residual: vec![0.0; batch * c.embedding],
            normed: Activations::with_capacity(batch, c.embedding),
            query: vec![0.0; batch * q_width],
            key: vec![0.0; batch * kv_width],
            value: vec![0.0; batch * kv_width],
            attended: Activations::with_capacity(batch, q_width),
            delta: vec![0.0; batch * c.embedding],
            cos: vec![0.0; batch * c.rope.dims / 2],
            sin: vec![0.0; batch * c.rope.dims / 2],
            scratch: (0..threads).map(|_| group.scratch(batch, context)).collect(),
            group,
            ffn_scratch: FfnScratch::new(batch, model.ffns()),
            ffn_counts: vec![FfnCounts::default(); c.layers],
            screen_scratch: model.screen().map(ScreenScratch::new),
            screen_counts: ScreenCounts::default(),
            times: PartTimes::default(),
            batch_mode: BatchMode::default(),
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
        self.position
    }

    /// Tokens that fit, in all.
    pub fn context(&self) -> usize {
        self.cache.context()
    }

    /// Forgets all tokens from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// What batches of several tokens do in the feed-forward layers.
    pub fn set_batch_mode(&mut self, mode: BatchMode) {
        self.batch_mode = mode;
    }

    /// What the feed-forward layer of each model layer has computed for tokens that had an active set of their own: those
    /// of single-token calls, and all in [`BatchMode::Masked`].
    pub fn ffn_counts(&self) -> &[FfnCounts] {
        &self.ffn_counts
    }

    /// What single-token calls of [`candidates`](Self::candidates) took of the head, if the model has a screen.
    pub fn screen_counts(&self) -> ScreenCounts {
        self.screen_counts
    }

    /// Where the time of single-token calls went.
    pub fn times(&self) -> PartTimes {
        self.times
    }

    /// Weight bytes that decoding a token read, on the average of single-token calls; all of them before the first.
    pub fn bytes_per_token(&self) -> usize {
        let all = self.model.bytes_per_token();
        let parts = self.model.ffns().zip(&self.ffn_counts).filter(|(_, c)| c.tokens > 0);
        let all = parts.fold(all, |all, (ffn, c)| all - ffn.bytes() + (c.bytes / c.tokens) as usize);
        match self.screen_counts {
            ScreenCounts { tokens: 0, .. } => all,
            c => all - self.model.head().bytes() + (c.bytes / c.tokens) as usize,
        }
    }

    /// Appends `tokens` to the sequence and returns the logits after the last of them (one per vocabulary
    /// entry). Several tokens at once are much faster than one by one.
    ///
    /// # Errors
    /// If `tokens` is empty, holds an id outside the vocabulary, or does not fit the context; then nothing is
    /// appended. Also if the logits are not finite, which damaged weights lead to.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        let last = self.advance(tokens)?;
        let start = Instant::now();
        self.head(last..last + 1);
        if tokens.len() == 1 {
            self.times.head += start.elapsed();
        }
        let logits = &self.logits[..self.model.vocab_len()];
        finite(logits, self.position - 1)?;
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
        let (Some(screen), Some(reach)) = (model.screen(), sampler.reach()) else {
            return Ok(self.forward(tokens)?.into());
        };
        let last = self.advance(tokens)?;
        let start = Instant::now();
        self.norm(&model, &model.weights().output_norm, last..last + 1);
        let scratch = self.screen_scratch.as_mut().expect("made for a model with a screen");
        let penalty = sampler.penalty(history);
        let list = screen.shortlist(model.compute(), model.head(), &self.normed, reach, &penalty, scratch);
        let logits = match list {
            Some(list) => Logits { ids: Some(list.ids), values: list.logits, outside: list.outside },
            None => {
                let logits = &mut self.logits[..model.vocab_len()];
                model.head().matmul(model.compute(), &self.normed, logits);
                Logits::from(&*logits)
            }
        };
        if tokens.len() == 1 {
            self.times.head += start.elapsed();
            self.screen_counts += ScreenCounts::of(&model, screen, logits.ids.map(<[u32]>::len));
        }
        finite(logits.values, self.position - 1)?;
        Ok(logits)
    }

    /// Like [`forward`](Self::forward), calling `each(index, logits)` for every token of `tokens`.
    pub fn forward_each(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        self.check(tokens)?;
        let vocab = self.model.vocab_len();
        for (b, batch) in tokens.chunks(MAX_BATCH).enumerate() {
            self.transform(batch, &mut |_, _| {});
            for start in (0..batch.len()).step_by(MAX_LOGITS) {
                let part = start..(start + MAX_LOGITS).min(batch.len());
                self.head(part.clone());
                for (logits, t) in self.logits.chunks(vocab).zip(part) {
                    finite(logits, self.position - batch.len() + t)?;
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
        self.check(tokens)?;
        for batch in tokens.chunks(MAX_BATCH) {
            self.transform(batch, &mut watch);
        }
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
        self.check(tokens)?;
        let model = Arc::clone(&self.model);
        for batch in tokens.chunks(MAX_BATCH) {
            self.transform(batch, &mut |_, _| {});
            self.norm(&model, &model.weights().output_norm, 0..batch.len());
            watch(&self.normed);
        }
        Ok(())
    }

    /// Runs `tokens` through all layers; returns where in `residual` the last of them is.
    fn advance(&mut self, tokens: &[u32]) -> Result<usize, Error> {
        self.check(tokens)?;
        for batch in tokens.chunks(MAX_BATCH) {
            self.transform(batch, &mut |_, _| {});
        }
        Ok((tokens.len() - 1) % MAX_BATCH)
    }

    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocab = self.model.vocab_len();
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(&id) = tokens.iter().find(|id| **id as usize >= vocab) {
            return Err(Error::TokenId { id, vocab });
        }
        let needed = self.position + tokens.len();
        if needed > self.context() {
            return Err(Error::ContextFull { needed, context: self.context() });
        }
        Ok(())
    }

    /// Runs a batch through all layers; the result is in `residual`.
    fn transform(&mut self, tokens: &[u32], watch: &mut dyn FnMut(usize, &Activations)) {
        let model = Arc::clone(&self.model);
        let n = tokens.len();
        let width = model.config().embedding;
        for (x, &id) in self.residual.chunks_mut(width).zip(tokens) {
            model.weights().embedding.decode_row(id as usize, x);
        }
        self.prepare_rope(&model, n);
        self.attended.resize(n);
        for (i, layer) in model.weights().layers.iter().enumerate() {
            self.layer(&model, i, layer, n, watch);
        }
        self.position += n;
    }

    fn layer(
        &mut self,
        model: &Model,
        i: usize,
        layer: &Layer,
        n: usize,
        watch: &mut dyn FnMut(usize, &Activations),
    ) {
        let start = Instant::now();
        self.norm(model, &layer.attention_norm, 0..n);
        self.attention(model, i, layer, n);
        self.add_delta(model, n);
        let middle = Instant::now();
        self.norm(model, &layer.ffn_norm, 0..n);
        watch(i, &self.normed);
        self.feed_forward(model, i, layer, n);
        self.add_delta(model, n);
        if n == 1 {
            self.times.attention += middle - start;
            self.times.feed_forward += middle.elapsed();
        }
    }

    /// `normed = rms_norm(residual) * weight` for the tokens in `range`.
    fn norm(&mut self, model: &Model, weight: &[f32], range: Range<usize>) {
        let c = model.config();
        let k = model.compute().kernels;
        self.normed.resize(range.len());
        let x = &self.residual[range.start * c.embedding..range.end * c.embedding];
        for (x, out) in x.chunks(c.embedding).zip(self.normed.x_mut().chunks_mut(c.embedding)) {
            k.rms_norm(x, weight, c.rms_epsilon, out);
        }
        self.normed.quantize(k);
    }

    /// `delta = attention(normed)`, and the batch's keys and values into the cache.
    fn attention(&mut self, model: &Model, i: usize, layer: &Layer, n: usize) {
        let c = model.config();
        let compute = model.compute();
        let k = compute.kernels;
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        layer.query.forward(compute, &self.normed, &mut self.query[..n * q_width]);
        layer.key.forward(compute, &self.normed, &mut self.key[..n * kv_width]);
        layer.value.forward(compute, &self.normed, &mut self.value[..n * kv_width]);

        let pairs = c.rope.dims / 2;
        for t in 0..n {
            let (cos, sin) = (&self.cos[t * pairs..][..pairs], &self.sin[t * pairs..][..pairs]);
            let queries = self.query[t * q_width..][..q_width].chunks_mut(c.head_dim);
            let keys = self.key[t * kv_width..][..kv_width].chunks_mut(c.head_dim);
            for head in queries.chain(keys) {
                k.rope(head, cos, sin);
            }
            for head in 0..c.kv_heads {
                let at = t * kv_width + head * c.head_dim;
                let (key, value) = self.cache.entry(i, head, self.position + t);
                k.to_f16(&self.key[at..][..c.head_dim], key);
                k.to_f16(&self.value[at..][..c.head_dim], value);
            }
        }

        // Heads that share keys and values are computed together, so that those are read once.
        let (group, cache, query, position) = (self.group, &self.cache, &self.query, self.position);
        let (out, tile) = (MatMut::new(self.attended.x_mut(), q_width), (group.tokens(), group.width()));
        compute.pool.for_tiles(&mut self.scratch, out, tile, |scratch, tokens, columns, mut out| {
            let head = columns.start / group.width();
            let seen = position + tokens.start + 1..position + tokens.end;
            let queries = query.chunks(q_width).skip(tokens.start).map(|q| &q[columns.clone()]);
            group.attend(k, cache.rows(i, head, seen.end), seen, queries, scratch, &mut out);
        });
        self.attended.quantize(k);
        layer.attention_output.forward(compute, &self.attended, &mut self.delta[..n * c.embedding]);
    }

    /// `delta = ffn(normed)`, that is `down(act(gate(normed)) * up(normed))`, of the neurons that matter.
    fn feed_forward(&mut self, model: &Model, i: usize, layer: &Layer, n: usize) {
        let out = &mut self.delta[..n * model.config().embedding];
        let mode = self.batch_mode;
        let counts = layer.ffn.forward(model.compute(), &self.normed, mode, &mut self.ffn_scratch, out);
        if n == 1 || mode == BatchMode::Masked {
            self.ffn_counts[i] += counts;
        }
    }

    fn add_delta(&mut self, model: &Model, n: usize) {
        let values = n * model.config().embedding;
        model.compute().kernels.add(&mut self.residual[..values], &self.delta[..values]);
    }

    /// Logits of the tokens in `range` of the last batch.
    fn head(&mut self, range: Range<usize>) {
        let model = Arc::clone(&self.model);
        let values = range.len() * model.vocab_len();
        self.norm(&model, &model.weights().output_norm, range);
        model.head().matmul(model.compute(), &self.normed, &mut self.logits[..values]);
    }

    /// Cosines and sines of the next `n` positions.
    fn prepare_rope(&mut self, model: &Model, n: usize) {
        let frequencies = &model.weights().rope_frequencies;
        let magnitude = model.config().rope.magnitude;
        let pairs = frequencies.len();
        for t in 0..n {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = ((self.position + t) as f32 * frequency).sin_cos();
                self.cos[t * pairs + i] = cos * magnitude;
                self.sin[t * pairs + i] = sin * magnitude;
            }
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
