//! Weights in lanes.

use proptest::prelude::*;
use sparse_precision::pi::PiChaos;
use sparse_precision::{LaneDelta, LaneInput, LaneMatrix, PrecisionLane, QuantizedWeights};
use sparse_simd::{BlockFormat, Kernels, Level};

/// The largest relative error of rounding to f32.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// Nearly normal values.
fn values(n: usize, seed: usize) -> Vec<f32> {
    let chaos = PiChaos::new();
    (0..n).map(|i| (0..6).map(|k| chaos.jitter((seed * n + i) * 6 + k)).sum::<f32>() / 1.414).collect()
}

fn decibels(values: &[f32], decoded: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let signal: f64 = values.iter().map(|x| square(*x)).sum();
    let error: f64 = values.iter().zip(decoded).map(|(a, b)| square(a - b)).sum();
    10.0 * (signal / error).log10()
}

fn decoded(matrix: &LaneMatrix) -> Vec<f32> {
    let mut out = vec![0.0; matrix.rows() * matrix.cols()];
    for (r, row) in out.chunks_exact_mut(matrix.cols()).enumerate() {
        matrix.decode_row(r, row);
    }
    out
}

#[test]
fn every_lane_has_its_bits_and_its_precision() {
    let (rows, cols) = (96, 64);
    let weights = values(rows * cols, 1);
    for (lane, bits, least) in [
        (PrecisionLane::Bit3, 3.5, 15.5),
        (PrecisionLane::Bit5, 5.5, 28.0),
        (PrecisionLane::Bit7, 7.5, 40.0),
        (PrecisionLane::Float, 32.0, 1000.0),
    ] {
        let matrix = LaneMatrix::new(lane, cols, &weights).unwrap();
        assert_eq!((matrix.lane(), matrix.rows(), matrix.cols()), (lane, rows, cols));
        assert_eq!(matrix.bytes().len() as f32 * 8.0 / weights.len() as f32, bits, "{lane}");
        let found = decibels(&weights, &decoded(&matrix));
        assert!(found >= least, "{lane}: {found} dB");
        assert_eq!(matrix.clone().into_bytes(), matrix.bytes());
    }
}

#[test]
fn lanes_change_with_one_more_rounding() {
    let weights = values(64 * 96, 2);
    let wide = LaneMatrix::new(PrecisionLane::Bit7, 96, &weights).unwrap();
    let floats = wide.to_lane(PrecisionLane::Float).unwrap();
    assert_eq!(decoded(&floats), decoded(&wide));
    let direct = LaneMatrix::new(PrecisionLane::Bit5, 96, &weights).unwrap();
    let by_way = wide.to_lane(PrecisionLane::Bit5).unwrap();
    let (direct, by_way) = (decibels(&weights, &decoded(&direct)), decibels(&weights, &decoded(&by_way)));
    assert!(by_way > direct - 0.5, "{by_way} {direct}");
}

#[test]
fn important_columns_are_rounded_better() {
    let (rows, cols) = (64, 64);
    let weights = values(rows * cols, 3);
    let importance: Vec<f32> = (0..cols).map(|c| if c % 8 == 0 { 50.0 } else { 1.0 }).collect();
    let important = |x: &[f32]| x.iter().copied().step_by(8).collect::<Vec<_>>();
    let plain = LaneMatrix::new(PrecisionLane::Bit3, cols, &weights).unwrap();
    let weighted = LaneMatrix::weighted(PrecisionLane::Bit3, cols, &weights, &importance).unwrap();
    let at = |matrix| decibels(&important(&weights), &important(&decoded(matrix)));
    assert!(at(&weighted) > at(&plain) + 1.0, "{} {}", at(&weighted), at(&plain));
}

#[test]
fn what_cannot_be_stored_is_an_error_that_says_where() {
    let fails = |cols, x: &[f32]| LaneMatrix::new(PrecisionLane::Bit3, cols, x).unwrap_err().to_string();
    assert_eq!(fails(33, &[0.0; 33]), "rows of 33 values cannot be BIT3: expected a positive multiple of 32");
    assert_eq!(fails(32, &[0.0; 33]), "weights: expected 64 values, found 33");
    let mut x = vec![0.0; 64];
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (3e5, "300000")] {
        x[40] = bad;
        assert_eq!(fails(32, &x), format!("weights: value 40 is {shown}, which cannot be stored"));
    }
    let importance = LaneMatrix::weighted(PrecisionLane::Bit7, 64, &[0.0; 64], &[1.0; 32]).unwrap_err();
    assert_eq!(importance.to_string(), "importance: expected 64 values, found 32");
    let odd = LaneMatrix::new(PrecisionLane::Float, 33, &[1.5; 33]).unwrap();
    assert!(odd.to_lane(PrecisionLane::Bit5).is_err() && decoded(&odd) == [1.5; 33]);
}

