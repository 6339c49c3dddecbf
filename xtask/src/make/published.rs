//! Shapes of published models that were trained to have zeros, with as many as their publishers state.
//!
//! Sizes are from the models' configurations, zeros from papers and cards. Where none are published,
//! the share is that of other models with the same activation.

use sparse_gguf::BlockFormat;

use super::{Family, Idle, LLAMA, Shape};

/// Directions that gates listen to. Nobody has published how many matter in trained models.
const RANK: usize = 64;

/// Spread of the neurons' shares with which 26 % of them make 80 % of what is active, as in OPT-30B (Song et al. 2023,
/// arXiv 2312.12456): `phi(SPREAD - phi^-1(0.74)) = 0.8`.
pub(super) const SPREAD: f64 = 1.485;

/// What all of them share.
fn shape(density: f64, family: Family) -> Shape {
    Shape {
        layers: 0,
        width: 0,
        feed_forward: 0,
        heads: 0,
        kv_heads: 0,
        vocabulary: 0,
        context: 2048,
        // As large as what layers add, so that tokens differ and with them the active sets.
        embedding: 1.0,
        neuron_major: false,
        idle: Some(Idle { rank: RANK, densities: vec![density], spread: 0.0 }),
        family,
    }
}

/// SakanaAI's SparseLM2B: 95 to 99 % zeros (Cetin et al. 2026, arXiv 2603.23198).
pub(super) fn sparselm() -> Shape {
    let family = Family { activation: Some("relu"), tied: true, ..LLAMA };
    Shape {
        layers: 38,
        width: 2048,
        feed_forward: 5632,
        heads: 32,
        kv_heads: 32,
        vocabulary: 49152,
        ..shape(0.03, family)
    }
}

/// SparseQwen2-7B, whose gate and up both end in a ReLU: the zeros of TurboSparse's models, 90 % (Song et
/// al. 2024, arXiv 2406.05955).
pub(super) fn sparseqwen2() -> Shape {
    let biases = &["attn_q", "attn_k", "attn_v"];
    let family = Family { name: "qwen2", activation: Some("drelu"), biases, ..LLAMA };
    Shape {
        layers: 28,
        width: 3584,
        feed_forward: 18944,
        heads: 28,
        kv_heads: 4,
        vocabulary: 152_064,
        ..shape(0.1, family)
    }
}

/// Arcee's AFM-4.5B, without gates: no figure is published; squared ReLU elsewhere leaves 85 % zeros
/// (Haziza et al. 2025, arXiv 2503.16672).
pub(super) fn afm() -> Shape {
    let family = Family { name: "arcee", gated: false, ..LLAMA };
    Shape {
        layers: 36,
        width: 2560,
        feed_forward: 18432,
        heads: 20,
        kv_heads: 4,
        vocabulary: 128_000,
        ..shape(0.15, family)
    }
}

/// Microsoft's BitNet b1.58 2B4T, whose embedding is F16 and the head: 80 % zeros (Wang et al. 2024, arXiv
/// 2411.04965).
pub(super) fn bitnet() -> Shape {
    let embedding_format = Some(BlockFormat::F16);
    let family = Family { name: "bitnet", sub_norms: true, tied: true, embedding_format, ..LLAMA };
    Shape {
        layers: 30,
        width: 2560,
        feed_forward: 6912,
        heads: 20,
        kv_heads: 5,
        vocabulary: 128_256,
        ..shape(0.2, family)
    }
}

/// SmallThinker-4B-A0.6B as if the four experts that a token uses were one layer: 60 % of their neurons
/// are zero (Song et al. 2025, arXiv 2507.20984). Heads and layers are not the published ones for certain.
pub(super) fn smallthinker() -> Shape {
    let family = Family { activation: Some("relu"), ..LLAMA };
    Shape {
        layers: 32,
        width: 1536,
        feed_forward: 4 * 768,
        heads: 12,
        kv_heads: 2,
        vocabulary: 151_936,
        ..shape(0.4, family)
    }
}

/// No published model, but their kind: zeros as in SparseLM2B, hot neurons as in OPT-30B, and little beside the
/// feed-forward layers.
pub(super) fn hot() -> Shape {
    let shape = shape(0.03, Family { activation: Some("relu"), ..LLAMA });
    Shape {
        layers: 24,
        width: 2048,
        feed_forward: 16384,
        heads: 32,
        kv_heads: 4,
        vocabulary: 8192,
        idle: shape.idle.map(|idle| Idle { spread: SPREAD, ..idle }),
        ..shape
    }
}
