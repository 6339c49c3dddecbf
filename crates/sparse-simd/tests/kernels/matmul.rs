//! Matrix products.

use super::data::{Activations, Rng, quantized, set_factors, weights};
use super::{levels, none, within};
use half::f16;
use proptest::prelude::*;
use sparse_simd::layout::*;
use sparse_simd::{Kernels, Level, MatMut, Q8, Rows};

/// Shapes as (rows, cols, tokens): odd and even numbers of rows, whole and part steps, all remainders of tiles, more
/// columns than a kernel takes at a time.
const SHAPES: [(usize, usize, usize); 15] = [
    (0, 256, 2),
    (1, 256, 1),
    (2, 256, 0),
    (3, 256, 2),
    (2, 512, 3),
    (5, 256, 4),
    (4, 768, 5),
    (7, 1536, 1),
    (3, 256, 8),
    (6, 2048, 9),
    (64, 256, 1),
    (9, 5632, 17),
    (75, 256, 1),
    (70, 768, 7),
    (5, 16896, 1),
];

/// The same for formats with blocks of 32.
const SMALL_SHAPES: [(usize, usize, usize); 13] = [
    (1, 32, 1),
    (2, 64, 1),
    (3, 96, 2),
    (4, 128, 4),
    (5, 160, 3),
    (3, 224, 5),
    (4, 288, 7),
    (33, 576, 1),
    (6, 576, 8),
    (7, 1568, 6),
    (71, 1568, 1),
    (67, 608, 7),
    (5, 16416, 2),
];

fn shapes(format: BlockFormat) -> impl Iterator<Item = (usize, usize, usize)> {
    SHAPES.into_iter().chain(SMALL_SHAPES).filter(move |shape| format.row_bytes(shape.1).is_some())
}

/// Row times token in f64, and the sum of absolute values that the bound is relative to.
pub(super) fn reference(format: BlockFormat, row: &[u8], x: Q8<'_>) -> (f64, f64) {
    let (mut sum, mut size) = (0.0, 0.0);
    for (b, block) in row.chunks_exact(format.block_bytes()).enumerate() {
        for (i, products) in format.products(block).enumerate() {
            let at = b * format.block_len() + i;
            let x = f64::from(x.d[at / 32]) * f64::from(x.q[at]);
            for product in products {
                sum += product * x;
                size += (product * x).abs();
            }
        }
    }
    (sum, size)
}

fn product(kernels: &Kernels, w: Rows<'_>, x: Q8<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; w.rows() * x.tokens()];
    if w.rows() > 0 {
        kernels.matmul_q8(w, x, &mut MatMut::new(&mut out, w.rows()));
    }
    out
}

/// What is wrong with the product at any level.
fn wrong(w: Rows<'_>, x: Q8<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    for kernels in levels() {
        let out = product(kernels, w, x);
        for t in 0..x.tokens() {
            for r in 0..w.rows() {
                let (expected, size) = reference(w.format(), w.row(r), x.row(t));
                let found = f64::from(out[t * w.rows() + r]);
                if !within(found, expected, 1e-5 * size) {
                    let shape = (w.rows(), w.cols(), x.tokens());
                    failures.push(format!(
                        "{} {} {shape:?} row {r} token {t}: {found}, expected {expected} (size {size})",
                        kernels.level(),
                        w.format().name()
                    ));
                }
            }
        }
    }
    failures
}

#[test]
fn every_format_and_shape_is_within_the_bound() {
    let mut failures = Vec::new();
    for format in quantized() {
        for (rows, cols, tokens) in shapes(format) {
            let mut rng = Rng((rows * cols + tokens) as u64);
            let x = Activations::random(cols, tokens, &mut rng);
            // The bytes start at an odd address.
            let mut bytes = vec![0];
            bytes.extend(weights(format, rows * cols, &mut rng));
            failures.extend(wrong(Rows::new(format, cols, &bytes[1..]).unwrap(), x.view()));
        }
    }
    none(failures);
}

#[test]
fn extreme_codes_do_not_saturate() {
    let mut failures = Vec::new();
    for format in quantized() {
        let cols = 2 * format.block_len();
        for byte in [0x00, 0x0F, 0x7F, 0x80, 0xF0, 0xFF] {
            for (even, odd) in [(127, 127), (-127, -127), (127, -127), (-127, 127)] {
                let mut bytes = vec![byte; format.row_bytes(cols * 3).unwrap()];
                set_factors(format, &mut bytes, || 1.0);
                let q = (0..cols * 5).map(|i| if i % 2 == 0 { even } else { odd }).collect();
                let x = Activations::new(cols, q, vec![1.0; cols * 5 / 32]);
                failures.extend(wrong(Rows::new(format, cols, &bytes).unwrap(), x.view()));
            }
        }
    }
    none(failures);
}