proptest! {
    #[test]
    fn products_are_those_of_the_decoded_weights(
        lane in 0usize..4, rows in 0usize..20, blocks in 1usize..20, seed in 0usize..100
    ) {
        let (lane, cols) = (PrecisionLane::ALL[lane], 32 * blocks);
        let matrix = LaneMatrix::new(lane, cols, &values(rows * cols, seed)).unwrap();
        let weights = decoded(&matrix);
        let (x, h) = (values(cols, seed + 1), values(rows, seed + 2));
        for kernels in Level::available().filter_map(Kernels::at) {
            let mut input = LaneInput::new(cols);
            input.set(kernels, &x);
            let mut out = vec![f32::NAN; rows];
            matrix.matvec(kernels, &input, &mut out);
            for (y, row) in out.iter().zip(weights.chunks_exact(cols)) {
                let terms = || row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let blocks = row.chunks(32).zip(x.chunks(32)).map(|(w, x)| {
                    x.iter().fold(0.0, |a: f32, x| a.max(x.abs())) * w.iter().map(|w| w.abs()).sum::<f32>()
                });
                let bound = match lane {
                    PrecisionLane::Float => (cols + 1) as f64 * ROUNDING * terms().map(f64::abs).sum::<f64>(),
                    _ => blocks.map(f64::from).sum::<f64>() / 250.0,
                };
                let (y, expected) = (f64::from(*y), terms().sum::<f64>());
                prop_assert!((y - expected).abs() <= bound, "{} {} {}: {}", lane, y, expected, bound);
            }
            let mut sum = vec![f32::NAN; cols];
            matrix.weighted_sum(kernels, &h, &mut sum);
            for (c, y) in sum.iter().enumerate() {
                let terms = || (0..rows).map(|r| f64::from(h[r]) * f64::from(weights[r * cols + c]));
                let bound = (rows + 2) as f64 * ROUNDING * terms().map(f64::abs).sum::<f64>();
                let (y, expected) = (f64::from(*y), terms().sum::<f64>());
                prop_assert!((y - expected).abs() <= bound, "{} {} {}: {}", lane, y, expected, bound);
            }
        }
    }

    #[test]
    fn eight_and_four_bits_of_rows_of_any_length(rows in 0usize..5, cols in 1usize..100, seed in 0usize..100) {
        let original: Vec<Vec<f32>> = (0..rows).map(|r| values(cols, seed + r)).collect();
        let eight = QuantizedWeights::quantize_int8(&original);
        let four = QuantizedWeights::quantize_int4(&original, 32);
        let wide = QuantizedWeights::quantize_int4(&original, 64);
        let format = |w: &QuantizedWeights| w.as_rows().format();
        prop_assert_eq!([format(&eight), format(&four)], [BlockFormat::Q8_0, BlockFormat::Q4_0]);
        for (weights, share) in [(&eight, 0.012), (&four, 0.16), (&wide, 0.25)] {
            prop_assert_eq!((weights.rows(), weights.cols()), (rows, if rows == 0 { 0 } else { cols }));
            for (r, row) in original.iter().enumerate() {
                let largest = row.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                let back = weights.dequantize_row(r);
                prop_assert_eq!(back.len(), cols);
                for (a, b) in row.iter().zip(back) {
                    prop_assert!((a - b).abs() <= share * largest, "{} {}", a, b);
                }
            }
        }
    }
}

#[test]
fn what_is_no_number_makes_its_block_nan() {
    let rows = [[1.0, f32::NAN], [1.0, 2.0]];
    let weights = QuantizedWeights::quantize_int8(&rows);
    assert!(weights.dequantize_row(0).iter().all(|x| x.is_nan()));
    assert!((weights.dequantize_row(1)[1] - 2.0).abs() < 0.02);
}

#[test]
fn a_delta_adds_what_its_factors_say() {
    let (rank, inputs, outputs) = (3, 96, 64);
    let (a, b) = (values(rank * inputs, 5), values(outputs * rank, 6));
    let delta = LaneDelta::new(rank, &a, &b).unwrap();
    assert_eq!((delta.rank(), delta.inputs(), delta.outputs()), (rank, inputs, outputs));
    assert_eq!(delta.bytes() * 8, rank * (inputs + outputs) * 15 / 2);
    let (x, mut y) = (values(inputs, 7), vec![0.5; outputs]);
    delta.apply(Kernels::get(), &x, &mut delta.scratch(), &mut y);
    let hidden: Vec<f32> =
        a.chunks_exact(inputs).map(|a| a.iter().zip(&x).map(|(a, x)| a * x).sum()).collect();
    let expected: Vec<f32> =
        b.chunks_exact(rank).map(|b| 0.5 + b.iter().zip(&hidden).map(|(b, h)| b * h).sum::<f32>()).collect();
    assert!(decibels(&expected, &y) > 33.0, "{}", decibels(&expected, &y));
    for (rank, a, b) in [(0, 96, 96), (5, 96, 160), (3, 96, 97), (3, 100, 96)] {
        assert!(LaneDelta::new(rank, &vec![0.0; a], &vec![0.0; b]).is_err(), "{rank} {a} {b}");
    }
}
