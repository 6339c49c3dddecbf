//! gpt-oss as its files are, with experts in MXFP4.

use std::sync::Arc;

use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{Error, KvFormat, Model};
use sparse_testdata::File;

use crate::architectures::{Golden, distance, file};

/// Products with MXFP4 round their inputs to eight bits: this share of the largest logit at most.
const EIGHT_BITS: f32 = 0.05;

fn model(file: &File, threads: usize) -> Result<Arc<Model>, Error> {
    let mut model = Model::from_gguf(&Gguf::from_bytes(file.to_bytes()).expect("a GGUF file"), threads)?;
    model.interleave();
    Ok(Arc::new(model))
}

#[test]
fn experts_in_mxfp4_differ_by_the_rounding_of_their_inputs() {
    let golden = Golden::named("gpt-oss");
    let file = file("gpt-oss");
    assert_eq!(file.tensor("blk.1.ffn_down_exps.weight").format, BlockFormat::MxFp4);
    let found = golden.logits(&model(&file, 1).unwrap(), KvFormat::F32, &[1]);
    for (position, expected) in &golden.rows {
        let distance = distance(&found[*position], expected);
        assert!(distance < EIGHT_BITS, "at {position}: {distance}");
    }
}

#[test]
fn threads_change_nothing() {
    let (golden, file) = (Golden::named("gpt-oss"), file("gpt-oss"));
    for batches in [&[1][..], &[56], &[9, 1, 20]] {
        let run = |threads| golden.logits(&model(&file, threads).unwrap(), KvFormat::F16, batches);
        let expected = run(1);
        assert!((2..4).all(|threads| run(threads) == expected), "batches of {batches:?}");
    }
}

/// A sink takes a share of the softmax: nothing of it if it is far below the scores, all if it is far above.
#[test]
fn sinks_of_any_size_give_finite_logits() {
    let golden = Golden::named("gpt-oss");
    let logits = |sink: Option<f32>| {
        let mut file = file("gpt-oss");
        for tensor in file.tensors.iter_mut().filter(|t| t.name.ends_with("attn_sinks.weight")) {
            if let Some(sink) = sink {
                tensor.data = [sink; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
            }
        }
        golden.logits(&model(&file, 1).unwrap(), KvFormat::F32, &[56])
    };
    let [trained, low, lower, high] = [None, Some(-1e4), Some(-1e30), Some(1e30)].map(logits);
    assert!([&low, &high].iter().all(|logits| logits.iter().flatten().all(|l| l.is_finite())));
    assert!(low == lower && low != trained && high != trained && low != high);
}

/// Each fault is named, with the tensor or key that has it.
#[test]
fn faults_are_named() {
    type Damage = fn(&mut File);
    let cases: [(Damage, &str); 10] = [
        (|f| drop(f.remove("blk.1.attn_sinks.weight")), "blk.1.attn_sinks.weight"),
        (
            |f| {
                let sinks = f.tensor_mut("blk.0.attn_sinks.weight");
                sinks.dims = vec![3];
                sinks.data.truncate(12);
            },
            "tensor blk.0.attn_sinks.weight: expected shape [4], found [3]",
        ),
        (
            |f| f.tensor_mut("blk.0.attn_sinks.weight").poison(),
            "tensor blk.0.attn_sinks.weight: value 0 is NaN, not a finite number",
        ),
        (
            |f| f.tensor_mut("blk.1.ffn_up_exps.bias").dims.swap(0, 1),
            "tensor blk.1.ffn_up_exps.bias: expected shape [64, 6], found [6, 64]",
        ),
        (
            |f| f.tensor_mut("blk.1.ffn_down_exps.bias").poison(),
            "tensor blk.1.ffn_down_exps.bias: value 0 is NaN",
        ),
        (
            |f| f.tensor_mut("blk.0.ffn_gate_exps.weight").dims.swap(0, 1),
            "tensor blk.0.ffn_gate_exps.weight: expected shape [32, 64, 6]",
        ),
        (|f| drop(f.remove("blk.0.post_attention_norm.weight")), "blk.0.post_attention_norm.weight"),
        (
            |f| drop(f.metadata.insert("gpt-oss.expert_used_count", 9_u32)),
            "gpt-oss.expert_used_count: 9 experts for a token, but there are 6",
        ),
        (
            |f| drop(f.metadata.insert("gpt-oss.attention.sliding_window_pattern", vec![true; 3])),
            "gpt-oss.attention.sliding_window_pattern: has 3 values, but there are 2 layers",
        ),
        (
            |f| drop(f.metadata.insert("gpt-oss.rope.scaling.factor", -1.0_f32)),
            "gpt-oss.rope.scaling.factor: -1 is not a positive number",
        ),
    ];
    for (damage, expected) in cases {
        let mut file = file("gpt-oss");
        damage(&mut file);
        let error = model(&file, 1).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}
