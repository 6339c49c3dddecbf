//! The architectures that this crate runs: how each differs from llama.
//!
//! [`read`] takes what all architectures share from the metadata. What is special about one stands in
//! its file and nowhere else.

mod ernie;
mod exaone;
mod experts;
mod gemma;
mod gpt_oss;
mod granite;
mod keys;
mod lfm2;
mod llama;
mod olmo;
mod phi;
mod qwen;
mod relu2;
mod smallthinker;
mod smollm;

use sparse_core::ActivationType;
use sparse_gguf::Metadata;

pub(crate) use keys::Keys;

use crate::Error;
use crate::activation::{self, ActivationSource, FfnActivation};
use crate::config::{AttentionSpec, FeedForwardSpec, LayerSpec, Mixer, ModelConfig, NormKind, QkNorm};
use crate::rope::{RopeConfig, RopePairs, RopeScaling};

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
const ALL: [&Architecture; 21] = [
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3MOE,
    &gemma::GEMMA3,
    &phi::PHI3,
    &granite::GRANITE,
    &granite::GRANITEMOE,
    &granite::MINICPM,
    &smollm::SMOLLM3,
    &olmo::OLMO2,
    &olmo::OLMOE,
    &ernie::ERNIE4_5,
    &exaone::EXAONE4,
    &lfm2::LFM2,
    &lfm2::LFM2MOE,
    &smallthinker::SMALLTHINKER,
    &gpt_oss::GPT_OSS,
    &relu2::ARCEE,
    &relu2::NEMOTRON,
    &relu2::BITNET,
];

/// The names of all architectures, for messages.
pub(crate) fn names() -> String {
    ALL.map(|a| a.name).join(", ")
}

/// Reads the configuration of a language model.
pub(crate) fn read(meta: &Metadata, asked: Option<FfnActivation>) -> Result<ModelConfig, Error> {
    let name = meta.string("general.architecture")?;
    let Some(architecture) = ALL.iter().find(|a| a.name == name) else {
        return Err(Error::Architecture { found: name.to_owned(), supported: names() });
    };
    let keys = Keys { meta, prefix: name };
    let mut config = base(&keys, architecture)?;
    (architecture.adapt)(&keys, &mut config)?;
    activation(&keys, asked, &mut config)?;
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
            sinks: false,
        }),
        norms_before: true,
        norms_after: false,
        feed_forward: FeedForwardSpec {
            neurons: neurons[i],
            gated: true,
            activation: ActivationType::Silu,
            up_activation: ActivationType::Identity,
            sub_norm: false,
            experts: None,
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
        ffn_norm: "ffn_norm",
        activation_source: ActivationSource::Architecture,
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

/// The attention layers, by layer number.
fn attentions(config: &mut ModelConfig) -> impl Iterator<Item = (usize, &mut AttentionSpec)> {
    config.layers.iter_mut().enumerate().filter_map(|(i, layer)| match &mut layer.mixer {
        Mixer::Attention(spec) => Some((i, spec)),
        Mixer::ShortConv { .. } => None,
    })
}

/// The file's window, if there is one, for all layers.
fn set_window(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), Error> {
    let window = window(keys)?;
    attentions(config).for_each(|(_, spec)| spec.window = window);
    Ok(())
}

/// The file's window, if there is one, for some layers: of `pattern` the last sees all tokens.
fn set_window_pattern(keys: &Keys<'_>, config: &mut ModelConfig, pattern: usize) -> Result<(), Error> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let Some(window) = window(keys)? else { return Ok(()) };
    let layers = config.layers.len();
    let windowed = match keys.opt_bools(PATTERN)? {
        Some(windowed) if windowed.len() == layers => windowed.to_vec(),
        Some(other) => {
            let problem = format!("has {} values, but there are {layers} layers", other.len());
            return Err(keys.problem(PATTERN, problem));
        }
        None => {
            let pattern = keys.opt_positive(PATTERN)?.unwrap_or(pattern);
            (0..layers).map(|i| i % pattern + 1 < pattern).collect()
        }
    };
    attentions(config).filter(|(i, _)| windowed[*i]).for_each(|(_, spec)| spec.window = Some(window));
    Ok(())
}

/// Layers with a window rotate by a base of their own, not scaled.
fn set_local_rope(keys: &Keys<'_>, config: &mut ModelConfig, base: f32) -> Result<(), Error> {
    if attentions(config).all(|(_, spec)| spec.window.is_none()) {
        return Ok(());
    }
    let local = RopeConfig {
        base: keys.factor("rope.freq_base_swa", base)?,
        scaling: RopeScaling::None,
        magnitude: 1.0,
        ..config.ropes[0].clone()
    };
    let rope = config.ropes.len();
    config.ropes.push(local);
    let windowed = attentions(config).filter(|(_, spec)| spec.window.is_some());
    windowed.for_each(|(_, spec)| spec.rope = Some(rope));
    Ok(())
}

/// Tokens that a layer with a window sees; zero is none.
fn window(keys: &Keys<'_>) -> Result<Option<usize>, Error> {
    Ok(keys.opt_usize("attention.sliding_window")?.filter(|window| *window > 0))
}

/// Sets the activation: the one asked for, the one that the file names, that of a known model, or the
/// architecture's.
fn activation(keys: &Keys<'_>, asked: Option<FfnActivation>, config: &mut ModelConfig) -> Result<(), Error> {
    const KEY: &str = "hidden_activation";
    let named = keys.opt_string(KEY)?;
    let named = named.map(|name| name.parse().map_err(|e: String| keys.problem(KEY, e))).transpose()?;
    let (activation, source) = match (asked, named, activation::known(keys.meta)) {
        (Some(asked), ..) => (asked, ActivationSource::Caller),
        (None, Some(named), _) => (named, ActivationSource::File),
        (None, None, Some(known)) => (known, ActivationSource::Known),
        (None, None, None) => {
            let sparse = keys.meta.iter().find(|(key, _)| key.starts_with("powerinfer."));
            return sparse.map_or(Ok(()), |(key, _)| Err(unnamed_activation(config, &format!("key {key}"))));
        }
    };
    config.activation_source = source;
    for layer in &mut config.layers {
        (layer.feed_forward.activation, layer.feed_forward.up_activation) = (activation.gate, activation.up);
    }
    Ok(())
}

/// The error that `sign` says the model has zeros, and nothing says which activation gives them.
pub(crate) fn unnamed_activation(config: &ModelConfig, sign: &str) -> Error {
    let key = format!("{}.hidden_activation", config.architecture);
    let problem = format!(
        "is absent, but {sign} says that the model was trained for zeros: name its activation (--activation relu, for \
         most such models), or write the key into the file"
    );
    Error::metadata(key, problem)
}

/// Fails unless the sizes of every layer fit together.
fn check(keys: &Keys<'_>, config: &ModelConfig) -> Result<(), Error> {
    if !config.has_experts() && keys.opt_usize("expert_count")?.unwrap_or(0) > 0 {
        let problem = format!("mixtures of experts are not supported for {}", keys.prefix);
        return Err(keys.problem("expert_count", problem));
    }
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
