//! The engine against a naive network, and its demonstration against what it promises.

use sparse_core::{ActivationType, Error, FfnWeights, SparseInferenceEngine, SparsityConfig};
use sparse_simd::BlockFormat;
use sparse_testdata::Weights;

/// Nearly normal numbers; `stream` tells calls apart.
fn normals(n: usize, stream: u64) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    Weights::new(BlockFormat::F32, 0.0, 1.0, 3, stream).fill(&mut bytes);
    let mut values = vec![0.0; n];
    BlockFormat::F32.decode(&bytes, &mut values).unwrap();
    values
}

fn samples(tokens: usize, dim: usize, stream: u64) -> Vec<Vec<f32>> {
    normals(tokens * dim, stream).chunks(dim).map(<[f32]>::to_vec).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let off: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    (dot(&off, &off) / dot(b, b)).sqrt()
}

/// A network of random weights.
struct Network {
    inputs: usize,
    w1: Vec<f32>,
    b1: Vec<f32>,
    w2: Vec<f32>,
    b2: Vec<f32>,
}

impl Network {
    fn new(inputs: usize, hidden: usize, outputs: usize) -> Self {
        let [w1, w2] = [(hidden * inputs, 1), (outputs * hidden, 2)].map(|(n, s)| normals(n, s));
        Self { inputs, w1, b1: normals(hidden, 3), w2, b2: normals(outputs, 4) }
    }

    fn weights(&self) -> FfnWeights<'_> {
        FfnWeights { w1: &self.w1, b1: &self.b1, w2: &self.w2, b2: &self.b2 }
    }

    fn engine(&self, activation: ActivationType, sparsity: SparsityConfig) -> SparseInferenceEngine {
        SparseInferenceEngine::from_weights(self.weights(), activation, sparsity).unwrap()
    }

    /// What all neurons make of `x`, and their shares in the output.
    fn hidden(&self, x: &[f32], activation: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let neurons = self.b1.len();
        let norm = |j: usize| self.w2.chunks(neurons).map(|w| f64::from(w[j]).powi(2)).sum::<f64>().sqrt();
        let h = self.w1.chunks(self.inputs).zip(&self.b1).map(|(w, b)| activation(dot(w, x) + f64::from(*b)));
        h.enumerate().map(|(j, h)| (h, h.abs() * norm(j))).collect()
    }

    /// The output of the neurons whose share is at least `least`.
    fn output(&self, hidden: &[(f64, f64)], least: f64) -> Vec<f32> {
        let of_row = |(w, b): (&[f32], &f32)| {
            let sum = hidden.iter().zip(w).filter(|((_, share), _)| *share >= least);
            (sum.map(|((h, _), w)| h * f64::from(*w)).sum::<f64>() + f64::from(*b)) as f32
        };
        self.w2.chunks(hidden.len()).zip(&self.b2).map(of_row).collect()
    }
}

#[test]
fn the_neurons_with_the_largest_shares_are_computed_and_the_others_are_zero() {
    let network = Network::new(40, 96, 24);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    for x in samples(4, 40, 5) {
        let hidden = network.hidden(&x, silu);
        let mut shares: Vec<f64> = hidden.iter().map(|(_, share)| *share).collect();
        shares.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 10, 50, 96] {
            let expected = network.output(&hidden, shares[k - 1]);
            let between = 0.5 * (shares[k - 1] + shares.get(k).unwrap_or(&0.0));
            for sparsity in [
                SparsityConfig::with_top_k(k),
                SparsityConfig::with_threshold(between as f32),
                SparsityConfig::with_target_sparsity(1.0 - k as f32 / 96.0),
            ] {
                let engine = network.engine(ActivationType::Silu, sparsity);
                let off = distance(&engine.infer(&x).unwrap(), &expected);
                assert!(off < 1e-5, "{k} neurons, {sparsity:?}: {off}");
                let statistics = engine.sparsity_statistics();
                assert_eq!((statistics.counts.tokens, statistics.counts.down), (1, k as u64));
                assert_eq!(statistics.up_density(), 1.0, "shares are known by computing W1");
            }
        }
    }
}

#[test]
fn calibration_turns_a_number_per_token_into_a_threshold() {
    let network = Network::new(40, 96, 24);
    let mut engine = network.engine(ActivationType::Gelu, SparsityConfig::with_top_k(12));
    assert_eq!(engine.sparsity_statistics().quality, None);
    let seen = samples(200, 40, 6);
    engine.calibrate(&seen).unwrap();
    let quality = engine.sparsity_statistics().quality.unwrap();
    assert_eq!(quality.density(), 12.0 / 96.0);
    assert!(quality.recall() > 0.8 && quality.recall() < 1.0, "{quality:?}");
    let mut fewest_most = (u64::MAX, 0);
    let mut before = 0;
    for x in &seen {
        engine.infer(x).unwrap();
        let down = engine.sparsity_statistics().counts.down;
        fewest_most = (fewest_most.0.min(down - before), fewest_most.1.max(down - before));
        before = down;
    }
    assert_eq!(before, 200 * 12);
    assert!(fewest_most.0 < 12 && fewest_most.1 > 12, "{fewest_most:?}");
}

