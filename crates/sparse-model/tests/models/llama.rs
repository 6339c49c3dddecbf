//! The forward pass against llama.cpp and against itself, on tiny models.

use std::sync::Arc;

use serde_json::Value;
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{Error, Model, Session};
use sparse_testdata::{TinyLlama, variants};

fn model(bytes: Vec<u8>, threads: usize) -> Arc<Model> {
    let gguf = Gguf::from_bytes(bytes).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf, threads).expect("a model"))
}

/// All logits of `tokens`, cut into batches of these lengths.
fn logits(model: &Arc<Model>, tokens: &[u32], batches: &[usize]) -> Vec<Vec<f32>> {
    let mut session = Session::new(model, tokens.len()).expect("a session");
    let mut out = Vec::new();
    let mut rest = tokens;
    for batch in batches.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*batch).min(rest.len()));
        session.forward_each(now, |_, l| out.push(l.to_vec())).expect("logits");
        rest = later;
    }
    out
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The golden file is llama.cpp's answer; `tools/reference/make_tiny_logits.py` makes it.
#[test]
fn every_variant_agrees_with_llama_cpp() {
    let golden: Value = serde_json::from_str(include_str!("../data/tiny-logits.json")).expect("JSON");
    let numbers = |v: &Value| v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
    let tokens: Vec<u32> = numbers(&golden["tokens"]).iter().map(|t| *t as u32).collect();
    let variants = variants();
    let expected = golden["variants"].as_array().expect("variants");
    assert_eq!(variants.len(), expected.len(), "the golden file is of other variants");
    let mut failures = Vec::new();
    for ((name, file), expected) in variants.iter().zip(expected) {
        assert_eq!(expected["name"], *name);
        let ours = logits(&model(file.to_bytes(), 1), &tokens, &[tokens.len()]);
        for (row, position) in
            expected["logits"].as_array().unwrap().iter().zip(numbers(&golden["positions"]))
        {
            let row: Vec<f32> = numbers(row).iter().map(|l| *l as f32).collect();
            let difference = largest_difference(&row, &ours[position as usize]);
            // Logits are around 10; both sides round keys and values to half precision, llama.cpp also the
            // activations of half-precision weights. The largest difference seen is 0.012.
            if difference.is_nan() || difference > 2e-2 {
                failures.push(format!("{name}, position {position}: {difference}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// K formats have blocks of 256, so these models are wider than the default.
fn wide(format: BlockFormat) -> TinyLlama {
    TinyLlama { embedding: 256, feed_forward: 512, format, ..TinyLlama::default() }
}

#[test]
fn a_batch_equals_one_token_at_a_time() {
    let tokens: Vec<u32> = (0..70).map(|i| (i * 31 + 5) % 260).collect();
    let mut failures = Vec::new();
    for format in BlockFormat::GGML {
        let model = model(wide(format).build().to_bytes(), 1);
        let single = logits(&model, &tokens, &[1]);
        for batches in [&[70][..], &[1, 2, 3, 5, 8, 13], &[33]] {
            let batched = logits(&model, &tokens, batches);
            let worst =
                single.iter().zip(&batched).map(|(a, b)| largest_difference(a, b)).fold(0.0, f32::max);
            // Kernels may add floats of a batch in another order, which turns some roundings: of activations to
            // int8, of keys and values to half precision. The largest difference seen in floats is 0.0017.
            let allowed = if format.is_quantized() { 0.5 } else { 5e-3 };
            if worst.is_nan() || worst > allowed {
                failures.push(format!("{} in batches of {batches:?}: {worst}", format.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn threads_do_not_change_a_bit() {
    let tokens: Vec<u32> = (0..40).map(|i| (i * 17 + 3) % 260).collect();
    for format in BlockFormat::GGML {
        let bytes = wide(format).build().to_bytes();
        let one = logits(&model(bytes.clone(), 1), &tokens, &[16, 1]);
        for threads in [2, 4] {
            assert_eq!(
                one,
                logits(&model(bytes.clone(), threads), &tokens, &[16, 1]),
                "{format:?} on {threads}"
            );
        }
    }
}

#[test]
fn damaged_models_are_refused_by_name() {
    // With 32 bits the number of heads itself is too large.
    const HEADS: &str = match usize::BITS {
        ..=32 => "llama.attention.head_count",
        _ => "heads of 4 values are more than memory can address",
    };
    type Damage = fn(&mut sparse_testdata::File);
    let cases: [(Damage, &str); 19] = [
        (|f| drop(f.remove("blk.1.ffn_up.weight")), "blk.1.ffn_up.weight"),
        (|f| drop(f.remove("token_embd.weight")), "token_embd.weight"),
        (
            |f| f.tensor_mut("blk.0.attn_k.weight").dims = vec![32, 64],
            "tensor blk.0.attn_k.weight: expected shape",
        ),
        (|f| f.tensor_mut("output_norm.weight").name = "output_norm.wait".into(), "output_norm.weight"),
        (|f| f.tensor_mut("blk.0.ffn_norm.weight").poison(), "tensor blk.0.ffn_norm.weight: value 0 is NaN"),
        (
            |f| drop(f.metadata.insert("general.architecture", "mamba")),
            "architecture \"mamba\" is not supported (supported: llama",
        ),
        (|f| drop(f.metadata.insert("llama.attention.head_count", 0_u32)), "llama.attention.head_count"),
        (|f| drop(f.metadata.insert("llama.attention.head_count_kv", 3_u32)), "3 key-value heads"),
        (|f| drop(f.metadata.insert("llama.attention.key_length", 0_u32)), "key_length: must not be zero"),
        (
            |f| {
                f.metadata.insert("llama.attention.head_count", (1_u64 << 62) + 1);
                f.metadata.insert("llama.attention.head_count_kv", 1_u32);
                f.metadata.insert("llama.attention.key_length", 4_u32);
            },
            HEADS,
        ),
        (|f| drop(f.metadata.insert("llama.block_count", u32::MAX)), "4294967295 layers, expected at most"),
        (|f| drop(f.metadata.insert("llama.block_count", 3_u32)), "blk.2."),
        (
            |f| drop(f.metadata.insert("llama.attention.head_count_kv", vec![2_i32; 3])),
            "llama.attention.head_count_kv: has 3 numbers, but there are 2 layers",
        ),
        (
            |f| drop(f.metadata.insert("llama.feed_forward_length", vec![160_i32, -1])),
            "llama.feed_forward_length: number 1 is -1, not a size",
        ),
        (
            |f| drop(f.metadata.insert("llama.feed_forward_length", vec![160_i32, 128])),
            "tensor blk.1.ffn_gate.weight: expected shape",
        ),
        (
            |f| drop(f.metadata.insert("llama.hidden_activation", "swoosh")),
            "llama.hidden_activation: there is no activation \"swoosh\"",
        ),
        (|f| drop(f.metadata.insert("llama.block_count", "two")), "llama.block_count"),
        (|f| drop(f.metadata.insert("llama.block_count", 1_u32)), "blk.1."),
        (|f| drop(f.metadata.insert("llama.rope.scaling.type", "spiral")), "\"spiral\" is not supported"),
    ];
    for (damage, expected) in cases {
        let mut file = TinyLlama::default().build();
        damage(&mut file);
        let gguf = Gguf::from_bytes(file.to_bytes()).expect("still a GGUF file");
        let error = Model::from_gguf(&gguf, 1).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

/// Sizes may be given per layer, equal or not.
#[test]
fn sizes_per_layer_are_read() {
    let plain = TinyLlama::default().build();
    let mut arrays = plain.clone();
    arrays.metadata.insert("llama.attention.head_count", vec![4_i32; 2]);
    arrays.metadata.insert("llama.attention.head_count_kv", vec![2_i32; 2]);
    arrays.metadata.insert("llama.feed_forward_length", vec![160_u32; 2]);
    let tokens = [1, 2, 3, 4, 5];
    let [plain, arrays] = [&plain, &arrays].map(|f| logits(&model(f.to_bytes(), 1), &tokens, &[5]));
    assert_eq!(plain, arrays);

    // A second layer of another width, cut out of the same weights.
    let mut uneven = TinyLlama { format: BlockFormat::F32, ..TinyLlama::default() }.build();
    uneven.metadata.insert("llama.feed_forward_length", vec![160_i32, 96]);
    for (name, dims) in [("ffn_gate", [64, 96]), ("ffn_up", [64, 96]), ("ffn_down", [96, 64])] {
        let tensor = uneven.tensor_mut(&format!("blk.1.{name}.weight"));
        tensor.data.truncate(4 * 96 * 64);
        tensor.dims = dims.to_vec();
    }
    let model = model(uneven.to_bytes(), 1);
    assert_eq!(model.ffns().map(|f| f.neurons()).collect::<Vec<_>>(), [160, 96]);
    logits(&model, &tokens, &[5]);
}

#[test]
fn nan_weights_are_an_error_at_the_first_token() {
    for name in ["blk.0.ffn_down.weight", "blk.1.attn_v.weight", "token_embd.weight"] {
        let mut file = TinyLlama::default().build();
        file.tensor_mut(name).poison();
        let model = model(file.to_bytes(), 1);
        let mut session = Session::new(&model, 8).unwrap();
        assert!(matches!(session.forward(&[0, 1]), Err(Error::NotFinite { .. })), "{name}");
    }
}
