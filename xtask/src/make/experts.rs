//! Shapes of mixtures of experts. All experts are equally likely.

use sparse_gguf::{BlockFormat, Metadata};

use super::{Family, LLAMA, Shape};

/// What all of them share.
fn shape(family: Family) -> Shape {
    Shape {
        layers: 0,
        width: 0,
        feed_forward: 0,
        heads: 0,
        kv_heads: 0,
        vocabulary: 32000,
        context: 2048,
        // As large as what layers add to it, so that tokens and their experts differ.
        embedding: 1.0,
        neuron_major: false,
        idle: None,
        family,
    }
}

/// OLMoE-1B-7B's layers.
pub(super) fn olmoe() -> Shape {
    let family = Family { name: "olmoe", experts: Some((64, 8)), qk_norms: true, ..LLAMA };
    Shape { layers: 16, width: 2048, feed_forward: 1024, heads: 16, kv_heads: 16, ..shape(family) }
}

/// gpt-oss-20b's layers.
pub(super) fn gpt_oss() -> Shape {
    let family = Family {
        name: "gpt-oss",
        head_dim: Some(64),
        ffn_norm: "post_attention_norm",
        biases: &[
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate_inp",
            "ffn_gate_exps",
            "ffn_up_exps",
            "ffn_down_exps",
        ],
        sinks: true,
        experts: Some((32, 4)),
        expert_format: Some(BlockFormat::MxFp4),
        keys: gpt_oss_keys,
        ..LLAMA
    };
    Shape {
        layers: 24,
        width: 2880,
        feed_forward: 2880,
        heads: 64,
        kv_heads: 8,
        context: 131_072,
        ..shape(family)
    }
}

fn gpt_oss_keys(m: &mut Metadata) {
    m.insert("gpt-oss.expert_feed_forward_length", 2880_u32);
    m.insert("gpt-oss.attention.sliding_window", 128_u32);
    m.insert("gpt-oss.rope.freq_base", 150_000.0_f32);
    m.insert("gpt-oss.rope.scaling.type", "yarn");
    m.insert("gpt-oss.rope.scaling.factor", 32.0_f32);
    m.insert("gpt-oss.rope.scaling.original_context_length", 4096_u32);
    m.insert("gpt-oss.rope.scaling.yarn_beta_fast", 32.0_f32);
    m.insert("gpt-oss.rope.scaling.yarn_beta_slow", 1.0_f32);
}