/// With all float factors one, every sum is an integer below 2^24: then f32 is exact in any order, and a single
/// wrong bit in the integer parts shows.
#[test]
fn integer_parts_are_exact() {
    let mut failures = Vec::new();
    for format in quantized() {
        let cols = 256;
        for seed in 0..50 {
            let mut rng = Rng(seed);
            let mut bytes = weights(format, cols * 3, &mut rng);
            set_factors(format, &mut bytes, || 1.0);
            let q = (0..cols * 6).map(|_| (rng.next() % 255) as i8).map(|q| q.max(-127)).collect();
            let x = Activations::new(cols, q, vec![1.0; cols * 6 / 32]);
            let w = Rows::new(format, cols, &bytes).unwrap();
            for kernels in levels() {
                for (i, found) in product(kernels, w, x.view()).into_iter().enumerate() {
                    let (expected, size) = reference(format, w.row(i % 3), x.view().row(i / 3));
                    assert!(size < f64::from(1 << 26), "the test's own premise");
                    if f64::from(found) != expected {
                        failures.push(format!(
                            "{} {}: {found} for {expected}",
                            kernels.level(),
                            format.name()
                        ));
                    }
                }
            }
        }
    }
    none(failures);
}

#[test]
fn non_finite_scales_reach_the_result_of_their_row_alone() {
    let mut failures = Vec::new();
    for format in quantized() {
        for (cols, bad) in [(format.block_len(), 0), (256, 0), (1024, 1024 / format.block_len() - 1)] {
            for scale in [f32::NAN, f32::INFINITY] {
                let mut rng = Rng(7);
                let x = Activations::random(cols, 5, &mut rng);
                let mut bytes = weights(format, cols * 3, &mut rng);
                let at = format.row_bytes(cols).unwrap() + bad * format.block_bytes();
                set_factors(format, &mut bytes[at..][..format.block_bytes()], || scale);
                for kernels in levels() {
                    let out = product(kernels, Rows::new(format, cols, &bytes).unwrap(), x.view());
                    for (i, y) in out.iter().enumerate() {
                        if y.is_finite() == (i % 3 == 1) {
                            let level = kernels.level();
                            failures.push(format!("{level} {} {cols} {scale}: [{i}] = {y}", format.name()));
                        }
                    }
                }
            }
        }
    }
    none(failures);
}

#[test]
fn windows_are_written_and_nothing_else() {
    let mut failures = Vec::new();
    for format in BlockFormat::ALL {
        let (rows, cols, tokens) = (5, 512, 6);
        let mut rng = Rng(3);
        let bytes = weights(format, rows * cols, &mut rng);
        let w = Rows::new(format, cols, &bytes).unwrap();
        let floats = rng.floats(cols * tokens);
        let x = Activations::quantized(Kernels::at(Level::Scalar).unwrap(), &floats, cols);
        for kernels in levels() {
            let run = |w, out: &mut MatMut<'_>| match format.is_quantized() {
                true => kernels.matmul_q8(w, x.view(), out),
                false => kernels.matmul_f32(w, &floats, out),
            };
            let mut whole = vec![0.0; rows * tokens];
            run(w, &mut MatMut::new(&mut whole, rows));
            let mut wide = vec![-1.0; (rows + 4) * tokens];
            let mut matrix = MatMut::new(&mut wide, rows + 4);
            run(w.slice(0..2), &mut matrix.columns(3..5));
            run(w.slice(2..2), &mut matrix.columns(5..5));
            run(w.slice(2..5), &mut matrix.columns(5..8));
            for (t, row) in wide.chunks_exact(rows + 4).enumerate() {
                if row[..3] != [-1.0; 3] || row[8..] != [-1.0] || row[3..8] != whole[t * rows..][..rows] {
                    failures.push(format!("{} {} token {t}", kernels.level(), format.name()));
                }
            }
        }
    }
    none(failures);
}

