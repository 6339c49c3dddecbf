//! The buffers that computing takes, for any number of sequences, one after the other or together.

use std::sync::Arc;
use std::time::Duration;

use sparse_core::{Activations, BatchMode, ExpertScratch, FfnCounts, FfnScratch};

use crate::attention::{Group, Scratch};
use crate::config::{AttentionSpec, Mixer};
use crate::decoder::{self, Mode, Part, Watch};
use crate::{Error, FeedForward, Model, Sequence};

/// Tokens computed at a time: enough to read each weight once for many tokens, few enough for small buffers.
pub(crate) const MAX_BATCH: usize = 256;
/// Tokens that a part of a prompt has at least, if the prompt has: fewer are computed in other ways.
const MIN_BATCH: usize = 32;
/// Tokens whose logits are computed at a time when several are asked for.
pub(crate) const MAX_LOGITS: usize = 32;

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

/// Cosine and sine of a batch's positions, `[tokens x pairs]`, for one rotary embedding.
#[derive(Debug)]
pub(crate) struct Angles {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

/// A token of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The sequence that it belongs to, by its place in the batch.
    pub(crate) part: usize,
    /// Its position there.
    pub(crate) position: usize,
}

/// The buffers that computing tokens takes, allocated once. What it computes is kept in [`Sequence`]s.
///
/// What comes out for a sequence does not depend on what else is computed meanwhile: a prompt has the same bits in
/// whichever parts it is computed, and a step has those that it has alone.
#[derive(Debug)]
pub struct Workspace {
    model: Arc<Model>,
    pub(crate) rows: Vec<Row>,
    /// The residual stream, `[tokens x embedding]`.
    pub(crate) residual: Vec<f32>,
    /// Normalized residual: input of mixer, feed-forward network and head.
    pub(crate) normed: Activations,
    /// Queries; also the input projection of a convolution.
    pub(crate) query: Vec<f32>,
    pub(crate) key: Vec<f32>,
    pub(crate) value: Vec<f32>,
    /// What the mixer's output projection reads.
    pub(crate) mixed: Activations,
    /// Output of mixer or feed-forward network, to be added to the residual.
    pub(crate) delta: Vec<f32>,
    /// A vector of one token.
    pub(crate) row: Vec<f32>,
    /// Of each rotary embedding of the model.
    pub(crate) angles: Vec<Angles>,
    /// Buffers of attention, one per thread.
    pub(crate) scratch: Vec<Scratch>,
    pub(crate) ffn_scratch: FfnScratch,
    pub(crate) expert_scratch: ExpertScratch,
    pub(crate) ffn_counts: Vec<FfnCounts>,
    pub(crate) batch_mode: BatchMode,
    /// What the neurons of each layer gave for the last token that was alone, if that is kept.
    pub(crate) neurons: Option<Vec<Vec<f32>>>,
    pub(crate) times: PartTimes,
    pub(crate) logits: Vec<f32>,
}

impl Workspace {
    /// Buffers for sequences of at most `context` tokens. They must be made anew when the model gets other selectors.
    pub fn new(model: &Arc<Model>, context: usize) -> Self {
        let (c, batch) = (model.config(), MAX_BATCH.min(context.max(MAX_LOGITS)));
        let (mut q_width, mut kv_width, mut mixed) = (0, 0, c.embedding);
        let mut scratch: Vec<Scratch> = Vec::new();
        scratch.resize_with(model.compute().pool.threads(), Scratch::default);
        for layer in &c.layers {
            match &layer.mixer {
                Mixer::Attention(spec) => {
                    q_width = q_width.max(spec.query_width());
                    kv_width = kv_width.max(spec.kv_width());
                    mixed = mixed.max(spec.query_width());
                    scratch.iter_mut().for_each(|s| s.reserve(&group(spec), batch, context));
                }
                Mixer::ShortConv { .. } => q_width = q_width.max(3 * c.embedding),
            }
        }
        let angles = c.ropes.iter().map(|rope| {
            let zeros = || vec![0.0; batch * rope.dims / 2];
            Angles { cos: zeros(), sin: zeros() }
        });
        Self {
            rows: Vec::with_capacity(batch),
            residual: vec![0.0; batch * c.embedding],
            normed: Activations::with_capacity(batch, c.embedding),
            query: vec![0.0; batch * q_width],
            key: vec![0.0; batch * kv_width],
            value: vec![0.0; batch * kv_width],
            mixed: Activations::with_capacity(batch, mixed),
            delta: vec![0.0; batch * c.embedding],
            row: vec![0.0; mixed.max(q_width)],
            angles: angles.collect(),
            scratch,
            ffn_scratch: FfnScratch::for_layers(
                batch,
                model.feed_forwards().filter_map(FeedForward::selector),
            ),
            expert_scratch: ExpertScratch::new(batch, model.feed_forwards().filter_map(FeedForward::experts)),
            ffn_counts: vec![FfnCounts::default(); c.layers.len()],
            batch_mode: BatchMode::default(),
            neurons: None,
            times: PartTimes::default(),
            logits: vec![0.0; MAX_LOGITS * model.vocab_len()],
            model: Arc::clone(model),
        }
    }

    /// What the feed-forward part of each layer has computed for tokens that had an active set of their own.
    pub fn ffn_counts(&self) -> &[FfnCounts] {
        &self.ffn_counts
    }

