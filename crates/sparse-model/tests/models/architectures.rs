//! Every architecture against transformers, on tiny random models.
//!
//! `tools/reference/make_architectures.py` makes the files, with llama.cpp's converter, and the
//! golden values.

use std::sync::Arc;

use serde_json::Value;
use sparse_core::{Activations, BatchMode, FfnScratch, Selector};
use sparse_gguf::{BlockFormat, Gguf, Metadata};
use sparse_model::sidecar::HeadScreen;
use sparse_model::{
    Error, FfnActivation, KvFormat, Model, ModelOptions, Sampler, SamplerConfig, Session, SessionOptions,
};
use sparse_testdata::{File, Tensor, TinyLlama};

/// Two implementations in single precision differ by this share of the largest logit at most.
const TOLERANCE: f32 = 1e-3;
/// A batch and single tokens differ by the order of additions alone.
const ROUNDING: f32 = 1e-5;

/// Models as a part of this program, for targets without files.
macro_rules! models {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../data/arch/", $name, ".gguf")))),*]
    };
}

static MODELS: &[(&str, &[u8])] = models! {
    "arcee"
    "bitnet"
    "ernie4_5"
    "exaone4"
    "exaone4-window"
    "gemma3"
    "gpt-oss"
    "granite"
    "granitemoe"
    "granitemoe-shared"
    "lfm2"
    "lfm2moe"
    "llama"
    "llama-relu"
    "minicpm"
    "mistral"
    "mixtral"
    "nemotron"
    "olmo2"
    "olmo3"
    "olmoe"
    "phi3"
    "phi3-long"
    "qwen2"
    "qwen3"
    "qwen3moe"
    "smallthinker"
    "smallthinker-softmax"
    "smollm3"
};

/// The file of a model, to be changed.
pub(crate) fn file(name: &str) -> File {
    let (_, bytes) = MODELS.iter().find(|(found, _)| *found == name).expect(name);
    File::from_gguf(&Gguf::from_bytes(bytes.to_vec()).expect("a GGUF file"))
}

/// A model and what transformers makes of a prompt.
pub(crate) struct Golden {
    name: String,
    /// The prompt, and its greedy continuation.
    tokens: Vec<u32>,
    prompt: usize,
    /// Places in `tokens`, and the logits after each.
    pub(crate) rows: Vec<(usize, Vec<f32>)>,
}

impl Golden {
    fn all() -> Vec<Self> {
        let file: Value = serde_json::from_str(include_str!("../data/arch/golden.json")).expect("JSON");
        let numbers =
            |v: &Value| v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect::<Vec<_>>();
        let ids = |v: &Value| numbers(v).iter().map(|n| *n as u32).collect::<Vec<_>>();
        let positions = ids(&file["positions"]);
        let models = file["models"].as_object().expect("models");
        let of = |(name, values): (&String, &Value)| {
            let rows = values["logits"].as_array().unwrap().iter().map(numbers);
            Self {
                name: name.clone(),
                tokens: ids(&values["tokens"]),
                prompt: file["prompt"].as_u64().unwrap() as usize,
                rows: positions.iter().map(|p| *p as usize).zip(rows).collect(),
            }
        };
        models.iter().map(of).collect()
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::all().into_iter().find(|g| g.name == name).expect(name)
    }

    /// The file, experts in MXFP4 as the numbers that they stand for: products with such blocks round the other side to
    /// eight bits, which transformers does not.
    fn gguf(&self) -> Gguf {
        let mut file = file(&self.name);
        for tensor in file.tensors.iter_mut().filter(|tensor| tensor.format == BlockFormat::MxFp4) {
            *tensor = Tensor::new(tensor.name.clone(), &tensor.dims, BlockFormat::F32, &tensor.values());
        }
        Gguf::from_bytes(file.to_bytes()).expect("a GGUF file")
    }

    /// The model, with the activation that its file cannot name.
    fn model(&self) -> Model {
        let activation = (self.name == "llama-relu").then(|| "relu".parse::<FfnActivation>().unwrap());
        Model::from_gguf_with(&self.gguf(), &ModelOptions::new(1).activation(activation)).expect(&self.name)
    }

    fn session(&self, model: &Arc<Model>, kv: KvFormat) -> Session {
        Session::with_options(model, SessionOptions::new(self.tokens.len()).kv(kv)).expect("a session")
    }

