//! A feed-forward layer in Bit3 by what is there without an operating system: nothing here needs the features `std` and
//! `parallel`, threads or atomics. `cargo test -p sparse-core --no-default-features --test bare` runs it without them.

use sparse_core::{
    ActivationType, Activations, BatchMode, Compute, Down, FfnScratch, Linear, Matrix, Pool, Selector,
    SparseFfn, Storage,
};
use sparse_precision::{LaneMatrix, PrecisionLane};
use sparse_simd::{Kernels, Level};

const INPUTS: usize = 64;
const NEURONS: usize = 96;

/// A `[rows x cols]` matrix in Bit3, and the values that it stands for.
fn bit3(rows: usize, cols: usize, seed: f32) -> (Matrix, Vec<f32>) {
    let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37 + seed).sin() / 4.0).collect();
    let lane = LaneMatrix::new(PrecisionLane::Bit3, cols, &values).unwrap();
    let mut decoded = vec![0.0; values.len()];
    decoded.chunks_mut(cols).enumerate().for_each(|(r, row)| lane.decode_row(r, row));
    let matrix = Matrix::new(lane.lane().format(), cols, Storage::Owned(lane.into_bytes())).unwrap();
    (matrix, decoded)
}

#[test]
fn a_layer_in_bit3_leaves_out_zeros_on_the_portable_kernels() {
    let (gate, gate_values) = bit3(NEURONS, INPUTS, 1.0);
    let (up, up_values) = bit3(NEURONS, INPUTS, 2.0);
    let (down, down_values) = bit3(NEURONS, INPUTS, 3.0);
    let linear = |weight| Linear::new(weight, None).unwrap();
    let down = Down::Neurons(down.into());
    let mut ffn = SparseFfn::gated(linear(gate), linear(up), down, ActivationType::Relu).unwrap();
    ffn.set_selector(Selector::ExactZero).unwrap();
    let compute = Compute::with(Kernels::at(Level::Scalar).unwrap(), Pool::new(1));

    let mut x = Activations::with_capacity(1, INPUTS);
    x.resize(1);
    x.x_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 * 0.71).cos());
    x.quantize(compute.kernels);
    let mut out = vec![f32::NAN; INPUTS];
    let mut scratch = FfnScratch::new(1, [&ffn]);
    let counts = ffn.forward(&compute, &x, BatchMode::Dense, &mut scratch, &mut out);
    assert!(counts.gate == NEURONS as u64 && (1..counts.gate).contains(&counts.down), "{counts:?}");

    let dot = |w: &[f32]| w.iter().zip(x.x()).map(|(w, x)| w * x).sum::<f32>();
    let gates = gate_values.chunks(INPUTS).map(|w| dot(w).max(0.0));
    let hidden: Vec<f32> = gates.zip(up_values.chunks(INPUTS)).map(|(gate, up)| gate * dot(up)).collect();
    let size = hidden.iter().map(|h| h.abs()).sum::<f32>();
    for (c, out) in out.into_iter().enumerate() {
        let expected: f32 = hidden.iter().zip(down_values.chunks(INPUTS)).map(|(h, w)| h * w[c]).sum();
        // The input is rounded to int8.
        assert!((out - expected).abs() < 0.01 * size, "output {c}: {out}, expected {expected}");
    }
}
