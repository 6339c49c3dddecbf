//! Feed-forward layers whose neurons are stored in lanes, through the crate's public names.

use ruvector_sparse_inference::pi::PiChaos;
use ruvector_sparse_inference::{
    ActivationType, Activations, BatchMode, Compute, Down, FfnScratch, LaneDelta, LaneMatrix, Linear, Matrix,
    PrecisionLane, Selector, SparseFfn, Storage,
};

const INPUTS: usize = 96;
const NEURONS: usize = 160;
const OUTPUTS: usize = 64;

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| PiChaos::new().jitter(seed << 20 | i)).collect()
}

/// Neurons as rows of both matrices, in `lane`.
fn layer(lane: PrecisionLane) -> SparseFfn {
    let matrix = |cols, seed| {
        let packed = LaneMatrix::new(lane, cols, &values(NEURONS * cols, seed)).unwrap();
        Matrix::new(lane.format(), cols, Storage::Owned(packed.into_bytes())).unwrap()
    };
    let up = Linear::new(matrix(INPUTS, 1), None).unwrap();
    let mut ffn =
        SparseFfn::plain(up, Down::Neurons(matrix(OUTPUTS, 2).into()), ActivationType::Relu).unwrap();
    ffn.set_selector(Selector::ExactZero).unwrap();
    ffn
}

fn run(ffn: &SparseFfn, x: &[f32]) -> Vec<f32> {
    let compute = Compute::new(1);
    let mut input = Activations::with_capacity(1, INPUTS);
    input.resize(1);
    input.x_mut().copy_from_slice(x);
    input.quantize(compute.kernels);
    let mut out = vec![f32::NAN; OUTPUTS];
    ffn.forward(&compute, &input, BatchMode::Dense, &mut FfnScratch::new(1, [ffn]), &mut out);
    out
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn a_layer_in_lanes_computes_what_it_would_in_floats() {
    let exact = layer(PrecisionLane::Float);
    for (lane, most) in
        [(PrecisionLane::Bit3, 0.35), (PrecisionLane::Bit5, 0.08), (PrecisionLane::Bit7, 0.025)]
    {
        let ffn = layer(lane);
        for seed in 10..20 {
            let x = values(INPUTS, seed);
            let error = distance(&run(&ffn, &x), &run(&exact, &x));
            assert!(error < most, "{lane}: {error}");
        }
    }
}

#[test]
fn a_delta_beside_a_layer_adds_to_it() {
    let ffn = layer(PrecisionLane::Bit5);
    let (a, b) = (values(INPUTS, 30), values(OUTPUTS, 31));
    let delta = LaneDelta::new(1, &a, &b).unwrap();
    let x = values(INPUTS, 32);
    let before = run(&ffn, &x);
    let mut after = before.clone();
    delta.apply(Compute::new(1).kernels, &x, &mut delta.scratch(), &mut after);
    let dot: f32 = a.iter().zip(&x).map(|(a, x)| a * x).sum();
    let expected: Vec<f32> = before.iter().zip(&b).map(|(y, b)| y + dot * b).collect();
    assert!(distance(&after, &expected) < 0.02, "{}", distance(&after, &expected));
}