/// Threads split matrices by rows, and must not change the result by that.
#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    let mut failures = Vec::new();
    for (format, cols) in BlockFormat::ALL.into_iter().flat_map(|f| [(f, 512), (f, 2304)]) {
        for tokens in [1, 3, 7, 30] {
            let rows = 39;
            let mut rng = Rng((cols + tokens) as u64);
            let bytes = weights(format, rows * cols, &mut rng);
            let w = Rows::new(format, cols, &bytes).unwrap();
            let floats = rng.floats(cols * tokens);
            let x = Activations::quantized(Kernels::at(Level::Scalar).unwrap(), &floats, cols);
            for kernels in levels() {
                let run = |w: Rows<'_>, out: &mut MatMut<'_>| match format.is_quantized() {
                    true => kernels.matmul_q8(w, x.view(), out),
                    false => kernels.matmul_f32(w, &floats, out),
                };
                let (mut whole, mut parts) = (vec![0.0; rows * tokens], vec![0.0; rows * tokens]);
                run(w, &mut MatMut::new(&mut whole, rows));
                let mut matrix = MatMut::new(&mut parts, rows);
                for part in [0..1, 1..6, 6..8, 8..39] {
                    run(w.slice(part.clone()), &mut matrix.columns(part));
                }
                let differ = whole.iter().zip(&parts).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                if differ > 0 {
                    let level = kernels.level();
                    failures
                        .push(format!("{level} {} {cols} columns, {tokens} tokens: {differ}", format.name()));
                }
            }
        }
    }
    none(failures);
}

#[test]
fn each_token_has_the_bits_that_it_has_alone() {
    let mut failures = Vec::new();
    for (format, cols) in
        BlockFormat::ALL.into_iter().flat_map(|f| [160, 512, 576, 2304, 4352, 16640].map(|cols| (f, cols)))
    {
        if format.row_bytes(cols).is_none() {
            continue;
        }
        for tokens in [2, 3, 7, 9, 30] {
            let rows = if cols > 4000 { 5 } else { 39 };
            let mut rng = Rng((cols + tokens) as u64);
            let bytes = weights(format, rows * cols, &mut rng);
            let w = Rows::new(format, cols, &bytes).unwrap();
            let floats = rng.floats(cols * tokens);
            let x = Activations::quantized(Kernels::at(Level::Scalar).unwrap(), &floats, cols);
            for kernels in levels() {
                let (mut together, mut alone) = (vec![0.0; rows * tokens], vec![0.0; rows * tokens]);
                let mut out = MatMut::new(&mut together, rows);
                match format.is_quantized() {
                    true => kernels.matmul_each_q8(w, x.view(), &mut out),
                    false => kernels.matmul_each_f32(w, &floats, &mut out),
                }
                for (t, out) in alone.chunks_mut(rows).enumerate() {
                    let mut out = MatMut::new(out, rows);
                    match format.is_quantized() {
                        true => kernels.matmul_q8(w, x.view().row(t), &mut out),
                        false => kernels.matmul_f32(w, &floats[t * cols..][..cols], &mut out),
                    }
                }
                let differ = together.iter().zip(&alone).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                if differ > 0 {
                    let level = kernels.level();
                    failures
                        .push(format!("{level} {} {cols} columns, {tokens} tokens: {differ}", format.name()));
                }
            }
        }
    }
    none(failures);
}

const FLOATS: [BlockFormat; 3] = [BlockFormat::F32, BlockFormat::F16, BlockFormat::Bf16];

/// What is wrong with a product of floats at any level: with the rows as they are, or with their columns.
fn wrong_floats(
    (rows, cols, tokens): (usize, usize, usize),
    run: impl Fn(&Kernels, Rows<'_>, &[f32], &mut MatMut<'_>),
    transposed: bool,
) -> Vec<String> {
    let mut failures = Vec::new();
    let (outputs, depth) = if transposed { (rows, cols) } else { (cols, rows) };
    for format in FLOATS {
        let mut rng = Rng((cols * rows * 10 + tokens) as u64);
        let mut bytes = vec![0];
        bytes.extend(weights(format, rows * cols, &mut rng));
        let w = Rows::new(format, cols, &bytes[1..]).unwrap();
        let x = rng.floats(depth * tokens);
        let mut values = vec![0.0; rows * cols];
        format.decode(w.data(), &mut values).unwrap();
        for kernels in levels() {
            let mut out = vec![f32::NAN; outputs * tokens];
            run(kernels, w, &x, &mut MatMut::new(&mut out, outputs));
            for (i, &found) in out.iter().enumerate() {
                let (t, o) = (i / outputs, i % outputs);
                let terms = (0..depth).map(|n| {
                    let at = if transposed { o * cols + n } else { n * cols + o };
                    f64::from(x[t * depth + n]) * f64::from(values[at])
                });
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                if !within(f64::from(found), sum, 1e-6 * size) {
                    let (level, name) = (kernels.level(), format.name());
                    failures.push(format!(
                        "{level} {name} {rows}x{cols}, {tokens} tokens, {i}: {found}, expected {sum}"
                    ));
                }
            }
        }
    }
    failures
}

