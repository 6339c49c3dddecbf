//! Tiny BERT encoders: as a sentence-transformers folder and as a GGUF file.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, iter};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use sparse_gguf::{BlockFormat, Metadata};

use crate::{File, Tensor};

/// A BERT encoder to be made; every field has a small default.
#[derive(Clone, Debug)]
pub struct TinyBert {
    /// Layers.
    pub layers: usize,
    /// Width.
    pub embedding: usize,
    /// Neurons per feed-forward layer.
    pub feed_forward: usize,
    /// Attention heads.
    pub heads: usize,
    /// Positions.
    pub positions: usize,
    /// Seed of the weights: same seed, same bytes.
    pub seed: u64,
}

impl Default for TinyBert {
    fn default() -> Self {
        Self { layers: 2, embedding: 64, feed_forward: 96, heads: 4, positions: 48, seed: 1 }
    }
}

/// Epsilon of the layer norms.
pub const BERT_EPSILON: f32 = 1e-12;

/// The vocabulary: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, some words, and all letters and digits, beginning a word or
/// continuing one.
pub fn word_pieces() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[unused0]"].map(str::to_owned);
    let words =
        ["the", "cat", "sat", "on", "mat", "##s", "##ing", ".", ",", "!", "\u{6f22}"].map(str::to_owned);
    let characters = || ('a'..='z').chain('0'..='9');
    let single = characters().map(String::from).chain(characters().map(|c| format!("##{c}")));
    let mut pieces: Vec<String> = Vec::new();
    for piece in special.into_iter().chain(words).chain(single) {
        if !pieces.contains(&piece) {
            pieces.push(piece);
        }
    }
    pieces
}

impl TinyBert {
    /// The tensors in F32, by the names that llama.cpp gives them.
    pub fn tensors(&self) -> Vec<Tensor> {
        let (width, hidden) = (self.embedding, self.feed_forward);
        let mut tensors = Vec::new();
        let mut random = |name: String, dims: &[usize], distribution| {
            let stream = tensors.len() as u64;
            tensors.push(Tensor::random(name, dims, BlockFormat::F32, distribution, self.seed, stream));
        };
        for (name, rows) in
            [("token_embd", word_pieces().len()), ("position_embd", self.positions), ("token_types", 2)]
        {
            random(format!("{name}.weight"), &[width, rows], (0.0, 0.5));
        }
        for i in 0..self.layers {
            for (name, rows, cols) in [
                ("attn_q", width, width),
                ("attn_k", width, width),
                ("attn_v", width, width),
                ("attn_output", width, width),
                ("ffn_up", hidden, width),
                ("ffn_down", width, hidden),
            ] {
                let deviation = 2.0 / (cols as f32).sqrt();
                random(format!("blk.{i}.{name}.weight"), &[cols, rows], (0.0, deviation));
                random(format!("blk.{i}.{name}.bias"), &[rows], (0.0, 0.3));
            }
        }
        let norms = (0..self.layers)
            .flat_map(|i| ["attn_output_norm", "layer_output_norm"].map(|n| format!("blk.{i}.{n}")));
        for name in norms.chain(iter::once("token_embd_norm".to_owned())) {
            random(format!("{name}.weight"), &[width], (1.0, 0.1));
            random(format!("{name}.bias"), &[width], (0.0, 0.1));
        }
        tensors
    }

    /// The model as a GGUF file.
    pub fn gguf(&self) -> File {
        let mut m = Metadata::new();
        m.insert("general.architecture", "bert");
        for (key, n) in [
            ("block_count", self.layers),
            ("embedding_length", self.embedding),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("context_length", self.positions),
            ("pooling_type", 1),
        ] {
            m.insert(format!("bert.{key}"), n as u32);
        }
        m.insert("bert.attention.layer_norm_epsilon", BERT_EPSILON);
        m.insert("bert.attention.causal", false);
        m.insert("tokenizer.ggml.model", "bert");
        m.insert("tokenizer.ggml.token_type_count", 2u32);
        // Type 3 is control, 1 is normal.
        let types: Vec<i32> = (0..word_pieces().len()).map(|id| if id < 4 { 3 } else { 1 }).collect();
        m.insert("tokenizer.ggml.token_type", types);
        let phantom = |(id, piece): (usize, String)| match piece.strip_prefix("##") {
            _ if id < 4 => piece,
            Some(rest) => rest.to_owned(),
            None => format!("\u{2581}{piece}"),
        };
        let tokens: Vec<String> = word_pieces().into_iter().enumerate().map(phantom).collect();
        m.insert("tokenizer.ggml.tokens", tokens);
        for (key, id) in [("unknown", 1u32), ("cls", 2), ("seperator", 3)] {
            m.insert(format!("tokenizer.ggml.{key}_token_id"), id);
        }
        File { metadata: m, tensors: self.tensors() }
    }

    /// Writes the model as a sentence-transformers folder: mean pooling, normalized, texts cut down to 32 tokens.
    pub fn write_folder(&self, folder: &Path) {
        fs::create_dir_all(folder.join("1_Pooling")).expect("a folder that can be written");
        for (name, value) in [
            ("config.json", self.config()),
            ("tokenizer.json", tokenizer()),
            ("modules.json", modules()),
            ("sentence_bert_config.json", json!({"max_seq_length": 32, "do_lower_case": false})),
            (
                "1_Pooling/config.json",
                json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}),
            ),
        ] {
            fs::write(folder.join(name), value.to_string()).expect("a folder that can be written");
        }
        write_safetensors(&folder.join("model.safetensors"), "", &self.tensors());
    }

    fn config(&self) -> Value {
        json!({
            "model_type": "bert",
            "hidden_size": self.embedding,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "hidden_act": "gelu",
            "layer_norm_eps": f64::from(BERT_EPSILON),
            "max_position_embeddings": self.positions,
            "type_vocab_size": 2,
            "vocab_size": word_pieces().len(),
            "position_embedding_type": "absolute",
        })
    }
}

fn modules() -> Value {
    json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])
}

fn tokenizer() -> Value {
    let pieces = word_pieces();
    let special = |id: usize| {
        json!({
            "id": id, "content": pieces[id], "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        // Real files come with both of these; the loader is to overrule them.
        "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": pieces.iter().enumerate().map(|(id, p)| (p.clone(), id.into())).collect::<Map<_, _>>(),
        },
    })
}

/// Writes `tensors` in F32, F16 or BF16 under the names that the transformers library gives them, behind `prefix`.
pub fn write_safetensors(path: &Path, prefix: &str, tensors: &[Tensor]) {
    let views = tensors.iter().map(|t| {
        let dtype = match t.format {
            BlockFormat::F32 => Dtype::F32,
            BlockFormat::F16 => Dtype::F16,
            BlockFormat::Bf16 => Dtype::BF16,
            other => panic!("no safetensors type for {}", other.name()),
        };
        let shape = t.dims.iter().rev().copied().collect();
        let view = TensorView::new(dtype, shape, &t.data).expect("data as long as the shape says");
        (format!("{prefix}{}", transformers_name(&t.name)), view)
    });
    safetensors::serialize_to_file(views, None::<HashMap<_, _>>, path).expect("a folder that can be written");
}

/// What transformers calls a tensor; names that llama.cpp does not know stay as they are.
fn transformers_name(name: &str) -> String {
    let mut name = name.to_owned();
    for (ours, theirs) in [
        ("token_embd_norm", "embeddings.LayerNorm"),
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("blk.", "encoder.layer."),
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("attn_output", "attention.output.dense"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ] {
        name = name.replace(ours, theirs);
    }
    name
}
