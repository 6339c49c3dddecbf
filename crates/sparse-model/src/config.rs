//! What a model is made of: its shape, its constants, and what each layer computes.

use sparse_core::{ActivationType, Gating};
use sparse_gguf::Metadata;

use crate::activation::{ActivationSource, FfnActivation};
use crate::rope::RopeConfig;
use crate::{Error, arch};

/// Shape and constants of a language model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// `general.architecture` of the file.
    pub architecture: &'static str,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Longest context the model was trained on, in tokens.
    pub context: usize,
    /// What each layer computes, first to last.
    pub layers: Vec<LayerSpec>,
    /// The norm of the residual stream, before the head and in the layers.
    pub norm: NormKind,
    /// Epsilon of all norms.
    pub norm_epsilon: f32,
    /// Rotary position embeddings; layers refer to them by index.
    pub ropes: Vec<RopeConfig>,
    /// Factor on the token embeddings.
    pub embedding_scale: f32,
    /// Factor on what each sublayer adds to the residual stream.
    pub residual_scale: f32,
    /// Factor on the logits.
    pub logit_scale: f32,
    /// Bound on the logits: `c tanh(logit / c)`.
    pub logit_softcap: Option<f32>,
    /// Tensor name of the norm before the head, without `.weight`.
    pub output_norm: &'static str,
    /// Tensor name of the norms before the feed-forward networks, without `blk.N.` and `.weight`.
    pub ffn_norm: &'static str,
    /// Where the activation of the feed-forward networks comes from.
    pub activation_source: ActivationSource,
}

/// Which norm a model applies to its residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormKind {
    /// Root mean square (arXiv 1910.07467).
    Rms,
    /// Mean and variance, with a bias (arXiv 1607.06450).
    Layer,
}

/// What one layer computes: a token mixer, then a feed-forward network, each added to the residual
/// stream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerSpec {
    /// How tokens see earlier ones.
    pub mixer: Mixer,
    /// Whether the input of mixer and feed-forward network is normalized.
    pub norms_before: bool,
    /// Whether their output is normalized, before it is added to the residual stream.
    pub norms_after: bool,
    /// The feed-forward network.
    pub feed_forward: FeedForwardSpec,
}

/// How a layer's tokens see earlier ones.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mixer {
    /// Softmax attention.
    Attention(AttentionSpec),
    /// A gated convolution over the last `taps` tokens, per channel (LFM2).
    ShortConv {
        /// Tokens it sees, the current one included.
        taps: usize,
    },
}

/// The attention of one layer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Tokens that a token sees, itself included; `None` is all.
    pub window: Option<usize>,
    /// Which of [`ModelConfig::ropes`] turns queries and keys; `None` leaves them as they are.
    pub rope: Option<usize>,
    /// The norm of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether the heads' output is normalized before the output projection (BitNet).
    pub sub_norm: bool,
    /// Whether each head has a learned score for no token, which takes its share of the softmax (gpt-oss).
    pub sinks: bool,
}

impl AttentionSpec {
    /// Width of all queries of a token.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all keys of a token, and of all values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// RMS norm of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkNorm {
    /// None.
    None,
    /// Each head on its own, all with the same weights.
    Heads,
    /// All heads of a token together.
    Width,
}

/// The feed-forward network of one layer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FeedForwardSpec {
    /// Neurons; of each expert, if there are experts.
    pub neurons: usize,
    /// Whether there is a gate: `down(act(gate x) * act'(up x))`, else `down(act(up x))`.
    pub gated: bool,
    /// The function on the gate, or on `up` where there is none.
    pub activation: ActivationType,
    /// The function on `up` beside a gate: the identity but for dReLU and clamped SwiGLU.
    pub up_activation: ActivationType,
    /// Whether what `down` multiplies is normalized (BitNet).
    pub sub_norm: bool,
    /// The experts, if the network is a mixture of them.
    pub experts: Option<ExpertsSpec>,
}

/// The experts of a feed-forward network, and how tokens are sent to them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExpertsSpec {
    /// Experts.
    pub count: usize,
    /// Experts that a token uses.
    pub used: usize,
    /// Neurons of an expert that all tokens use; zero is none.
    pub shared_neurons: usize,
    /// What makes weights of the router's outputs.
    pub gating: Gating,
    /// Whether a token's weights are divided by their sum.
    pub normalized: bool,
    /// Factor on the weights.
    pub scale: f32,
    /// Whether experts are chosen by their scores plus a bias, which is no part of the weights (LFM2).
    pub selection_bias: bool,
    /// Whether the router reads the layer's input, before attention and norms (SmallThinker), and not what the experts read.
    pub routed_early: bool,
}

impl ModelConfig {
    /// Reads the configuration of a language model, by the keys of its architecture.
    ///
    /// Keys are those of the GGUF specification
    /// (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
    ///
    /// # Errors
    /// If the architecture is not one of those that this crate runs, a key is missing or of the
    /// wrong type, or the numbers contradict each other.
    pub fn from_metadata(meta: &Metadata) -> Result<Self, Error> {
        arch::read(meta, None)
    }

    /// The activation of the feed-forward networks: the same in all layers.
    pub fn activation(&self) -> FfnActivation {
        let spec = &self.layers[0].feed_forward;
        FfnActivation { gate: spec.activation, up: spec.up_activation }
    }

    /// Whether some layers are mixtures of experts.
    pub fn has_experts(&self) -> bool {
        self.layers.iter().any(|layer| layer.feed_forward.experts.is_some())
    }

    /// The attention layers' specifications, with their layer numbers.
    pub fn attention_layers(&self) -> impl Iterator<Item = (usize, &AttentionSpec)> {
        self.layers.iter().enumerate().filter_map(|(i, layer)| match &layer.mixer {
            Mixer::Attention(spec) => Some((i, spec)),
            Mixer::ShortConv { .. } => None,
        })
    }
}
