//! The predictor on a layer that can be predicted, and on one that cannot.

use sparse_core::{Activations, Compute, Linear, LowRankPredictor, Matrix, PredictorFit, SelectorQuality};
use sparse_simd::BlockFormat;
use sparse_testdata::Weights;

const INPUTS: usize = 64;
const NEURONS: usize = 256;
const BIAS: f32 = -9.0;

/// Nearly normal numbers; `stream` tells calls apart.
fn normals(n: usize, stream: u64) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    Weights::new(BlockFormat::F32, 0.0, 1.0, 7, stream).fill(&mut bytes);
    let mut values = vec![0.0; n];
    BlockFormat::F32.decode(&bytes, &mut values).unwrap();
    values
}

/// Samples of a ReLU layer whose gate has the rank `rank` but for `noise`, and a bias that leaves most neurons idle:
/// inputs, gates before the activation, and the map from the one to the other.
fn layer(rank: usize, noise: f32, tokens: usize) -> (Vec<f32>, Vec<f32>, Linear) {
    let (a, b) = (normals(NEURONS * rank, 1), normals(rank * INPUTS, 2));
    let noises = normals(NEURONS * INPUTS, 3);
    let gate: Vec<f32> = (0..NEURONS * INPUTS)
        .map(|i| {
            let (j, c) = (i / INPUTS, i % INPUTS);
            let low: f32 = (0..rank).map(|k| a[j * rank + k] * b[k * INPUTS + c]).sum();
            low / (rank as f32).sqrt() + noise * noises[i]
        })
        .collect();
    let x: Vec<f32> = normals(tokens * INPUTS, 4).iter().map(|x| x + 0.5).collect();
    let gates = x
        .chunks(INPUTS)
        .flat_map(|x| {
            gate.chunks(INPUTS).map(move |g| g.iter().zip(x).map(|(g, x)| g * x).sum::<f32>() + BIAS)
        })
        .collect();
    let weight = Matrix::from_f32(INPUTS, gate).unwrap();
    (x, gates, Linear::new(weight, Some(vec![BIAS; NEURONS])).unwrap())
}

fn quality(predictor: &LowRankPredictor, x: &[f32], gates: &[f32], threshold: f32) -> SelectorQuality {
    let compute = Compute::new(1);
    let mut input = Activations::with_capacity(x.len() / INPUTS, INPUTS);
    input.resize(x.len() / INPUTS);
    input.x_mut().copy_from_slice(x);
    input.quantize(compute.kernels);
    let mut projected = Activations::with_capacity(x.len() / INPUTS, predictor.rank());
    let mut scores = vec![0.0; gates.len()];
    predictor.scores(&compute, &input, &mut projected, &mut scores);
    let mut quality = SelectorQuality::default();
    scores.iter().zip(gates).for_each(|(s, g)| quality.add(*s > threshold, *g > 0.0, g.max(0.0)));
    quality
}

#[test]
fn a_layer_of_low_rank_is_predicted_and_one_of_full_rank_is_not() {
    let tokens = 3000;
    let fitted = 2000;
    let measure = |rank: usize, noise: f32, fit_rank: usize, steps: usize| {
        let (x, gates, _) = layer(rank, noise, tokens);
        let active: Vec<bool> = gates[..fitted * NEURONS].iter().map(|g| *g > 0.0).collect();
        let fit = PredictorFit::new(&x[..fitted * INPUTS], INPUTS, &active, NEURONS).unwrap();
        let predictor = fit.factors(fit_rank, steps).predictor().unwrap();
        quality(&predictor, &x[fitted * INPUTS..], &gates[fitted * NEURONS..], -1.0)
    };
    let enough = measure(8, 0.05, 8, 200);
    // Beside each bound stands what was measured.
    assert!(enough.recall() > 0.99, "0.9985: {enough:?}");
    assert!(enough.precision() > 0.75, "0.82: {enough:?}");
    assert!(enough.kept_energy() > 0.999, "0.99999: {enough:?}");
    let too_low = measure(8, 0.05, 2, 200);
    assert!(too_low.recall() < 0.7, "0.56: {too_low:?}");
    assert!(too_low.precision() < 0.6, "0.48: {too_low:?}");
    assert!(too_low.kept_energy() < 0.9, "0.79: {too_low:?}");
    // Random gates of full rank have little for a low rank to find: it takes most neurons, and 46 % of all are active.
    let random = measure(1, 10.0, 8, 200);
    assert!(random.density() > 0.6, "0.71: {random:?}");
    assert!(random.recall() < 0.93, "0.90: {random:?}");
    assert!(random.precision() < 0.65, "0.58: {random:?}");
    // The gradient steps improve on the closed form: as many neurons found, fewer chosen.
    let closed = measure(8, 0.05, 8, 0);
    assert!(closed.recall() > 0.99, "0.9998: {closed:?}");
    assert!(closed.precision() < 0.6, "0.45: {closed:?}");
    let f1 = |q: &SelectorQuality| 2.0 * q.recall() * q.precision() / (q.recall() + q.precision());
    assert!(f1(&enough) > f1(&closed), "closed form {closed:?}, refined {enough:?}");
}