#[test]
fn float_weights_are_within_the_bound() {
    let mut failures = Vec::new();
    let matmul = |k: &Kernels, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>| k.matmul_f32(w, x, out);
    for cols in (1..40).chain([64, 100, 576, 1537]) {
        for (rows, tokens) in [(1, 1), (2, 4), (3, 5), (4, 0), (9, 3)] {
            failures.extend(wrong_floats((rows, cols, tokens), matmul, true));
        }
    }
    for shape in [(1, 64, 24), (17, 33, 25), (16, 384, 29), (33, 385, 36), (48, 800, 24), (15, 1, 31)] {
        failures.extend(wrong_floats(shape, matmul, true));
    }
    none(failures);
}

#[test]
fn sums_of_weighted_rows_are_within_the_bound() {
    let mut failures = Vec::new();
    let sum = |k: &Kernels, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>| k.weighted_sum(x, w, out);
    for cols in (1..40).chain([64, 80, 100, 130]) {
        for tokens in (0..9).chain([12, 25]) {
            failures.extend(wrong_floats((cols % 7, cols, tokens), sum, false));
        }
    }
    for shape in [(384, 64, 12), (385, 64, 13), (800, 48, 17), (800, 65, 3), (1, 16, 48)] {
        failures.extend(wrong_floats(shape, sum, false));
    }
    none(failures);
}

#[test]
fn non_finite_float_weights_propagate() {
    for kernels in levels() {
        for bad in [0, 9, 40] {
            let mut w = vec![f16::ONE; 3 * 41];
            w[41 + bad] = f16::NAN;
            let mut out = [0.0; 3 * 5];
            let rows = Rows::new(BlockFormat::F16, 41, bytemuck::cast_slice(&w)).unwrap();
            kernels.matmul_f32(rows, &[0.5; 41 * 5], &mut MatMut::new(&mut out, 3));
            for y in out.chunks_exact(3) {
                assert!(y[0] == 20.5 && y[1].is_nan() && y[2] == 20.5, "{} {bad}: {y:?}", kernels.level());
            }
        }
    }
}

#[cfg(panic = "unwind")]
#[test]
fn mistakes_are_named() {
    let bytes = [0; 36];
    let x = Activations::random(64, 1, &mut Rng(0));
    let kernels = Kernels::at(Level::Scalar).unwrap();
    let message = |run: &dyn Fn()| {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
        caught.downcast_ref::<String>().cloned().unwrap()
    };
    let w = |format, cols| Rows::new(format, cols, &bytes).unwrap();
    let run = |w, out: &mut [f32]| kernels.matmul_q8(w, x.view(), &mut MatMut::new(out, 1));
    assert_eq!(
        message(&|| run(w(BlockFormat::Q4_0, 32).slice(0..1), &mut [0.0])),
        "matmul_q8: w.cols is 32 but x.cols is 64"
    );
    assert_eq!(
        message(&|| run(w(BlockFormat::Q4_0, 64), &mut [0.0; 2])),
        "matmul_q8: x.tokens is 1 but out.tokens is 2"
    );
    assert_eq!(
        message(&|| kernels.matmul_f32(
            w(BlockFormat::Q4_0, 64),
            &[0.0; 64],
            &mut MatMut::new(&mut [0.0], 1)
        )),
        "matmul_f32: Q4_0 weights are multiplied by matmul_q8"
    );
    let short = Q8 { d: &x.d[..1], ..x.view() };
    assert_eq!(
        message(&|| kernels.matmul_q8(w(BlockFormat::Q4_0, 64), short, &mut MatMut::new(&mut [0.0], 1))),
        "Q8: 64 codes need 2 scales, found 1"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_codes_and_scales(
        format in prop::sample::select(quantized().collect::<Vec<_>>()),
        rows in 1usize..6,
        tokens in 1usize..7,
        blocks in 1usize..20,
        seed: u64,
        scales in prop::collection::vec(-60000.0f32..60000.0, 1..8),
    ) {
        let cols = format.block_len() * blocks.min(if format.block_len() == 256 { 4 } else { 20 });
        let mut rng = Rng(seed);
        let mut bytes = rng.bytes(format.row_bytes(cols * rows).unwrap());
        let mut scales = scales.iter().copied().cycle();
        set_factors(format, &mut bytes, || scales.next().unwrap());
        let x = Activations::random(cols, tokens, &mut rng);
        let failures = wrong(Rows::new(format, cols, &bytes).unwrap(), x.view());
        prop_assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
