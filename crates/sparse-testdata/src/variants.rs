//! Models that between them use everything the llama architecture can vary in.

use sparse_gguf::BlockFormat;

use crate::{File, Tensor, TinyLlama, Vocabulary};

/// The variants by name, in F32 but for the K formats, so that two implementations agree to rounding.
pub fn variants() -> Vec<(&'static str, File)> {
    let base = TinyLlama { format: BlockFormat::F32, ..TinyLlama::default() };
    let with = |change: &dyn Fn(&mut File)| {
        let mut file = base.build();
        change(&mut file);
        file
    };
    let bias = |file: &mut File, name: &str, len: usize| {
        let values: Vec<f32> = (0..len).map(|i| ((i * 7 + name.len()) % 11) as f32 / 20.0 - 0.25).collect();
        file.tensors.push(Tensor::new(format!("{name}.bias"), &[len], BlockFormat::F32, &values));
    };
    vec![
        ("grouped-query attention, tied head", base.build()),
        ("one key per query, own head", TinyLlama { kv_heads: 4, tied: false, ..base.clone() }.build()),
        ("one key for all queries", TinyLlama { kv_heads: 1, ..base.clone() }.build()),
        ("SentencePiece vocabulary", TinyLlama { vocabulary: Vocabulary::Llama, ..base.clone() }.build()),
        ("half precision", TinyLlama { format: BlockFormat::F16, ..base.clone() }.build()),
        (
            "rotary scaling: linear",
            with(&|f| {
                f.metadata.insert("llama.rope.scaling.type", "linear");
                f.metadata.insert("llama.rope.scaling.factor", 4.0_f32);
            }),
        ),
        (
            "rotary scaling: yarn",
            with(&|f| {
                f.metadata.insert("llama.rope.scaling.type", "yarn");
                f.metadata.insert("llama.rope.scaling.factor", 8.0_f32);
                f.metadata.insert("llama.rope.scaling.original_context_length", 32_u32);
            }),
        ),
        (
            "rotary scaling: divisors",
            with(&|f| {
                let divisors: Vec<f32> = (0..8).map(|i| 1.0 + i as f32).collect();
                f.tensors.push(Tensor::new("rope_freqs.weight", &[8], BlockFormat::F32, &divisors));
            }),
        ),
        (
            "biases",
            with(&|f| {
                for i in 0..2 {
                    for (name, len) in [("attn_q", 64), ("attn_k", 32), ("attn_v", 32), ("attn_output", 64)] {
                        bias(f, &format!("blk.{i}.{name}"), len);
                    }
                    for (name, len) in [("ffn_gate", 160), ("ffn_up", 160), ("ffn_down", 64)] {
                        bias(f, &format!("blk.{i}.{name}"), len);
                    }
                }
            }),
        ),
    ]
}