#[test]
fn where_the_gate_is_known_few_samples_are_enough() {
    let (x, gates, first) = layer(8, 0.05, 1300);
    let measure = |fitted: usize, known: bool, steps: usize| {
        let (seen, active) = (&x[..fitted * INPUTS], gates[..fitted * NEURONS].iter().map(|g| *g > 0.0));
        let active: Vec<bool> = active.collect();
        let fit = match known {
            true => PredictorFit::above_zero(seen, INPUTS, &active, &first),
            false => PredictorFit::new(seen, INPUTS, &active, NEURONS),
        };
        let predictor = fit.unwrap().factors(8, steps).predictor().unwrap();
        quality(&predictor, &x[300 * INPUTS..], &gates[300 * NEURONS..], -1.0)
    };
    let f1 = |q: SelectorQuality| 2.0 * q.recall() * q.precision() / (q.recall() + q.precision());
    let few = f1(measure(100, true, 200));
    assert!(few > 0.9, "0.954: {few}");
    let guessed = f1(measure(100, false, 200));
    assert!(guessed < 0.8, "0.73: {guessed}");
    // Steps on so few samples only lead astray, which those that are kept show.
    let closed = f1(measure(100, true, 0));
    assert_eq!(few, closed);
}

#[test]
fn samples_that_make_no_sense_are_refused() {
    let fit =
        |x: &[f32], active: &[bool]| PredictorFit::new(x, 4, active, 2).map(|_| ()).unwrap_err().to_string();
    assert_eq!(fit(&[], &[]), "number of samples is 0, expected a finite number above zero");
    assert_eq!(fit(&[0.0; 5], &[true; 2]), "inputs of the samples: expected 4, found 5");
    assert_eq!(fit(&[0.0; 8], &[true; 3]), "neurons of the samples: expected 4, found 3");
    let nan = [0.0, 1.0, f32::NAN, 2.0];
    assert_eq!(fit(&nan, &[true; 2]), "input of a sample is NaN, expected a finite number above zero");
    let known = |cols: usize, weight: f32| {
        let first = Linear::new(Matrix::from_f32(cols, vec![weight; 2 * cols]).unwrap(), None).unwrap();
        PredictorFit::above_zero(&[1.0; 8], 4, &[true; 4], &first).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(known(8, 1.0), "inputs of the layer: expected 8, found 4");
    assert_eq!(known(4, f32::NAN), "weight of the layer is NaN, expected a finite number");
}

#[test]
fn neurons_that_never_or_always_fire_and_constant_inputs_are_no_trouble() {
    let x = [[1.0, 2.0, 0.0, 1.0], [1.0, -2.0, 0.0, 1.0]].concat().repeat(50);
    let active: Vec<bool> = [true, false].repeat(100);
    let factors = PredictorFit::new(&x, 4, &active, 2).unwrap().factors(3, 20);
    assert_eq!((factors.rank, factors.p.len(), factors.q.len()), (3, 12, 6));
    let finite = |v: &[f32]| v.iter().all(|v| v.is_finite());
    assert!(finite(&factors.p) && finite(&factors.q) && finite(&factors.bias));
    let score = |x: &[f32], j: usize| -> f32 {
        let p = factors.p.chunks(4).map(|p| p.iter().zip(x).map(|(p, x)| p * x).sum::<f32>());
        factors.q[j * 3..][..3].iter().zip(p).map(|(q, p)| q * p).sum::<f32>() + factors.bias[j]
    };
    assert!(score(&x[..4], 0) > 2.0 && score(&x[..4], 1) < -2.0);
}