#[test]
fn the_demonstration_is_predictable_and_as_sparse_as_asked() {
    for (dim, hidden, density) in [(512, 2048, 0.1), (512, 2048, 0.02), (256, 1024, 0.3), (64, 512, 0.05)] {
        let case = format!("{dim} x {hidden} at {density}");
        let mut engine = SparseInferenceEngine::new_sparse(dim, hidden, density).unwrap();
        let inputs = samples(100, dim, 7);
        inputs.iter().for_each(|x| assert_eq!(engine.infer(x).unwrap().len(), dim));
        let found = engine.sparsity_statistics().up_density();
        assert!((found / f64::from(density) - 1.0).abs() < 0.15, "{case}: computes {found}");
        engine.calibrate(&inputs).unwrap();
        let quality = engine.sparsity_statistics().quality.unwrap();
        assert!((quality.density() - f64::from(density)).abs() < 1e-3, "{case}: {quality:?}");
        assert!(quality.recall() >= 0.95, "{case}: recall {}", quality.recall());
        assert!(quality.kept_energy() > 0.999, "{case}: energy {}", quality.kept_energy());
        assert!(quality.precision() > 0.8, "{case}: precision {}", quality.precision());
    }
}

#[test]
fn the_demonstration_gives_nearly_the_dense_output_for_a_fraction_of_the_bytes() {
    let sparse = SparseInferenceEngine::new_sparse(512, 2048, 0.1).unwrap();
    let dense = SparseInferenceEngine::new_dense(512, 2048).unwrap();
    let constant = vec![0.1; 512];
    for x in samples(20, 512, 8).iter().chain([&constant]) {
        let (y, expected) = (sparse.infer(x).unwrap(), dense.infer(x).unwrap());
        assert!(dot(&expected, &expected) > 0.0);
        let off = distance(&y, &expected);
        assert!(off < 0.02, "{off}");
    }
    let (sparse, dense) = (sparse.sparsity_statistics(), dense.sparsity_statistics());
    assert_eq!((dense.up_density(), dense.down_density(), dense.bytes_share()), (1.0, 1.0, 1.0));
    assert!(sparse.down_density() <= sparse.up_density());
    assert!(sparse.bytes_share() < 0.2, "{}", sparse.bytes_share());
}

#[test]
fn a_dense_engine_learns_how_sparse_it_is() {
    let mut engine = SparseInferenceEngine::new_dense(64, 256).unwrap();
    let inputs = samples(50, 64, 9);
    engine.calibrate(&inputs).unwrap();
    let quality = engine.sparsity_statistics().quality.unwrap();
    assert_eq!((quality.recall(), quality.density()), (1.0, 1.0));
    assert!(quality.precision() > 0.05 && quality.precision() < 0.2, "{quality:?}");
    engine.infer(&inputs[0]).unwrap();
    assert_eq!(engine.sparsity_statistics().up_density(), 1.0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |r: Result<SparseInferenceEngine, Error>| r.unwrap_err().to_string();
    for density in [0.0, -0.5, 1.5, f32::NAN] {
        let expected = format!("density is {density}, expected above 0 and at most 1");
        assert_eq!(refused(SparseInferenceEngine::new_sparse(8, 8, density)), expected);
    }
    let zero = "hidden_dim is 0, expected at least 1";
    assert_eq!(refused(SparseInferenceEngine::new_dense(8, 0)), zero);
    assert!(refused(SparseInferenceEngine::new_dense(0, 8)).starts_with("input_dim is 0"));
    let many = refused(SparseInferenceEngine::new_dense(8, usize::MAX));
    match usize::BITS {
        // Counted, but no memory holds them.
        ..=32 => assert!(many.starts_with("number of weights is "), "{many}"),
        _ => assert!(many.ends_with("expected no more than 32 bits can count"), "{many}"),
    }
    let large = refused(SparseInferenceEngine::new_sparse(usize::MAX, 8, 0.1));
    assert!(large.starts_with("number of weights is "), "{large}");

    let mut engine = SparseInferenceEngine::new_sparse(1, 1, 1.0).unwrap();
    assert_eq!(engine.infer(&[1.0, 2.0]).unwrap_err().to_string(), "input: expected 1, found 2");
    let nan = "a value of the input is NaN, expected a finite number";
    assert_eq!(engine.infer(&[f32::NAN]).unwrap_err().to_string(), nan);
    assert_eq!(engine.calibrate(&[vec![0.0], vec![f32::NAN]]).unwrap_err().to_string(), nan);
    let none = "number of samples is 0, expected at least 1";
    assert_eq!(engine.calibrate(&[]).unwrap_err().to_string(), none);
    assert_eq!(engine.sparsity_statistics().counts.tokens, 0);

    let network = Network::new(4, 6, 3);
    let top = SparsityConfig::with_top_k(2);
    let from = |weights: FfnWeights<'_>, sparsity| {
        refused(SparseInferenceEngine::from_weights(weights, ActivationType::Relu, sparsity))
    };
    let weights = network.weights();
    assert_eq!(from(FfnWeights { w1: &weights.w1[1..], ..weights }, top), "w1: expected 24, found 23");
    assert_eq!(from(FfnWeights { w2: &weights.w2[1..], ..weights }, top), "w2: expected 18, found 17");
    assert_eq!(from(FfnWeights { b1: &[], ..weights }, top), "b1: expected 1, found 0");
    let infinite = FfnWeights { b2: &[0.0, f32::INFINITY, 0.0], ..weights };
    assert_eq!(from(infinite, top), "b2 is inf, expected a finite number");
    let sparsity = SparsityConfig::with_target_sparsity(1.5);
    assert_eq!(from(weights, sparsity), "target sparsity is 1.5, expected a share from 0 to 1");
    let sparsity = SparsityConfig::with_threshold(f32::NAN);
    assert_eq!(from(weights, sparsity), "threshold is NaN, expected a number");
    let large = FfnWeights { w2: &[1e30; 18], ..weights };
    assert_eq!(from(large, top), "norm of a column of w2 is inf, expected a finite number");
}

