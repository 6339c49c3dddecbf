//! What a GGUF file holds, counted.

use serde::Serialize;
use sparse_gguf::{Gguf, Metadata, TensorInfo};

/// Tensors of one kind, counted.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) tensors: usize,
    pub(super) weights: u64,
    pub(super) bytes: u64,
}

impl Group {
    pub(super) fn bits_per_weight(&self) -> f64 {
        match self.weights {
            0 => 0.0,
            n => self.bytes as f64 * 8.0 / n as f64,
        }
    }

    fn add(&mut self, tensor: &TensorInfo) {
        self.tensors += 1;
        self.weights += tensor.elements() as u64;
        self.bytes += tensor.range().len() as u64;
    }
}

/// A file at a glance.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) gguf_version: u32,
    pub(super) architecture: Option<String>,
    pub(super) name: Option<String>,
    pub(super) file_bytes: u64,
    /// Files that the model is in.
    pub(super) files: usize,
    /// Facts from the metadata: label and value.
    #[serde(skip)]
    pub(super) facts: Vec<(&'static str, String)>,
    /// The head is the embedding; known for models that have an embedding.
    pub(super) tied_head: Option<bool>,
    pub(super) total: Group,
    pub(super) parts: Vec<Group>,
    pub(super) types: Vec<Group>,
    /// Weight bytes that decoding one token reads, for models that decode.
    pub(super) bytes_per_token: Option<u64>,
}

impl Summary {
    pub(super) fn new(gguf: &Gguf) -> Self {
        let meta = gguf.metadata();
        let text = |key| meta.opt_string(key).ok().flatten().map(str::to_owned);
        let architecture = text("general.architecture");
        let mut total = Group { name: "total".into(), ..Group::default() };
        gguf.tensors().for_each(|t| total.add(t));
        let mut types = groups(gguf, |t| t.ty.to_string());
        types.sort_by_key(|g| std::cmp::Reverse(g.bytes));
        let mut parts = groups(gguf, |t| part(&t.name).into());
        parts.sort_by_key(|g| PARTS.iter().position(|p| *p == g.name));
        let has_embedding = gguf.info(EMBEDDING).is_some();
        Self {
            gguf_version: gguf.version(),
            name: text("general.name"),
            file_bytes: gguf.file_len() as u64,
            files: gguf.parts(),
            facts: facts(meta, architecture.as_deref().unwrap_or_default()),
            tied_head: has_embedding.then(|| gguf.info(HEAD).is_none()),
            total,
            parts,
            types,
            bytes_per_token: bytes_per_token(gguf, architecture.as_deref().unwrap_or_default()),
            architecture,
        }
    }
}

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// Tensors grouped by what `key` says, in the order in which the groups appear.
fn groups(gguf: &Gguf, key: impl Fn(&TensorInfo) -> String) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for tensor in gguf.tensors() {
        let name = key(tensor);
        let at = groups.iter().position(|g| g.name == name).unwrap_or_else(|| {
            groups.push(Group { name, ..Group::default() });
            groups.len() - 1
        });
        groups[at].add(tensor);
    }
    groups
}

/// Parts in the order in which a token meets them.
const PARTS: [&str; 6] = ["embedding", "attention", "feed-forward", "norms", "head", "other"];

/// The part of the model, one of [`PARTS`], that a tensor belongs to, by the names that GGUF files use.
fn part(name: &str) -> &'static str {
    match name {
        _ if name.contains("_norm") => "norms",
        _ if name.contains("attn_") || name.contains("shortconv") || name.contains("ssm_") => "attention",
        _ if name.contains("ffn_") => "feed-forward",
        _ if name.starts_with("output.") => "head",
        _ if name.contains("_embd") || name == "token_types.weight" => "embedding",
        _ => "other",
    }
}

/// All matrices, but an embedding that is not the head as well (one row of it is read), and of experts those that
/// are used.
fn bytes_per_token(gguf: &Gguf, architecture: &str) -> Option<u64> {
    let meta = gguf.metadata();
    let key = |name: &str| format!("{architecture}.{name}");
    let is_encoder = meta.opt_bool(&key("attention.causal")).ok().flatten() == Some(false);
    if gguf.info(EMBEDDING).is_none() || is_encoder {
        return None;
    }
    let tied = gguf.info(HEAD).is_none();
    let count = |name| meta.opt_u64(&key(name)).ok().flatten().filter(|n| *n > 0);
    let experts = count("expert_count").zip(count("expert_used_count"));
    let read = |t: &TensorInfo| {
        let bytes = t.range().len() as u64;
        match experts {
            _ if t.dims.len() < 2 || (t.name == EMBEDDING && !tied) => 0,
            Some((all, used)) if t.name.contains("_exps") => bytes / all * used.min(all),
            _ => bytes,
        }
    };
    Some(gguf.tensors().map(read).sum())
}

fn facts(meta: &Metadata, architecture: &str) -> Vec<(&'static str, String)> {
    let value = |key: &str| meta.get(&key.replace("ARCH", architecture));
    let shown = |key: &str| value(key).map(|v| v.to_string().trim_matches('"').to_owned());
    let joined = |parts: &[Option<String>]| {
        let parts: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let vocabulary =
        meta.opt_strings("tokenizer.ggml.tokens").ok().flatten().map(|t| format!("{} tokens", t.len()));
    let heads = |key, what: &str| shown(key).map(|n| format!("{n} {what}"));
    let chat = value("tokenizer.chat_template").map(|_| "in the file".to_owned());
    [
        ("layers", shown("ARCH.block_count")),
        ("width", shown("ARCH.embedding_length")),
        ("neurons", shown("ARCH.feed_forward_length").map(|n| format!("{n} per layer"))),
        (
            "experts",
            joined(&[
                heads("ARCH.expert_count", "per layer"),
                heads("ARCH.expert_used_count", "used by a token"),
                heads("ARCH.expert_feed_forward_length", "neurons each"),
            ]),
        ),
        (
            "heads",
            joined(&[
                heads("ARCH.attention.head_count", "query"),
                heads("ARCH.attention.head_count_kv", "key-value"),
            ]),
        ),
        ("context", shown("ARCH.context_length").map(|n| format!("{n} tokens"))),
        ("tokenizer", joined(&[shown("tokenizer.ggml.model"), shown("tokenizer.ggml.pre"), vocabulary])),
        ("chat template", chat),
        ("license", shown("general.license")),
    ]
    .into_iter()
    .filter_map(|(label, value)| Some((label, value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_by_name() {
        for (name, expected) in [
            ("token_embd.weight", "embedding"),
            ("position_embd.weight", "embedding"),
            ("token_embd_norm.weight", "norms"),
            ("blk.0.attn_norm.weight", "norms"),
            ("blk.3.attn_q.weight", "attention"),
            ("blk.3.attn_output.weight", "attention"),
            ("blk.3.attn_q_norm.weight", "norms"),
            ("blk.12.ffn_gate_exps.weight", "feed-forward"),
            ("blk.12.ffn_norm.weight", "norms"),
            ("output_norm.weight", "norms"),
            ("output.weight", "head"),
            ("rope_freqs.weight", "other"),
        ] {
            assert_eq!(part(name), expected, "{name}");
        }
    }
}
