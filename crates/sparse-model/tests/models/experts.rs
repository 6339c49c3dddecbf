//! Mixtures of experts: what the tests of all architectures do not ask.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{FeedForward, Model, Session};
use sparse_testdata::{File, Tensor, TinyLlama};

fn tiny() -> TinyLlama {
    TinyLlama { experts: Some((6, 2)), ..TinyLlama::default() }
}

fn gguf(file: &File) -> Gguf {
    Gguf::from_bytes(file.to_bytes()).expect("a GGUF file")
}

/// Logits after every token of a text.
fn logits(model: Model, batch: usize) -> Vec<Vec<u32>> {
    let tokens: Vec<u32> = (0..60).map(|t| (t * 37 + 3) % model.vocab_len() as u32).collect();
    let mut session = Session::new(&Arc::new(model), 64).expect("a session");
    let mut out = Vec::new();
    for batch in tokens.chunks(batch) {
        session
            .forward_each(batch, |_, l| out.push(l.iter().map(|l| l.to_bits()).collect()))
            .expect("logits");
    }
    out
}

#[test]
fn threads_change_nothing() {
    let wide = TinyLlama { embedding: 256, feed_forward: 256, format: BlockFormat::Q4_0, ..tiny() };
    for file in [tiny().build(), wide.build()] {
        let run = |threads, batch| {
            let mut model = Model::from_gguf(&gguf(&file), threads).expect("a model");
            model.interleave();
            logits(model, batch)
        };
        for batch in [1, 60] {
            let one = run(1, batch);
            for threads in [2, 3] {
                assert!(run(threads, batch) == one, "{threads} threads, batches of {batch}");
            }
        }
    }
}

/// The work of a token is that of the experts it uses.
#[test]
fn a_token_uses_some_of_the_neurons() {
    let model = Arc::new(Model::from_gguf(&gguf(&tiny().build()), 1).expect("a model"));
    let mut session = Session::new(&model, 8).expect("a session");
    for token in [5, 6, 7] {
        session.forward(&[token]).expect("logits");
    }
    for (layer, counts) in model.feed_forwards().zip(session.ffn_counts()) {
        assert!(matches!(layer, FeedForward::Experts(_)));
        assert_eq!((layer.neurons(), counts.tokens, counts.down), (6 * 160, 3, 3 * 2 * 160));
        assert_eq!(counts.bytes, 3 * layer.bytes() as u64);
    }
    assert_eq!(session.bytes_per_token(), model.bytes_per_token());
}

/// Zeros inside of experts are left out as in other networks.
#[test]
fn experts_of_relu_leave_out_zeros() {
    let file = TinyLlama { activation: Some("relu"), ..tiny() }.build();
    let mut sparse = Model::from_gguf(&gguf(&file), 1).expect("a model");
    for ffn in sparse.ffns_mut() {
        ffn.set_selector(Selector::ExactZero).expect("zeros");
    }
    let dense = logits(Model::from_gguf(&gguf(&file), 1).expect("a model"), 1);
    let model = Arc::new(sparse);
    let mut session = Session::new(&model, 64).expect("a session");
    for (t, expected) in (0..60).zip(&dense) {
        let found = session.forward(&[(t * 37 + 3) % model.vocab_len() as u32]).expect("logits");
        assert!(found.iter().map(|l| l.to_bits()).eq(expected.iter().copied()), "token {t}");
    }
    let counts = session.ffn_counts()[0];
    assert!(counts.down < counts.gate * 3 / 4 && counts.up < counts.gate, "{counts:?}");
}

/// One tensor for gate and up of every expert is the same as two.
#[test]
fn gate_and_up_may_be_one_tensor() {
    let mut file = tiny().build();
    let expected = logits(Model::from_gguf(&gguf(&file), 1).expect("a model"), 60);
    merge_gate_and_up(&mut file);
    assert!(logits(Model::from_gguf(&gguf(&file), 1).expect("a model"), 60) == expected);
}

/// Makes one tensor of gate and up in every layer, and one of their biases, if there are any.
pub(crate) fn merge_gate_and_up(file: &mut File) {
    let gates = file.tensors.iter().filter(|tensor| tensor.name.contains(".ffn_gate_exps."));
    let gates: Vec<String> = gates.map(|tensor| tensor.name.clone()).collect();
    for name in gates {
        let [gate, up] = [name.clone(), name.replace("gate", "up")].map(|name| file.remove(&name));
        let mut dims = gate.dims.clone();
        let [.., rows, experts] = &mut dims[..] else { panic!("{name} has {dims:?}") };
        let expert = gate.data.len() / *experts;
        *rows *= 2;
        let data = gate.data.chunks(expert).zip(up.data.chunks(expert)).flat_map(|(g, u)| [g, u].concat());
        let name = name.replace("gate", "gate_up");
        file.tensors.push(Tensor { name, dims, format: gate.format, data: data.collect() });
    }
}

#[test]
fn faults_are_named() {
    type Damage = fn(&mut File);
    let cases: [(Damage, &str); 8] = [
        (|f| drop(f.remove("blk.1.ffn_up_exps.weight")), "blk.1.ffn_up_exps.weight"),
        (|f| drop(f.remove("blk.0.ffn_gate_inp.weight")), "blk.0.ffn_gate_inp.weight"),
        (
            |f| f.tensor_mut("blk.0.ffn_down_exps.weight").dims.swap(0, 1),
            "tensor blk.0.ffn_down_exps.weight: expected shape",
        ),
        (
            |f| drop(f.metadata.insert("llama.expert_count", 5_u32)),
            "tensor blk.0.ffn_gate_inp.weight: expected shape",
        ),
        (
            |f| drop(f.metadata.insert("llama.expert_used_count", 7_u32)),
            "llama.expert_used_count: 7 experts for a token, but there are 6",
        ),
        (
            |f| drop(f.metadata.insert("llama.expert_gating_func", 4_u32)),
            "llama.expert_gating_func: 4 is not supported",
        ),
        (
            |f| drop(f.metadata.insert("llama.expert_count", 1_u32 << 20)),
            "llama.expert_count: 1048576 experts, expected at most 4096",
        ),
        (|f| f.tensor_mut("blk.1.ffn_gate_inp.weight").dims[1] = 3, "blk.1.ffn_gate_inp.weight"),
    ];
    for (damage, expected) in cases {
        let mut file = tiny().build();
        damage(&mut file);
        for tensor in &mut file.tensors {
            // As long as its shape says.
            let elements: usize = tensor.dims.iter().product();
            if tensor.format == BlockFormat::Q8_0 {
                tensor.data.truncate(elements / 32 * 34);
            }
        }
        let error = Model::from_gguf(&gguf(&file), 1).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}
