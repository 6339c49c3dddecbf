//! What the crate's front page promises, through its public names alone.

use std::sync::Arc;

use ruvector_sparse_inference::gguf::{BlockFormat, Gguf};
use ruvector_sparse_inference::model::{Error, Model, Placement, Session, Sidecar, sidecar};
use ruvector_sparse_inference::{Selector, SparseInferenceEngine};
use sparse_testdata::TinyLlama;

/// Inputs that are all different, between -1.7 and 1.7 with variance 1.
fn inputs(tokens: usize, dim: usize) -> Vec<Vec<f32>> {
    let value = |i: usize| ((i * i * 31 + i * 7919) % 1009) as f32 / 1008.0;
    let scaled = |i| (value(i) - 0.5) * 12_f32.sqrt();
    (0..tokens).map(|t| (0..dim).map(|i| scaled(t * dim + i)).collect()).collect()
}

#[test]
fn the_quick_start_runs_and_means_something() {
    let engine = SparseInferenceEngine::new_sparse(512, 2048, 0.1).unwrap();
    let output = engine.infer(&vec![0.1; 512]).unwrap();
    assert_eq!(output.len(), 512);
    assert!(output.iter().all(|y| y.is_finite()) && output.iter().any(|y| *y != 0.0));
    let again = SparseInferenceEngine::new_sparse(512, 2048, 0.1).unwrap();
    assert_eq!(again.infer(&vec![0.1; 512]).unwrap(), output);
}

#[test]
fn statistics_are_measured() {
    let mut engine = SparseInferenceEngine::new_sparse(512, 2048, 0.1).unwrap();
    let none = engine.sparsity_statistics();
    assert_eq!((none.counts.tokens, none.quality, none.up_density()), (0, None, 0.0));
    let samples = inputs(64, 512);
    engine.calibrate(&samples).unwrap();
    samples.iter().for_each(|x| assert!(engine.infer(x).is_ok()));
    let statistics = engine.sparsity_statistics();
    let quality = statistics.quality.unwrap();
    assert_eq!(statistics.counts.tokens, 64);
    assert!((statistics.up_density() - quality.density()).abs() < 1e-3, "{statistics:?}");
    assert!(quality.recall() >= 0.95 && quality.kept_energy() > 0.99, "{quality:?}");
    assert!(statistics.bytes_share() < 0.16, "{}", statistics.bytes_share());
}

#[test]
fn threads_share_an_engine() {
    let engine = SparseInferenceEngine::new_sparse(64, 256, 0.2).unwrap();
    let samples = inputs(40, 64);
    let alone: Vec<_> = samples.iter().map(|x| engine.infer(x).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                samples.iter().zip(&alone).for_each(|(x, y)| assert_eq!(&engine.infer(x).unwrap(), y))
            });
        }
    });
    assert_eq!(engine.sparsity_statistics().counts.tokens, 160);
}

fn tiny(seed: u64) -> Gguf {
    let recipe = TinyLlama { format: BlockFormat::Q4_0, seed, ..TinyLlama::default() };
    Gguf::from_bytes(recipe.build().to_bytes()).unwrap()
}

/// Logits after three tokens, and the share of the neurons that `down` was computed for.
fn run(model: Model) -> (Vec<f32>, f64) {
    let neurons = model.ffns().map(|ffn| ffn.neurons()).sum::<usize>() as f64;
    let mut session = Session::new(&Arc::new(model), 16).unwrap();
    let mut logits = Vec::new();
    for token in [5, 17, 3] {
        logits = session.forward(&[token]).unwrap().to_vec();
    }
    let down: u64 = session.ffn_counts().iter().map(|counts| counts.down).sum();
    (logits, down as f64 / (3.0 * neurons))
}

#[test]
fn a_sidecar_makes_a_model_sparse_and_is_refused_by_another() {
    let gguf = tiny(1);
    let model = || Model::from_gguf(&gguf, 1).unwrap();
    let (dense, all) = run(model());
    assert_eq!(all, 1.0);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sparse.gguf");
    let sparse = |threshold: f32| {
        let mut model = model();
        let gate = |neurons| Selector::Gate { gate: vec![threshold; neurons], hidden: None };
        let selectors = model.ffns().map(|ffn| gate(ffn.neurons())).collect();
        let made = Sidecar {
            fingerprint: sidecar::fingerprint(&gguf),
            activation: None,
            selectors,
            loss: None,
            screen: None,
            lanes: None,
            densities: None,
            heat: None,
        };
        made.save(&path).unwrap();
        Sidecar::open(&path).unwrap().apply(&gguf, &mut model, Placement::Measured).unwrap();
        run(model)
    };
    let off = |logits: &[f32]| dense.iter().zip(logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (same, all) = sparse(-1.0);
    assert!(all == 1.0 && off(&same) < 1e-4, "{all} of the neurons, off by {}", off(&same));
    let (other, some) = sparse(0.3);
    assert!(some > 0.0 && some < 0.9, "{some} of the neurons");
    assert!(off(&other) > 1e-3 && other.iter().all(|l| l.is_finite()), "off by {}", off(&other));

    let stranger = tiny(2);
    let mut model = Model::from_gguf(&stranger, 1).unwrap();
    let refused =
        Sidecar::open(&path).unwrap().apply(&stranger, &mut model, Placement::Measured).unwrap_err();
    assert!(matches!(refused, Error::Sidecar { .. }), "{refused}");
}
