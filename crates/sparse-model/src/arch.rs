//! The architectures that this crate runs: how each differs from llama.
//!
//! [`read`] takes what all architectures share from the metadata. What is special about one stands in
//! its file and nowhere else.

mod keys;
mod llama;

use sparse_core::ActivationType;
use sparse_gguf::Metadata;

pub(crate) use keys::Keys;

use crate::Error;
use crate::config::{AttentionSpec, FeedForwardSpec, LayerSpec, Mixer, ModelConfig, NormKind, QkNorm};
use crate::rope::{RopeConfig, RopePairs};

/// No model has more layers; a file that states more is damaged.
const MAX_LAYERS: usize = 4096;

/// An architecture.
pub(crate) struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    name: &'static str,
    /// Which values of a head are rotated together.
    rope: RopePairs,
    /// Changes what [`read`] made, which is a llama model of the file's sizes.
    adapt: fn(&Keys<'_>, &mut ModelConfig) -> Result<(), Error>,
}

/// All architectures.
const ALL: [&Architecture; 1] = [&llama::LLAMA];

/// The names of all architectures, for messages.
pub(crate) fn names() -> String {
    ALL.map(|a| a.name).join(", ")
}

/// Reads the configuration of a language model.
pub(crate) fn read(meta: &Metadata) -> Result<ModelConfig, Error> {
    let name = meta.string("general.architecture")?;
    let Some(architecture) = ALL.iter().find(|a| a.name == name) else {
        return Err(Error::Architecture { found: name.to_owned(), supported: names() });
    };
    let keys = Keys { meta, prefix: name };
    let mut config = base(&keys, architecture)?;
    (architecture.adapt)(&keys, &mut config)?;
    activation(&keys, &mut config)?;
    check(&keys, &config)?;
    Ok(config)
}

/// A llama model of the file's sizes.
fn base(keys: &Keys<'_>, architecture: &Architecture) -> Result<ModelConfig, Error> {
    let layers = keys.positive("block_count")?;
    if layers > MAX_LAYERS {
        let problem = format!("{layers} layers, expected at most {MAX_LAYERS}");
        return Err(keys.problem("block_count", problem));
    }
    let embedding = keys.positive("embedding_length")?;
    let context = keys.positive("context_length")?;
    let heads = keys.per_layer("attention.head_count", layers)?;
    let kv_heads = keys.opt_per_layer("attention.head_count_kv", layers)?;
    let neurons = keys.per_layer("feed_forward_length", layers)?;
    let most_heads = heads.iter().copied().max().unwrap_or(0);
    if most_heads == 0 {
        return Err(keys.problem("attention.head_count", "must not be zero"));
    }
    let head_dim = match keys.opt_positive("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if embedding.is_multiple_of(most_heads) => embedding / most_heads,
        None => {
            let problem = format!("width {embedding} is not divisible by {most_heads} heads");
            return Err(keys.problem("embedding_length", problem));
        }
    };
    // Keys and values are no wider.
    if most_heads.checked_mul(head_dim).is_none() {
        let problem = format!("{most_heads} heads of {head_dim} values are more than memory can address");
        return Err(keys.problem("attention.head_count", problem));
    }
    if keys.opt_usize("attention.value_length")?.is_some_and(|v| v != head_dim) {
        let problem = format!("differs from the key length {head_dim}, which is not supported");
        return Err(keys.problem("attention.value_length", problem));
    }
    if keys.opt_usize("expert_count")?.unwrap_or(0) > 0 {
        return Err(keys.problem("expert_count", "mixtures of experts are not supported"));
    }
    let scale = keys.nonzero("attention.scale", 1.0 / (head_dim as f32).sqrt())?;
    let layer = |i: usize| LayerSpec {
        mixer: Mixer::Attention(AttentionSpec {
            heads: heads[i],
            kv_heads: kv_heads.as_ref().map_or(heads[i], |kv| kv[i]),
            head_dim,
            scale,
            window: None,
            rope: Some(0),
            qk_norm: QkNorm::None,
            sub_norm: false,
        }),
        norms_before: true,
        norms_after: false,
        feed_forward: FeedForwardSpec {
            neurons: neurons[i],
            gated: true,
            activation: ActivationType::Silu,
            up_activation: ActivationType::Identity,
            sub_norm: false,
        },
    };
    Ok(ModelConfig {
        architecture: architecture.name,
        embedding,
        context,
        layers: (0..layers).map(layer).collect(),
        norm: NormKind::Rms,
        norm_epsilon: epsilon(keys)?,
        ropes: vec![RopeConfig::read(keys, architecture.rope, head_dim, context)?],
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: None,
        output_norm: "output_norm",
    })
}

/// The norms' epsilon; files of models with layer norms have another key.
fn epsilon(keys: &Keys<'_>) -> Result<f32, Error> {
    const RMS: &str = "attention.layer_norm_rms_epsilon";
    const LAYER: &str = "attention.layer_norm_epsilon";
    let (key, found) = match (keys.opt_f32(RMS)?, keys.opt_f32(LAYER)?) {
        (Some(found), _) => (RMS, found),
        (None, Some(found)) => (LAYER, found),
        (None, None) => return Err(sparse_gguf::Error::MissingKey { key: keys.full(RMS) }.into()),
    };
    if found < 0.0 { Err(keys.problem(key, format!("{found} is no epsilon"))) } else { Ok(found) }
}

/// The activation that the file names, if it does: `drelu` is ReLU on gate and up.
fn activation(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    const KEY: &str = "hidden_activation";
    let Some(name) = keys.opt_string(KEY)? else { return Ok(()) };
    let (activation, up) = match (name, ActivationType::by_name(name)) {
        ("drelu", _) => (ActivationType::Relu, ActivationType::Relu),
        (_, Some(activation)) => (activation, ActivationType::Identity),
        (_, None) => return Err(keys.problem(KEY, format!("names an unknown function \"{name}\""))),
    };
    for layer in &mut config.layers {
        (layer.feed_forward.activation, layer.feed_forward.up_activation) = (activation, up);
    }
    Ok(())
}

/// Fails unless the sizes of every layer fit together.
fn check(keys: &Keys<'_>, config: &ModelConfig) -> Result<(), Error> {
    for (i, spec) in config.attention_layers() {
        let (heads, kv_heads) = (spec.heads, spec.kv_heads);
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            let problem = format!("{kv_heads} key-value heads do not divide {heads} query heads (layer {i})");
            return Err(keys.problem("attention.head_count_kv", problem));
        }
    }
    if let Some(i) = config.layers.iter().position(|l| l.feed_forward.neurons == 0) {
        return Err(keys.problem("feed_forward_length", format!("must not be zero (layer {i})")));
    }
    Ok(())
}
