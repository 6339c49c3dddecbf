//! The llama architecture's numbers, read from GGUF metadata.

use sparse_core::ActivationType;
use sparse_gguf::Metadata;

use crate::Error;
use crate::rope::RopeConfig;

/// Shape and constants of a llama model.
///
/// Keys are those of the GGUF specification, `llama.*`
/// (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Neurons per feed-forward layer.
    pub feed_forward: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// Key and value heads per layer; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Function on the gate of the feed-forward layers: SiLU unless the file says otherwise in
    /// `llama.hidden_activation`.
    pub activation: ActivationType,
    /// Function on their `up`: the identity but for dReLU.
    pub up_activation: ActivationType,
    /// Longest context the model was trained on, in tokens.
    pub context: usize,
    /// Epsilon of the RMS norms.
    pub rms_epsilon: f32,
    /// Factor on the attention scores, `1 / sqrt(head_dim)` unless the file says otherwise.
    pub attention_scale: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
}

impl LlamaConfig {
    /// Reads the configuration.
    ///
    /// # Errors
    /// If the architecture is not llama, a key is missing or of the wrong type, or the numbers contradict each
    /// other.
    pub fn from_metadata(meta: &Metadata) -> Result<Self, Error> {
        let architecture = meta.string("general.architecture")?;
        if architecture != "llama" {
            return Err(Error::Architecture { found: architecture.to_owned(), supported: "llama" });
        }
        let positive = |key: &str| match meta.usize(key)? {
            0 => Err(Error::metadata(key, "must not be zero")),
            n => Ok(n),
        };
        let embedding = positive("llama.embedding_length")?;
        let heads = positive("llama.attention.head_count")?;
        let kv_heads = meta.opt_usize("llama.attention.head_count_kv")?.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let problem = format!("{kv_heads} key-value heads do not divide {heads} query heads");
            return Err(Error::metadata("llama.attention.head_count_kv", problem));
        }
        let head_dim = match meta.opt_usize("llama.attention.key_length")? {
            Some(_) => positive("llama.attention.key_length")?,
            None if embedding.is_multiple_of(heads) => embedding / heads,
            None => {
                let problem = format!("width {embedding} is not divisible by {heads} heads");
                return Err(Error::metadata("llama.embedding_length", problem));
            }
        };
        // Keys and values are no wider.
        if heads.checked_mul(head_dim).is_none() {
            let problem = format!("{heads} heads of {head_dim} values are more than memory can address");
            return Err(Error::metadata("llama.attention.head_count", problem));
        }
        if meta.opt_usize("llama.attention.value_length")?.is_some_and(|v| v != head_dim) {
            let problem = format!("differs from the key length {head_dim}, which is not supported");
            return Err(Error::metadata("llama.attention.value_length", problem));
        }
        if meta.opt_usize("llama.expert_count")?.unwrap_or(0) > 0 {
            return Err(Error::metadata("llama.expert_count", "mixtures of experts are not supported"));
        }
        let rms_epsilon = meta.f32("llama.attention.layer_norm_rms_epsilon")?;
        if !rms_epsilon.is_finite() || rms_epsilon < 0.0 {
            let problem = format!("{rms_epsilon} is no epsilon");
            return Err(Error::metadata("llama.attention.layer_norm_rms_epsilon", problem));
        }
        let context = positive("llama.context_length")?;
        let (activation, up_activation) = activations(meta)?;
        Ok(Self {
            activation,
            up_activation,
            layers: positive("llama.block_count")?,
            embedding,
            feed_forward: positive("llama.feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            context,
            rms_epsilon,
            attention_scale: meta
                .opt_f32("llama.attention.scale")?
                .filter(|s| *s != 0.0)
                .unwrap_or(1.0 / (head_dim as f32).sqrt()),
            rope: RopeConfig::from_metadata(meta, head_dim, context)?,
        })
    }
}

/// The functions on gate and up.
fn activations(meta: &Metadata) -> Result<(ActivationType, ActivationType), Error> {
    const KEY: &str = "llama.hidden_activation";
    match meta.opt_string(KEY)? {
        None => Ok((ActivationType::Silu, ActivationType::Identity)),
        Some("drelu") => Ok((ActivationType::Relu, ActivationType::Relu)),
        Some(name) => match ActivationType::by_name(name) {
            Some(activation) => Ok((activation, ActivationType::Identity)),
            None => Err(Error::metadata(KEY, format!("names an unknown function \"{name}\""))),
        },
    }
}
