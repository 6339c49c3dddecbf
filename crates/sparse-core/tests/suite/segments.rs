//! Rows in segments, against the same rows in one matrix.

use proptest::prelude::*;
use sparse_core::{
    ActivationType, Activations, BatchMode, ColumnMatrix, Compute, Down, FfnScratch, Linear,
    LowRankPredictor, Matrix, NeuronWeights, Rule, SegmentedMatrix, Selector, SparseFfn, Storage,
    check_order,
};
use sparse_simd::BlockFormat;
use sparse_testdata::Weights;

const ROWS: usize = 700;
const COLS: usize = 512;
/// A whole block of every format.
const WIDTH: usize = 256;

fn matrix(format: BlockFormat, rows: usize, cols: usize, stream: u64) -> Matrix {
    let mut bytes = vec![0; rows * format.row_bytes(cols).unwrap()];
    Weights::new(format, 0.0, 0.1, 7, stream).fill(&mut bytes);
    Matrix::new(format, cols, Storage::Owned(bytes)).unwrap()
}

/// The rows of `whole`, cut at the bounds.
fn cut(whole: &Matrix, bounds: [usize; 2]) -> SegmentedMatrix {
    let [a, b] = [bounds[0].min(bounds[1]) as u32, bounds[0].max(bounds[1]) as u32];
    let parts = [0..a, a..b, b..whole.rows() as u32];
    SegmentedMatrix::new(parts.map(|rows| whole.select(&rows.collect::<Vec<_>>())).to_vec()).unwrap()
}

fn input(compute: &Compute, tokens: usize, cols: usize) -> Activations {
    let mut x = Activations::with_capacity(tokens, cols);
    x.resize(tokens);
    x.x_mut().iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7919) % 251) as f32 / 125.0 - 1.0);
    x.quantize(compute.kernels);
    x
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn segments_are_the_same_rows(
        format in 0..BlockFormat::ALL.len(),
        bounds in prop_oneof![Just([0, ROWS]), Just([0, 0]), [0..=ROWS, 0..=ROWS]],
        share in prop_oneof![Just(0.0), Just(1.0), 0.01..0.9],
        tokens in 1_usize..4,
    ) {
        let format = BlockFormat::ALL[format];
        let whole = matrix(format, ROWS, COLS, 1);
        let (segments, one) = (cut(&whole, bounds), SegmentedMatrix::from(whole));
        let active: Vec<u32> =
            (0..ROWS as u32).filter(|j| f64::from(j * 7919 % 1000) < share * 1000.0).collect();
        prop_assert_eq!(segments.bytes_of(&active), one.bytes_of(&active));
        let values: Vec<f32> = active.iter().map(|j| (*j as f32).sin()).collect();
        let run = |w: &SegmentedMatrix, threads| {
            let compute = Compute::new(threads);
            let x = input(&compute, tokens, COLS);
            let mut all = vec![f32::NAN; tokens * ROWS];
            w.matmul(&compute, &x, &mut all);
            let mut rows = vec![f32::NAN; active.len()];
            w.matmul_rows(&compute, &active, &input(&compute, 1, COLS), &mut rows);
            let mut sum = vec![f32::NAN; COLS];
            w.axpy_rows(&compute, &active, &values, &mut sum);
            (all, rows, sum)
        };
        let expected = run(&one, 1);
        for threads in [1, 2, 4] {
            prop_assert_eq!(&run(&segments, threads), &expected, "{} threads", threads);
        }
        // Sums of segments are added in another order.
        let compute = Compute::new(2);
        let x = input(&compute, tokens, ROWS);
        let sums = |w: &SegmentedMatrix| {
            let mut out = vec![f32::NAN; tokens * COLS];
            w.weighted_sum(&compute, &x, &mut out);
            out
        };
        let (found, expected) = (sums(&segments), sums(&one));
        let size = expected.iter().fold(1e-3, |a: f32, v| a.max(v.abs()));
        for (a, b) in found.iter().zip(&expected) {
            prop_assert!((a - b).abs() <= 2e-5 * size, "{} {}", a, b);
        }
        let (mut a, mut b) = (vec![0.0; COLS], vec![0.0; COLS]);
        for r in [0, ROWS / 2, ROWS - 1] {
            segments.decode_row(r, &mut a);
            one.decode_row(r, &mut b);
            prop_assert_eq!(&a, &b);
        }
    }
}

/// Weights of a layer with its neurons in this order, in segments of several formats.
fn weights(order: &[u32], bounds: [usize; 2]) -> NeuronWeights {
    let reordered = |stream| cut(&matrix(BlockFormat::Bit7, ROWS, WIDTH, stream).select(order), bounds);
    NeuronWeights { gate: Some(reordered(1)), up: reordered(2), down: Down::Neurons(reordered(3)) }
}

fn layer(selector: Selector) -> SparseFfn {
    let order: Vec<u32> = (0..ROWS as u32).collect();
    let NeuronWeights { gate, up, down } = weights(&order, [0, 0]);
    let bias = |by: f32| (0..ROWS).map(|j| by * (j as f32).cos()).collect();
    let gate = Linear::new(gate.unwrap(), Some(bias(0.2))).unwrap();
    let up = Linear::new(up, Some(bias(0.3))).unwrap();
    let mut ffn = SparseFfn::gated(gate, up, down, ActivationType::Relu).unwrap();
    ffn.set_selector(selector).unwrap();
    ffn
}