    /// Logits of all tokens, computed in batches of these lengths, again and again.
    pub(crate) fn logits(&self, model: &Arc<Model>, kv: KvFormat, batches: &[usize]) -> Vec<Vec<f32>> {
        let mut session = self.session(model, kv);
        let (mut out, mut rest) = (Vec::new(), &self.tokens[..]);
        for batch in batches.iter().cycle() {
            let (now, later) = rest.split_at((*batch).min(rest.len()));
            if now.is_empty() {
                break;
            }
            session.forward_each(now, |_, l| out.push(l.to_vec())).expect("logits");
            rest = later;
        }
        out
    }
}

/// The largest difference, as a share of the largest value of `expected`.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // NaN is no small difference.
    differences.fold(0.0_f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) }) / largest
}

#[test]
fn logits_are_those_of_transformers() {
    let mut failures = Vec::new();
    for golden in Golden::all() {
        let model = Arc::new(golden.model());
        let single = golden.logits(&model, KvFormat::F32, &[golden.tokens.len()]);
        let half = golden.logits(&model, KvFormat::F16, &[golden.tokens.len()]);
        for (position, expected) in &golden.rows {
            for (kv, found, tolerance) in [("f32", &single, TOLERANCE), ("f16", &half, 5.0 * TOLERANCE)] {
                let distance = distance(&found[*position], expected);
                if distance > tolerance {
                    failures.push(format!("{} at {position}, {kv}: {distance}", golden.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    for golden in Golden::all() {
        let model = Arc::new(golden.model());
        let mut session = golden.session(&model, KvFormat::F32);
        let mut sampler = Sampler::new(SamplerConfig::greedy());
        let (prompt, expected) = golden.tokens.split_at(golden.prompt);
        let mut found = Vec::new();
        let mut next = prompt.to_vec();
        while found.len() < expected.len() {
            let logits = session.forward(&next).expect("logits");
            next = vec![sampler.sample(logits, &[])];
            found.extend_from_slice(&next);
        }
        assert_eq!(found, expected, "{}", golden.name);
    }
}

#[test]
fn a_batch_equals_one_token_at_a_time() {
    for golden in Golden::all() {
        let model = Arc::new(golden.model());
        let whole = golden.logits(&model, KvFormat::F32, &[golden.tokens.len()]);
        for batches in [&[1][..], &[5, 1, 11]] {
            let parts = golden.logits(&model, KvFormat::F32, batches);
            for (position, (part, whole)) in parts.iter().zip(&whole).enumerate() {
                let distance = distance(part, whole);
                assert!(distance < ROUNDING, "{} at {position} in {batches:?}: {distance}", golden.name);
            }
        }
    }
}

/// Exact zeros may be left out of every model that has them, a norm behind them or not.
#[test]
fn leaving_out_exact_zeros_changes_nothing() {
    let mut models = Vec::new();
    for golden in Golden::all() {
        let (dense, mut sparse) = (Arc::new(golden.model()), golden.model());
        if !sparse.ffns().all(|ffn| ffn.activation().has_zeros()) {
            continue;
        }
        for ffn in sparse.ffns_mut() {
            ffn.set_selector(Selector::ExactZero).expect("an activation with zeros");
            ffn.sort_by_columns().expect("columns");
        }
        let expected = golden.logits(&dense, KvFormat::F32, &[1]);
        let mut session = golden.session(&Arc::new(sparse), KvFormat::F32);
        for (token, expected) in golden.tokens.iter().zip(&expected) {
            let distance = distance(session.forward(&[*token]).expect("logits"), expected);
            assert!(distance < ROUNDING, "{}: {distance}", golden.name);
        }
        let density = session.ffn_counts().iter().map(|c| c.down as f64 / c.tokens as f64).sum::<f64>()
            / session.model().ffns().map(|f| f.neurons() as f64).sum::<f64>();
        assert!(density < 0.75, "{}: {density} of the neurons", golden.name);
        models.push(golden.name);
    }
    models.sort();
    assert_eq!(models, ["arcee", "bitnet", "llama-relu", "nemotron", "smallthinker", "smallthinker-softmax"]);
}

/// What is scaled or bounded after the head is so with a screen, too.
#[test]
fn a_screened_head_gives_the_same_logits() {
    for golden in Golden::all() {
        let (whole, mut screened) = (Arc::new(golden.model()), golden.model());
        HeadScreen::default().apply(&mut screened).expect("a screen");
        let screened = Arc::new(screened);
        let mut sessions = [&whole, &screened].map(|model| golden.session(model, KvFormat::F32));
        let sampler = Sampler::new(SamplerConfig::greedy());
        for token in &golden.tokens {
            let expected = sessions[0].forward(&[*token]).expect("logits").to_vec();
            let found = sessions[1].candidates(&[*token], &sampler, &[]).expect("logits");
            match found.ids {
                None => assert_eq!(found.values, expected, "{}", golden.name),
                Some(ids) => {
                    for (id, logit) in ids.iter().zip(found.values) {
                        assert_eq!(*logit, expected[*id as usize], "{}", golden.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_model_that_keeps_no_tokens_goes_back_to_snapshots() {
    let golden = Golden::named("lfm2");
    let model = Arc::new(golden.model());
    let mut session = golden.session(&model, KvFormat::F32);
    let tokens = &golden.tokens;
    session.forward(&tokens[..10]).unwrap();
    session.snapshot();
    let expected = session.forward(&tokens[10..14]).unwrap().to_vec();
    session.forward(&tokens[14..20]).unwrap();

    let error = session.truncate(5).unwrap_err();
    assert!(matches!(error, Error::CannotRewind { at: 20, to: 5 }), "{error}");
    assert_eq!((session.position(), session.tokens()), (20, &tokens[..20]));
    session.truncate(10).unwrap();
    assert_eq!(session.forward(&tokens[10..14]).unwrap(), expected);
    // The last token can always be taken back, once.
    session.truncate(13).unwrap();
    assert!(distance(session.forward(&tokens[13..14]).unwrap(), &expected) < ROUNDING);
    session.truncate(13).unwrap();
    assert!(matches!(session.truncate(12), Err(Error::CannotRewind { at: 13, to: 12 })));
    assert!(distance(session.forward(&tokens[13..14]).unwrap(), &expected) < ROUNDING);
    // Without new tokens, the last one is computed again.
    assert!(distance(session.forward(&[]).unwrap(), &expected) < ROUNDING);
    session.truncate(0).unwrap();
    assert!(matches!(session.truncate(0), Ok(())));
    session.forward(&tokens[..10]).unwrap();
    assert!(distance(session.forward(&tokens[10..14]).unwrap(), &expected) < ROUNDING);
    // A snapshot of what was forgotten is gone.
    session.clear();
    session.forward(&tokens[..14]).unwrap();
    assert!(session.truncate(10).is_err());
}

/// Each fault is named, with the key or tensor that has it.
#[test]
fn faults_of_an_architecture_are_named() {
    type Damage = fn(&mut Metadata);
    let cases: [(&str, Damage, &str); 5] = [
        (
            "gemma3",
            |m| drop(m.insert("gemma3.attention.sliding_window_pattern", vec![true; 2])),
            "has 2 values, but there are 6 layers",
        ),
        (
            "lfm2",
            |m| drop(m.insert("lfm2.attention.head_count_kv", vec![0_i32, 2])),
            "lfm2.attention.head_count_kv: has 2 numbers, but there are 3 layers",
        ),
        (
            "lfm2",
            |m| drop(m.insert("lfm2.shortconv.l_cache", 0_u32)),
            "lfm2.shortconv.l_cache: must not be zero",
        ),
        (
            "lfm2",
            |m| drop(m.insert("lfm2.shortconv.l_cache", 4_u32)),
            "tensor blk.0.shortconv.conv.weight: expected shape",
        ),
        ("qwen3", |m| drop(m.insert("qwen3.attention.key_length", 8_u32)), "qwen3.attention.value_length"),
    ];
    for (name, damage, expected) in cases {
        let mut file = file(name);
        damage(&mut file.metadata);
        let gguf = Gguf::from_bytes(file.to_bytes()).expect("a GGUF file");
        let error = Model::from_gguf(&gguf, 1).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

/// PowerInfer's files: `PWRI` in place of `GGUF`, a row of `down` per neuron, and predictors that read the residual
/// stream before its norm.
mod powerinfer {
    use super::*;

    const RANK: usize = 64;

    /// A ReLU model whose predictors score even neurons with a million times, odd ones with `scores` times the size of the
    /// residual stream's first value.
    fn file(scores: f32) -> File {
        let mut file = TinyLlama { format: BlockFormat::F32, ..TinyLlama::default() }.build();
        file.metadata.insert("powerinfer.sparse_threshold", 0.5_f32);
        for i in 0..2 {
            let down = file.remove(&format!("blk.{i}.ffn_down.weight"));
            let (neurons, width) = (down.dims[0], down.dims[1]);
            let values = down.values();
            let columns = (0..neurons).flat_map(|n| values.iter().skip(n).step_by(neurons).copied());
            let columns: Vec<f32> = columns.collect();
            let mut tensor = |name: &str, dims: &[usize], values: &[f32]| {
                let name = format!("blk.{i}.{name}.weight");
                file.tensors.push(Tensor::new(name, dims, BlockFormat::F32, values));
            };
            tensor("ffn_down_t", &[width, neurons], &columns);
            // The first two rows give x and -x of the first value; after the ReLU their sum is |x|.
            let mut fc1 = vec![0.0; RANK * width];
            (fc1[0], fc1[width]) = (1.0, -1.0);
            let row = |n: usize| if n.is_multiple_of(2) { 1e6 } else { scores };
            let fc2: Vec<f32> =
                (0..neurons).flat_map(|n| (0..RANK).map(move |r| if r < 2 { row(n) } else { 0.0 })).collect();
            tensor("fc1", &[width, RANK], &fc1);
            tensor("fc2", &[RANK, neurons], &fc2);
        }
        file
    }

    fn model(file: &File, activation: &str) -> Result<Model, Error> {
        let mut bytes = file.to_bytes();
        bytes[..4].copy_from_slice(b"PWRI");
        let options = ModelOptions::new(1).activation(activation.parse().ok());
        Model::from_gguf_with(&Gguf::from_bytes(bytes).expect("a GGUF file"), &options)
    }

    fn logits(model: Model) -> Vec<f32> {
        let mut session = Session::new(&Arc::new(model), 8).expect("a session");
        let mut last = Vec::new();
        for token in [3, 1, 4, 1, 5] {
            last = session.forward(&[token]).expect("logits").to_vec();
        }
        last
    }

    #[test]
    fn an_unnamed_activation_is_asked_for() {
        let error = model(&file(1.0), "").unwrap_err().to_string();
        assert!(
            error.contains("powerinfer.sparse_threshold") && error.contains("--activation relu"),
            "{error}"
        );
        let mut other = file(1.0);
        other.metadata = TinyLlama::default().build().metadata;
        let error = model(&other, "").unwrap_err().to_string();
        assert!(error.contains("blk.0.ffn_down_t.weight"), "{error}");
    }

    #[test]
    fn predictors_choose_the_neurons() {
        // High scores for all: the dense model.
        let mut dense = model(&file(1e6), "relu").unwrap();
        for ffn in dense.ffns_mut() {
            ffn.set_selector(Selector::Dense).unwrap();
        }
        let dense = logits(dense);
        let all = logits(model(&file(1e6), "relu").unwrap());
        assert!(distance(&all, &dense) < ROUNDING);
        // Odd neurons below the threshold: as if they were not there.
        let mut even = file(-1e6);
        for i in 0..2 {
            let down = even.tensor_mut(&format!("blk.{i}.ffn_down_t.weight"));
            let width = down.dims[0];
            for row in down.data.chunks_mut(4 * width).skip(1).step_by(2) {
                row.fill(0);
            }
        }
        let mut without = model(&even, "relu").unwrap();
        for ffn in without.ffns_mut() {
            ffn.set_selector(Selector::Dense).unwrap();
        }
        let chosen = logits(model(&file(-1e6), "relu").unwrap());
        assert!(distance(&chosen, &logits(without)) < ROUNDING);
        assert!(distance(&chosen, &dense) > 0.01);
    }

    /// A score is compared as it is: the residual stream's size matters, which a norm would take away.
    #[test]
    fn predictors_read_the_residual_stream_before_the_norm() {
        let model = model(&file(1.0), "relu").unwrap();
        let ffn = model.ffns().next().unwrap();
        assert!(ffn.has_predictor_input());
        let compute = model.compute();
        let mut x = Activations::with_capacity(1, 64);
        x.resize(1);
        x.x_mut().fill(1.0);
        x.quantize(compute.kernels);
        let mut scratch = FfnScratch::new(1, [ffn]);
        let mut chosen = |first: f32| {
            let mut residual = vec![9.0; 64];
            residual[0] = first;
            scratch.set_predictor_input(compute, &residual, 64);
            let mut out = vec![0.0; 64];
            ffn.forward(compute, &x, BatchMode::Dense, &mut scratch, &mut out).gate
        };
        // Even neurons always, odd ones from |x| = 0.5 on.
        assert_eq!([0.4, -0.4, 0.5, -0.6].map(&mut chosen), [80, 80, 160, 160]);
    }
}
