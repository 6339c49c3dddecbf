//! The numbers of BERT and its like, read from `config.json` or from GGUF metadata.

use serde::Deserialize;
use sparse_core::ActivationType;
use sparse_gguf::Metadata;

use crate::Error;

/// Shape and constants of a BERT model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BertConfig {
    /// Number of layers.
    pub layers: usize,
    /// Width of the vectors from layer to layer, and of the sentence embedding.
    pub embedding: usize,
    /// Neurons per feed-forward layer.
    pub feed_forward: usize,
    /// Attention heads per layer; their width is `embedding / heads`.
    pub heads: usize,
    /// Tokens that have an embedding.
    pub vocabulary: usize,
    /// Positions that texts can use: the longest text, in tokens.
    pub positions: usize,
    /// Rows of the position embedding before that of the first token, as RoBERTa and its like have them.
    pub position_offset: usize,
    /// Token types that have an embedding; a sentence is all of the first.
    pub token_types: usize,
    /// Epsilon of the layer norms.
    pub epsilon: f32,
    /// Function on the neurons.
    pub activation: ActivationType,
}

/// `config.json` as the transformers library writes it.
#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "gelu")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    pad_token_id: Option<usize>,
}

// The defaults of the transformers library.
fn two() -> usize {
    2
}
fn default_epsilon() -> f32 {
    1e-12
}
fn gelu() -> String {
    "gelu".into()
}

impl BertConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// If it is not JSON, lacks a number, describes another architecture than BERT's encoder, or contradicts itself.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let file: File = serde_json::from_slice(text)?;
        let position_offset = match file.model_type.as_deref() {
            None | Some("bert") => 0,
            // Positions count from behind that of the padding token.
            Some("roberta" | "xlm-roberta" | "camembert") => file.pad_token_id.unwrap_or(1).saturating_add(1),
            Some(other) => {
                let supported = "bert, roberta, xlm-roberta, camembert".into();
                return Err(Error::Architecture { found: other.to_owned(), supported });
            }
        };
        if let Some(other) = file.position_embedding_type.filter(|kind| kind != "absolute") {
            let problem = format!("\"{other}\" is not supported (supported: absolute)");
            return Err(Error::setting("position_embedding_type", problem));
        }
        if file.is_decoder {
            return Err(Error::setting("is_decoder", "decoders are not supported"));
        }
        let activation = ActivationType::by_name(&file.hidden_act).ok_or_else(|| {
            Error::setting("hidden_act", format!("names an unknown function \"{}\"", file.hidden_act))
        })?;
        Self {
            layers: file.num_hidden_layers,
            embedding: file.hidden_size,
            feed_forward: file.intermediate_size,
            heads: file.num_attention_heads,
            vocabulary: file.vocab_size,
            positions: file.max_position_embeddings.saturating_sub(position_offset),
            position_offset,
            token_types: file.type_vocab_size,
            epsilon: file.layer_norm_eps,
            activation,
        }
        .checked()
    }

    /// Reads the configuration of a GGUF file of architecture `bert`. The function on the neurons is GELU: such files do not
    /// state it.
    ///
    /// # Errors
    /// If the architecture is another one, a key is missing or of the wrong type, or the numbers contradict each other.
    pub fn from_metadata(meta: &Metadata) -> Result<Self, Error> {
        let architecture = meta.string("general.architecture")?;
        if architecture != "bert" {
            return Err(Error::Architecture { found: architecture.to_owned(), supported: "bert".into() });
        }
        if meta.opt_bool("bert.attention.causal")?.unwrap_or(false) {
            return Err(Error::metadata("bert.attention.causal", "causal attention is not supported"));
        }
        Self {
            layers: meta.usize("bert.block_count")?,
            embedding: meta.usize("bert.embedding_length")?,
            feed_forward: meta.usize("bert.feed_forward_length")?,
            heads: meta.usize("bert.attention.head_count")?,
            vocabulary: meta.strings("tokenizer.ggml.tokens")?.len(),
            positions: meta.usize("bert.context_length")?,
            // llama.cpp's converter cuts such rows off.
            position_offset: 0,
            token_types: meta.opt_usize("tokenizer.ggml.token_type_count")?.unwrap_or_else(two),
            epsilon: meta.f32("bert.attention.layer_norm_epsilon")?,
            activation: ActivationType::Gelu,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, Error> {
        for (what, n) in [
            ("the number of layers", self.layers),
            ("the width", self.embedding),
            ("the number of neurons", self.feed_forward),
            ("the number of heads", self.heads),
            ("the size of the vocabulary", self.vocabulary),
            ("the number of positions", self.positions),
            ("the number of token types", self.token_types),
        ] {
            if n == 0 {
                return Err(Error::setting(what, "must not be zero"));
            }
        }
        if !self.embedding.is_multiple_of(self.heads) {
            let problem = format!("{} is not divisible by {} heads", self.embedding, self.heads);
            return Err(Error::setting("the width", problem));
        }
        if !self.epsilon.is_finite() || self.epsilon < 0.0 {
            return Err(Error::setting("the layer norms' epsilon", format!("{} is none", self.epsilon)));
        }
        Ok(self)
    }
}