fn selectors() -> Vec<Selector> {
    let ramp = || (0..ROWS).map(|j| j as f32 / ROWS as f32).collect::<Vec<_>>();
    let q = matrix(BlockFormat::Q8_0, ROWS, 32, 5);
    let predictor = LowRankPredictor::new(matrix(BlockFormat::Q8_0, 32, WIDTH, 4), q, ramp()).unwrap();
    vec![
        Selector::Dense,
        Selector::ExactZero,
        Selector::LowRank { predictor, rule: Rule::Threshold(0.4) },
        Selector::Gate { gate: ramp(), hidden: Some(ramp()) },
        Selector::Intermediate { hidden: ramp() },
        Selector::Fixed { active: (0..ROWS).map(|j| j % 3 == 0).collect(), skip_gate: true },
        Selector::Oracle { rule: Rule::TopK(99), norms: ramp() },
    ]
}

#[test]
fn neurons_in_another_order_compute_the_same() {
    let compute = Compute::new(1);
    let order: Vec<u32> = (0..ROWS as u32).map(|j| (j * 333 + 17) % ROWS as u32).collect();
    for selector in selectors() {
        let name = selector.name();
        let mut ffn = layer(selector);
        let run = |ffn: &SparseFfn, tokens, mode| {
            let mut out = vec![f32::NAN; tokens * WIDTH];
            let (x, mut scratch) = (input(&compute, tokens, WIDTH), FfnScratch::new(tokens, [ffn]));
            let counts = ffn.forward(&compute, &x, mode, &mut scratch, &mut out);
            (out, counts)
        };
        let modes = [(1, BatchMode::Dense), (3, BatchMode::Dense), (3, BatchMode::Masked)];
        let before = modes.map(|(tokens, mode)| run(&ffn, tokens, mode));
        ffn.set_neurons(&order, weights(&order, [150, 400])).unwrap();
        for ((tokens, mode), (expected, counted)) in modes.into_iter().zip(before) {
            let (found, counts) = run(&ffn, tokens, mode);
            assert_eq!(counts, counted, "{name}");
            let size = expected.iter().fold(0.0, |a: f32, v| a.max(v.abs()));
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-5 * size, "{name}, {tokens} tokens: {a}, expected {b}");
            }
        }
    }
}

#[test]
fn no_batch_is_no_work() {
    for threads in [1, 2] {
        let compute = Compute::new(threads);
        for format in [BlockFormat::F32, BlockFormat::Q8_0] {
            let whole = matrix(format, ROWS, WIDTH, 1);
            let x = input(&compute, 0, WIDTH);
            whole.matmul(&compute, &x, &mut []);
            ColumnMatrix::from_rows(&whole).unwrap().matmul(&compute, &x, &mut []);
            let segments = cut(&whole, [150, 400]);
            segments.matmul(&compute, &x, &mut []);
            segments.weighted_sum(&compute, &input(&compute, 0, ROWS), &mut []);
        }
        for selector in selectors() {
            let name = selector.name();
            let ffn = layer(selector);
            for mode in [BatchMode::Dense, BatchMode::Masked, BatchMode::Each] {
                let (x, mut scratch) = (input(&compute, 0, WIDTH), FfnScratch::new(1, [&ffn]));
                let counts = ffn.forward(&compute, &x, mode, &mut scratch, &mut []);
                assert_eq!((counts.tokens, counts.down), (0, 0), "{name}, {mode:?}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut ffn = layer(Selector::ExactZero);
    let order: Vec<u32> = (0..ROWS as u32).collect();
    let mut refused = |order: &[u32], change: &dyn Fn(&mut NeuronWeights)| {
        let mut weights = weights(&(0..ROWS as u32).collect::<Vec<_>>(), [150, 400]);
        change(&mut weights);
        let refused = ffn.set_neurons(order, weights).unwrap_err().to_string();
        assert_eq!(ffn.up().weight().segments().len(), 3, "as it was made");
        refused
    };
    let none: &dyn Fn(&mut NeuronWeights) = &|_| {};
    assert_eq!(refused(&order[1..], none), "order of the neurons: expected 700, found 699");
    let mut twice = order.clone();
    twice[9] = 4;
    assert_eq!(refused(&twice, none), "order of 700 neurons: place 9 has neuron 4, which is there twice");
    let mut beyond = order.clone();
    beyond[3] = 700;
    assert_eq!(
        refused(&beyond, none),
        "order of 700 neurons: place 3 has neuron 700, which is not one of them"
    );
    assert_eq!(refused(&order, &|w| w.gate = None), "gates: expected 1, found 0");
    let short = || SegmentedMatrix::from(matrix(BlockFormat::Bit3, 32, WIDTH, 1));
    assert!(refused(&order, &|w| w.up = short()).starts_with("neurons of the new weights: expected 700"));
    assert!(refused(&order, &|w| w.down = Down::Neurons(short())).starts_with("neurons of the new down"));
    assert!(check_order(700, &order).is_ok());

    assert!(SegmentedMatrix::new(Vec::new()).is_err());
    let widths = [64, 96].map(|cols| matrix(BlockFormat::Bit3, 4, cols, 1)).to_vec();
    let refused = SegmentedMatrix::new(widths).unwrap_err().to_string();
    assert_eq!(refused, "columns of a segment: expected 64, found 96");
}