#[test]
fn samples_too_large_to_learn_from_change_nothing() {
    let network = Network::new(4, 6, 3);
    let mut engine = network.engine(ActivationType::Identity, SparsityConfig::with_top_k(2));
    let expected = engine.infer(&[1.0; 4]).unwrap();
    let refused = engine.calibrate(&[vec![1.0; 4], vec![f32::MAX; 4]]).unwrap_err().to_string();
    assert!(refused.starts_with("share of a neuron is "), "{refused}");
    assert_eq!(engine.infer(&[1.0; 4]).unwrap(), expected);
    assert_eq!(engine.sparsity_statistics().quality, None);
    // No output is finite then, but there is one.
    assert_eq!(engine.infer(&[f32::MAX; 4]).unwrap().len(), 3);
}

#[test]
fn no_neuron_and_every_neuron_can_be_asked_for() {
    let network = Network::new(4, 6, 3);
    let x = [0.5, -1.0, 2.0, 0.25];
    for (k, kept) in [(0, 0), (6, 6), (usize::MAX, 6)] {
        let mut engine = network.engine(ActivationType::Silu, SparsityConfig::with_top_k(k));
        let before = engine.infer(&x).unwrap();
        engine.calibrate(&[x.to_vec()]).unwrap();
        assert_eq!(engine.infer(&x).unwrap(), before, "{k}");
        assert_eq!(engine.sparsity_statistics().counts.down, kept, "{k}");
        if k == 0 {
            assert_eq!(before, network.b2);
        }
    }
}

#[cfg(feature = "fit")]
#[test]
fn a_predictor_can_be_fitted_to_weights_that_have_something_to_predict() {
    let (dim, hidden, rank) = (48, 256, 6);
    let (p, q) = (normals(rank * dim, 10), normals(hidden * rank, 11));
    let mut low = Network::new(dim, hidden, 32);
    for (j, w) in low.w1.chunks_mut(dim).enumerate() {
        for (i, w) in w.iter_mut().enumerate() {
            *w = 0.02 * *w + (0..rank).map(|k| q[j * rank + k] * p[k * dim + i]).sum::<f32>();
        }
    }
    // Biases that leave a fifth of the neurons active.
    low.b1.fill(-15.0);
    let mut random = Network::new(dim, hidden, 32);
    random.b1.fill(-6.0);
    let (fitted, held_out) = (samples(1500, dim, 12), samples(300, dim, 13));
    let recall = |network: &Network| {
        let mut engine = network.engine(ActivationType::Relu, SparsityConfig::with_threshold(0.0));
        engine.fit_predictor(&fitted, rank).unwrap();
        engine.calibrate(&held_out).unwrap();
        engine.infer(&held_out[0]).unwrap();
        let statistics = engine.sparsity_statistics();
        assert!(statistics.up_density() < 0.6, "W1 is skipped, too: {statistics:?}");
        statistics.quality.unwrap().recall()
    };
    let (low, random) = (recall(&low), recall(&random));
    assert!(low > 0.9 && random < 0.7, "low rank {low}, full rank {random}");

    let mut dense = SparseInferenceEngine::new_dense(dim, hidden).unwrap();
    let refused = dense.fit_predictor(&fitted, rank).unwrap_err().to_string();
    assert_eq!(refused, "low-rank needs a sparse engine");
}
