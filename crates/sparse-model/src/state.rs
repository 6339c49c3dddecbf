//! What a sequence's layers remember, and the buffers that computing a batch needs.

use sparse_core::{Activations, BatchMode, FfnCounts, FfnScratch};

use crate::attention::{Group, Scratch};
use crate::config::{AttentionSpec, Mixer};
use crate::kv_cache::{KvCache, KvFormat};
use crate::short_conv::ConvState;
use crate::{Error, Model, PartTimes};

/// What one layer remembers of the tokens before.
#[derive(Debug)]
pub(crate) enum LayerState {
    /// Keys and values of all of them.
    Kv(KvCache),
    /// Inputs of the last ones.
    Conv(ConvState),
}

/// Cosine and sine of a batch's positions, `[tokens x pairs]`, for one rotary embedding.
#[derive(Debug)]
pub(crate) struct Angles {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

/// State and buffers of one sequence. All memory is allocated here.
#[derive(Debug)]
pub(crate) struct State {
    /// Tokens that the layers have seen.
    pub(crate) position: usize,
    /// Tokens that fit.
    pub(crate) context: usize,
    pub(crate) layers: Vec<LayerState>,
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
    pub(crate) ffn_counts: Vec<FfnCounts>,
    pub(crate) batch_mode: BatchMode,
    pub(crate) times: PartTimes,
}

impl State {
    /// An empty sequence with room for `context` tokens, computed at most `batch` at a time.
    ///
    /// # Errors
    /// If there is not enough memory for keys and values.
    pub(crate) fn new(model: &Model, context: usize, batch: usize, kv: KvFormat) -> Result<Self, Error> {
        let c = model.config();
        let (mut q_width, mut kv_width, mut mixed) = (0, 0, c.embedding);
        let mut scratch: Vec<Scratch> = Vec::new();
        scratch.resize_with(model.compute().pool.threads(), Scratch::default);
        let mut layers = Vec::with_capacity(c.layers.len());
        for layer in &c.layers {
            layers.push(match &layer.mixer {
                Mixer::Attention(spec) => {
                    q_width = q_width.max(spec.query_width());
                    kv_width = kv_width.max(spec.kv_width());
                    mixed = mixed.max(spec.query_width());
                    let cache = KvCache::new(kv, spec.kv_heads, context, spec.head_dim);
                    let cache = cache.ok_or(Error::ContextMemory { context })?;
                    let group = group(spec);
                    scratch.iter_mut().for_each(|s| s.reserve(&group, batch, context));
                    LayerState::Kv(cache)
                }
                Mixer::ShortConv { taps } => {
                    q_width = q_width.max(3 * c.embedding);
                    LayerState::Conv(ConvState::new(*taps, c.embedding))
                }
            });
        }
        let angles = c.ropes.iter().map(|rope| {
            let zeros = || vec![0.0; batch * rope.dims / 2];
            Angles { cos: zeros(), sin: zeros() }
        });
        Ok(Self {
            position: 0,
            context,
            layers,
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
            ffn_scratch: FfnScratch::new(batch, model.ffns()),
            ffn_counts: vec![FfnCounts::default(); c.layers.len()],
            batch_mode: BatchMode::default(),
            times: PartTimes::default(),
        })
    }

    /// Forgets all tokens.
    pub(crate) fn clear(&mut self) {
        self.position = 0;
        self.convs().for_each(ConvState::clear);
    }

    /// The states that are not addressed by position.
    pub(crate) fn convs(&mut self) -> impl Iterator<Item = &mut ConvState> {
        self.layers.iter_mut().filter_map(|layer| match layer {
            LayerState::Conv(state) => Some(state),
            LayerState::Kv(_) => None,
        })
    }
}

/// The query heads that share a key and value head.
pub(crate) fn group(spec: &AttentionSpec) -> Group {
    Group { heads: spec.heads / spec.kv_heads, head_dim: spec.head_dim, scale: spec.scale }
}