    /// Computes the first tokens of `sequence` that wait, `most` at most (from 64 to 256), as part of a prompt. Returns the
    /// logits after the last one when none waits any more. A token that is alone is a [step](Self::steps).
    ///
    /// # Errors
    /// If the sequence does not fit its context or the memory, or the logits are not finite.
    pub fn prefill(&mut self, sequence: &mut Sequence, most: usize) -> Result<Option<&[f32]>, Error> {
        let count = self.advance(sequence, most, &mut |_, _| {})?;
        if count == 0 || sequence.waiting() > 0 {
            return Ok(None);
        }
        let (model, vocab) = (Arc::clone(&self.model), self.model.vocab_len());
        let mut logits = std::mem::take(&mut self.logits);
        decoder::head(&model, model.compute(), self, count - 1..count, &mut logits[..vocab]);
        self.logits = logits;
        finite(&self.logits[..vocab], sequence.position() - 1)?;
        Ok(Some(&self.logits[..vocab]))
    }

    /// Computes the first tokens that wait, calling `watch` with what feed-forward layers are given. Returns how many.
    pub(crate) fn advance(
        &mut self,
        sequence: &mut Sequence,
        most: usize,
        watch: &mut Watch<'_>,
    ) -> Result<usize, Error> {
        let count = batch(sequence.waiting(), most);
        if count > 0 {
            sequence.reserve(count)?;
            let mode = if count == 1 { Mode::Steps } else { Mode::Prompt };
            let model = Arc::clone(&self.model);
            let result = decoder::transform(&model, self, &mut [Part { sequence, count }], mode, watch);
            result.inspect_err(|_| sequence.after_failure())?;
        }
        Ok(count)
    }

    /// Computes all tokens of `sequences` that wait, together, each as if it came alone, and calls
    /// `each(sequence, token, logits)` with the logits after every one of them: `token` counts those that waited.
    ///
    /// # Errors
    /// If more than 256 tokens wait in all (or the context, if that is less), or a sequence does not fit its context or the memory; then nothing is
    /// computed. If logits are not finite, which damaged weights lead to, or as `each`.
    pub fn steps(
        &mut self,
        sequences: &mut [&mut Sequence],
        mut each: impl FnMut(usize, usize, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let model = Arc::clone(&self.model);
        let rows: usize = sequences.iter().map(|s| s.waiting()).sum();
        let room = self.residual.len() / model.config().embedding;
        if rows > room {
            return Err(Error::ContextFull { needed: rows, context: room });
        }
        let mut parts = Vec::with_capacity(sequences.len());
        for sequence in sequences.iter_mut() {
            let count = sequence.waiting();
            sequence.reserve(count)?;
            parts.push(Part { sequence, count });
        }
        if let Err(error) = decoder::transform(&model, self, &mut parts, Mode::Steps, &mut |_, _| {}) {
            parts.iter_mut().for_each(|part| part.sequence.after_failure());
            return Err(error);
        }
        let firsts: Vec<usize> = parts.iter().map(|part| part.sequence.position - part.count).collect();
        let (vocab, compute) = (model.vocab_len(), model.step_compute());
        let mut logits = std::mem::take(&mut self.logits);
        let mut result = Ok(());
        for start in (0..rows).step_by(logits.len() / vocab) {
            let range = start..rows.min(start + logits.len() / vocab);
            let logits = &mut logits[..range.len() * vocab];
            decoder::head(&model, compute, self, range.clone(), logits);
            for (logits, r) in logits.chunks(vocab).zip(range) {
                let Row { part, position } = self.rows[r];
                result = result
                    .and_then(|()| finite(logits, position))
                    .and_then(|()| each(part, position - firsts[part], logits));
            }
        }
        self.logits = logits;
        result
    }
}

/// How many of `waiting` tokens are computed next. Parts of any length have the same bits, but for short ones.
fn batch(waiting: usize, most: usize) -> usize {
    let most = most.clamp(2 * MIN_BATCH, MAX_BATCH);
    if waiting <= most { waiting } else { most.min(waiting - MIN_BATCH) }
}

/// The query heads that share a key and value head.
pub(crate) fn group(spec: &AttentionSpec) -> Group {
    Group { heads: spec.heads / spec.kv_heads, head_dim: spec.head_dim, scale: spec.scale }
}

/// NaN or infinity among the logits is an error. Looks at all of them, so that the loop vectorizes.
pub(crate) fn finite(logits: &[f32], position: usize) -> Result<(), Error> {
    const EXPONENT: u32 = 0x7f80_0000;
    match logits.iter().fold(false, |bad, l| bad | (l.to_bits() & EXPONENT == EXPONENT)) {
        false => Ok(()),
        true => Err(Error::NotFinite { position }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_long_prompt_is_short() {
        for (n, most) in (1..2000).flat_map(|n| [0, 64, 100, MAX_BATCH, usize::MAX].map(|most| (n, most))) {
            let (mut left, mut parts) = (n, Vec::new());
            while left > 0 {
                parts.push(batch(left, most));
                left -= batch(left, most);
            }
            assert!(parts.iter().all(|p| (1..=most.clamp(64, MAX_BATCH)).contains(p)), "{n}: {parts:?}");
            assert!(parts.len() == 1 || parts.iter().all(|p| *p >= MIN_BATCH), "{n}: {parts:?}");
        }
    }
}
