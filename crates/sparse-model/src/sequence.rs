//! A sequence of tokens and what a model's layers remember of it.

#[cfg(feature = "fs")]
mod file;

use std::sync::Arc;

use crate::config::Mixer;
use crate::kv_cache::{KvCache, KvFormat};
use crate::short_conv::ConvState;
use crate::{Error, Model};

/// What one layer remembers of the tokens before.
#[derive(Clone, Debug)]
pub(crate) enum LayerState {
    /// Keys and values of all of them.
    Kv(KvCache),
    /// Inputs of the last ones.
    Conv(ConvState),
}

/// How a session or a sequence stores its tokens.
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

impl From<usize> for SessionOptions {
    fn from(context: usize) -> Self {
        Self::new(context)
    }
}

/// A sequence of tokens, and what the layers remember of those that a [`Workspace`](crate::Workspace) has computed.
///
/// Its memory grows with its tokens. Many sequences may share one workspace; a [`Session`](crate::Session) is a sequence
/// with a workspace of its own.
#[derive(Debug)]
pub struct Sequence {
    model: Arc<Model>,
    /// Tokens that the layers have seen.
    pub(crate) position: usize,
    /// Tokens that fit.
    context: usize,
    pub(crate) layers: Vec<LayerState>,
    /// The whole sequence: those that the layers have seen, then those that wait.
    pub(crate) tokens: Vec<u32>,
    snapshots: Vec<Snapshot>,
    /// How keys and values were asked to be stored.
    kv: KvFormat,
}

/// What [`Sequence::truncate`] needs to return to a position.
#[derive(Debug)]
struct Snapshot {
    position: usize,
    /// The state of every layer that keeps no history, in order.
    states: Vec<ConvState>,
}

impl Sequence {
    /// An empty sequence.
    ///
    /// # Errors
    /// If the context is zero, longer than the model was trained for, or too long to address, or if the model's heads
    /// cannot be stored in the format.
    pub fn new(model: &Arc<Model>, options: SessionOptions) -> Result<Self, Error> {
        let SessionOptions { context, kv } = options;
        let longest = model.config().context;
        if context == 0 || context > longest {
            return Err(Error::ContextFull { needed: context, context: longest });
        }
        let layers = model.config().layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention(spec) => {
                if kv == KvFormat::Q8 && !spec.head_dim.is_multiple_of(32) {
                    let problem =
                        format!("needs heads a multiple of 32 wide, this model's have {}", spec.head_dim);
                    return Err(Error::setting("keys and values in q8_0", problem));
                }
                let cache = KvCache::new(kv, spec.kv_heads, context, spec.head_dim);
                cache.map(LayerState::Kv).ok_or(Error::ContextMemory { context })
            }
            Mixer::ShortConv { taps } => {
                Ok(LayerState::Conv(ConvState::new(*taps, model.config().embedding)))
            }
        });
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            position: 0,
            context,
            // One more than fits may wait.
            tokens: Vec::with_capacity(context.min(1 << 16) + 1),
            snapshots: Vec::new(),
            kv,
            model: Arc::clone(model),
        })
    }

    /// Makes the sequence consistent after a computation that failed halfway: tokens wait that it was to compute, and in
    /// a model whose layers do not keep all tokens, none is left.
    pub(crate) fn after_failure(&mut self) {
        if self.layers.iter().any(|layer| matches!(layer, LayerState::Conv(_))) {
            self.clear();
        }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens computed so far; the position of the next one.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The whole sequence: the tokens computed so far, then those that wait.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that wait to be computed.
    pub fn waiting(&self) -> usize {
        self.tokens.len() - self.position
    }

    /// Tokens that fit, in all.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How keys and values of the layers are stored now: of the widest, since a layer with values beyond its format's
    /// range goes on in single precision.
    pub fn kv_format(&self) -> KvFormat {
        let formats = || {
            self.layers.iter().filter_map(|layer| match layer {
                LayerState::Kv(cache) => Some(cache.format()),
                LayerState::Conv(_) => None,
            })
        };
        match formats().any(|f| f == KvFormat::F32) {
            true => KvFormat::F32,
            false => formats().next().unwrap_or_default(),
        }
    }

    /// Bytes of keys and values, those that are shared with a [fork](Self::fork) included.
    pub fn kv_bytes(&self) -> usize {
        let bytes = |layer: &LayerState| match layer {
            LayerState::Kv(cache) => cache.bytes(),
            LayerState::Conv(_) => 0,
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Appends tokens, which wait to be computed.
    ///
    /// One more token than the context holds may wait; computing it is an error then.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or the context is full; then nothing is appended.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.check_ids(tokens)?;
        let needed = self.tokens.len() + tokens.len();
        if needed > self.context + 1 {
            return Err(Error::ContextFull { needed, context: self.context });
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Fails unless `tokens` exist and fit.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        self.check_ids(tokens)?;
        let needed = self.tokens.len() + tokens.len();
        if needed > self.context {
            return Err(Error::ContextFull { needed, context: self.context });
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

    /// Makes room for keys and values of the first `count` tokens that wait.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), Error> {
        let positions = self.position + count;
        if positions > self.context {
            return Err(Error::ContextFull { needed: positions, context: self.context });
        }
        for layer in &mut self.layers {
            if let LayerState::Kv(cache) = layer {
                cache.reserve(positions).ok_or(Error::ContextMemory { context: positions })?;
            }
        }
        Ok(())
    }

    /// Keeps what [`truncate`](Self::truncate) needs to return to the current position. Only models whose layers do not
    /// keep all tokens need that, such as LFM2.
    pub fn snapshot(&mut self) {
        let position = self.position;
        let states: Vec<_> = self.convs().map(|s| s.clone()).collect();
        if !states.is_empty() && self.snapshots.last().is_none_or(|s| s.position < position) {
            self.snapshots.push(Snapshot { position, states });
        }
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.snapshots.clear();
        self.position = 0;
        self.convs().for_each(ConvState::clear);
        self.shrink();
    }

    /// Forgets all tokens from `position` on.
    ///
    /// Layers that do not keep all tokens can go back to the beginning, by one token, or to a
    /// [snapshot](Self::snapshot).
    ///
    /// # Errors
    /// [`Error::CannotRewind`] if a layer cannot go back there; then nothing changes.
    pub fn truncate(&mut self, position: usize) -> Result<(), Error> {
        if position < self.position {
            self.rewind(position)?;
            self.snapshots.retain(|s| s.position <= position);
            self.position = position;
            self.shrink();
        }
        self.tokens.truncate(position);
        Ok(())
    }

    /// Another sequence that begins with the first `position` tokens of this one, which are not computed again: it shares
    /// their keys and values.
    ///
    /// # Errors
    /// [`Error::CannotRewind`] if the layers do not know what they remembered there: those that do not keep all tokens
    /// know it at the beginning and at the current position.
    pub fn fork(&self, position: usize) -> Result<Self, Error> {
        let position = position.min(self.position);
        let convs = self.layers.iter().any(|layer| matches!(layer, LayerState::Conv(_)));
        if convs && position != self.position && position != 0 {
            return Err(Error::CannotRewind { at: self.position, to: position });
        }
        let mut fork = Self {
            model: Arc::clone(&self.model),
            position,
            context: self.context,
            layers: self.layers.clone(),
            tokens: self.tokens[..position].to_vec(),
            snapshots: Vec::new(),
            kv: self.kv,
        };
        if position == 0 {
            fork.convs().for_each(ConvState::clear);
        }
        fork.shrink();
        Ok(fork)
    }

    /// Forgets the older half of the tokens behind the first `keep`; the others wait to be computed anew. At most half the
    /// context is kept.
    pub fn shift(&mut self, keep: usize) {
        let keep = keep.min(self.context / 2).min(self.tokens.len());
        let forgotten = (self.tokens.len() - keep).div_ceil(2);
        let rest = self.tokens.split_off(keep + forgotten);
        if self.truncate(keep).is_err() {
            // Layers that cannot go back begin anew.
            let kept = self.tokens[..keep].to_vec();
            self.clear();
            self.tokens.extend(kept);
        }
        self.tokens.extend(rest);
    }

    /// Makes the last computed token wait again.
    pub(crate) fn step_back(&mut self) -> Result<(), Error> {
        let position = self.position.checked_sub(1).ok_or(Error::NoTokens)?;
        self.rewind(position)?;
        self.position = position;
        Ok(())
    }

    /// Whether [`truncate`](Self::truncate) can go back to any position.
    pub(crate) fn rewinds(&self) -> bool {
        self.layers.iter().all(|layer| matches!(layer, LayerState::Kv(_)))
    }

    /// Takes the states that are not addressed by position back to `position`.
    fn rewind(&mut self, position: usize) -> Result<(), Error> {
        let at = self.position;
        let snapshots = std::mem::take(&mut self.snapshots);
        let snapshot = snapshots.iter().find(|s| s.position == position);
        let mut states: Vec<_> = self.convs().collect();
        let mut result = Ok(());
        if position == 0 {
            states.iter_mut().for_each(|s| s.clear());
        } else if let Some(snapshot) = snapshot {
            states.iter_mut().zip(&snapshot.states).for_each(|(s, kept)| s.clone_from(kept));
        } else if position + 1 == at && states.iter().all(|s| s.rewinds()) {
            states.iter_mut().for_each(|s| s.rewind());
        } else if !states.is_empty() {
            result = Err(Error::CannotRewind { at, to: position });
        }
        self.snapshots = snapshots;
        result
    }

    /// Gives back the memory of positions that are not used any more.
    fn shrink(&mut self) {
        for layer in &mut self.layers {
            if let LayerState::Kv(cache) = layer {
                cache.truncate(self.position);
            }
        }
    }

    /// The states that are not addressed by position.
    fn convs(&mut self) -> impl Iterator<Item = &mut ConvState> {
        self.layers.iter_mut().filter_map(|layer| match layer {
            LayerState::Conv(state) => Some(state),
            LayerState::Kv(_) => None,
        })
    }
}
