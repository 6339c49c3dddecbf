//! Weights stored by columns, and products with some rows or some columns.

use super::data::{Activations, Rng, quantized, set_factors, weights};
use super::matmul::reference;
use super::{levels, none, within};
use proptest::prelude::*;
use sparse_simd::{BlockFormat, ColumnLayout, Columns, MatMut, Q8, Rows};

/// Shapes as (rows, cols): whole chunks, part of one, one more row, none.
const SHAPES: [(usize, usize); 9] =
    [(64, 256), (1, 256), (63, 512), (65, 256), (192, 768), (100, 1024), (128, 32), (70, 96), (0, 256)];

fn shapes(format: BlockFormat) -> impl Iterator<Item = (usize, usize)> {
    SHAPES.into_iter().filter(move |shape| format.row_bytes(shape.1).is_some())
}

/// The formats that can be stored by columns.
fn columnar() -> impl Iterator<Item = BlockFormat> {
    BlockFormat::ALL.into_iter().filter(|format| format.has_columns())
}

/// The bytes of a copy by columns, one byte off any alignment.
fn relaid(w: Rows<'_>) -> (ColumnLayout, Vec<u8>) {
    let layout = ColumnLayout::new(w.format(), w.rows(), w.cols()).unwrap();
    let mut bytes = vec![0xA5; layout.bytes() + 1];
    layout.relayout(w, &mut bytes[1..]);
    (layout, bytes)
}

/// A random sorted set, each of `n` with a probability of `tenths / 10`.
fn choose(n: usize, tenths: u64, rng: &mut Rng) -> Vec<u32> {
    (0..n as u32).filter(|_| rng.next() % 10 < tenths).collect()
}

/// `x` with zeros outside `active`.
fn only(x: &Activations, active: &[u32]) -> Activations {
    let keep = |i: usize| active.binary_search(&(i as u32)).is_ok();
    let q = x.q.iter().enumerate().map(|(i, q)| if keep(i) { *q } else { 0 }).collect();
    Activations::new(x.cols, q, x.d.clone())
}

#[test]
fn a_copy_by_columns_can_be_undone() {
    for format in columnar() {
        for (rows, cols) in shapes(format).chain([(3, 1)].into_iter().filter(|_| !format.is_quantized())) {
            let bytes = Rng(rows as u64).bytes(format.row_bytes(cols).unwrap() * rows);
            let (layout, copy) = relaid(Rows::new(format, cols, &bytes).unwrap());
            let mut back = vec![0x5A; bytes.len()];
            Columns::new(layout, &copy[1..]).unwrap().restore(&mut back);
            assert_eq!(back, bytes, "{} {rows}x{cols}", format.name());
        }
    }
}

#[test]
fn sizes_are_those_that_are_documented() {
    for format in columnar() {
        let layout = ColumnLayout::new(format, 2048, 5632).unwrap();
        let rows = format.row_bytes(5632).unwrap() * 2048;
        let more = match format {
            BlockFormat::Q3K => 114.0 / 110.0,
            BlockFormat::Q4K => 148.0 / 144.0,
            BlockFormat::Q5K => 180.0 / 176.0,
            BlockFormat::Iq4Xs => 138.0 / 136.0,
            _ => 1.0,
        };
        assert_eq!(layout.bytes() as f64, (rows as f64 * more).round(), "{}", format.name());
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let error = |format, rows, cols| ColumnLayout::new(format, rows, cols).unwrap_err().to_string();
    assert!(error(BlockFormat::Q4_0, 4, 33).starts_with("rows of 33 values cannot be Q4_0"));
    assert!(error(BlockFormat::F32, 4, 0).starts_with("rows of 0 values"));
    assert!(error(BlockFormat::Q4K, usize::MAX, 256).starts_with("rows of 256 values"));
    assert_eq!(error(BlockFormat::Iq2Xxs, 4, 256), "IQ2_XXS weights cannot be stored by columns");
    let layout = ColumnLayout::new(BlockFormat::Q4_0, 2, 32).unwrap();
    assert_eq!(
        Columns::new(layout, &[0; 36]).unwrap_err().to_string(),
        "2 x 32 weights by columns of Q4_0 are 1152 bytes, found 36"
    );
}

/// What is wrong with the sparse and dense products by columns, and with those of some rows, at any level.
fn wrong(w: Rows<'_>, x: &Activations, columns: &[u32], rows: &[u32]) -> Vec<String> {
    let relaid = w.format().has_columns().then(|| relaid(w));
    let by_columns = relaid.as_ref().map(|(layout, copy)| Columns::new(*layout, &copy[1..]).unwrap());
    let kept = only(x, columns);
    let mut failures = Vec::new();
    for kernels in levels() {
        let mut check = |what: &str, r: usize, x: Q8<'_>, found: f32| {
            let (expected, size) = reference(w.format(), w.row(r), x);
            if !within(f64::from(found), expected, 1e-5 * size) {
                let (level, name, shape) = (kernels.level(), w.format().name(), (w.rows(), w.cols()));
                failures
                    .push(format!("{level} {name} {shape:?} {what} row {r}: {found}, expected {expected}"));
            }
        };
        if let Some(by_columns) = by_columns {
            let mut out = vec![f32::NAN; w.rows()];
            kernels.axpy_columns_q8(by_columns, columns, x.view().row(0), 0..w.rows(), &mut out);
            for (r, &y) in out.iter().enumerate() {
                check("axpy", r, kept.view().row(0), y);
            }
            let mut part = vec![f32::NAN; w.rows()];
            for first in (0..w.rows()).step_by(64) {
                let range = first..w.rows().min(first + 64);
                let part = &mut part[range.clone()];
                kernels.axpy_columns_q8(by_columns, columns, x.view().row(0), range, part);
            }
            assert_eq!(out, part, "{} {}: rows depend on the range", kernels.level(), w.format().name());
        }
        if let Some(by_columns) = by_columns.filter(|_| w.rows() > 0) {
            let mut dense = vec![f32::NAN; w.rows() * x.view().tokens()];
            let mut matrix = MatMut::new(&mut dense, w.rows());
            let split = w.rows() / 128 * 64;
            kernels.matmul_columns_q8(by_columns, x.view(), 0..split, &mut matrix.columns(0..split));
            let last = split..w.rows();
            kernels.matmul_columns_q8(by_columns, x.view(), last.clone(), &mut matrix.columns(last));
            for (i, &y) in dense.iter().enumerate() {
                check("dense", i % w.rows(), x.view().row(i / w.rows()), y);
            }
        }

        let mut picked = vec![f32::NAN; rows.len()];
        kernels.matmul_rows_q8(w, rows, x.view().row(0), &mut picked);
        for (&r, &y) in rows.iter().zip(&picked) {
            check("rows", r as usize, x.view().row(0), y);
        }
    }
    failures
}

#[test]
fn every_format_and_shape_is_within_the_bound() {
    let mut failures = Vec::new();
    for format in quantized() {
        for (rows, cols) in shapes(format) {
            for (tenths, tokens) in [(0, 1), (1, 2), (5, 7), (9, 3), (10, 13)] {
                let mut rng = Rng((rows * cols) as u64 + tenths);
                let x = Activations::random(cols, tokens, &mut rng);
                let bytes = weights(format, rows * cols, &mut rng);
                let (columns, picked) = (choose(cols, tenths, &mut rng), choose(rows, tenths, &mut rng));
                failures.extend(wrong(Rows::new(format, cols, &bytes).unwrap(), &x, &columns, &picked));
            }
        }
    }
    none(failures);
}

#[test]
fn extreme_codes_do_not_saturate() {
    let mut failures = Vec::new();
    for format in quantized() {
        let cols = 2 * format.block_len();
        for byte in [0x00, 0x7F, 0x80, 0xFF] {
            for q in [127, -127] {
                let mut bytes = vec![byte; format.row_bytes(cols * 3).unwrap()];
                set_factors(format, &mut bytes, || 1.0);
                let x = Activations::new(cols, vec![q; cols * 7], vec![1.0; cols * 7 / 32]);
                let columns: Vec<u32> = (0..cols as u32).filter(|c| c % 7 != 3).collect();
                failures.extend(wrong(Rows::new(format, cols, &bytes).unwrap(), &x, &columns, &[1, 2]));
            }
        }
    }
    none(failures);
}

#[test]
fn float_columns_and_rows_are_within_the_bound() {
    let mut failures = Vec::new();
    for format in [BlockFormat::F32, BlockFormat::F16, BlockFormat::Bf16] {
        for (rows, cols) in [(1, 1), (64, 5), (70, 33), (129, 100)] {
            let mut rng = Rng((rows * cols) as u64);
            let bytes = weights(format, rows * cols, &mut rng);
            let w = Rows::new(format, cols, &bytes).unwrap();
            let (layout, copy) = relaid(w);
            let by_columns = Columns::new(layout, &copy[1..]).unwrap();
            let x = rng.floats(cols);
            let mut values = vec![0.0; rows * cols];
            format.decode(&bytes, &mut values).unwrap();
            for tenths in [0, 3, 10] {
                let (columns, picked) = (choose(cols, tenths, &mut rng), choose(rows, tenths, &mut rng));
                for kernels in levels() {
                    let mut check = |what, r: usize, columns: &mut dyn Iterator<Item = usize>, found: f32| {
                        let terms = columns.map(|c| f64::from(values[r * cols + c]) * f64::from(x[c]));
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                        if !within(f64::from(found), sum, 1e-6 * size) {
                            let (level, name) = (kernels.level(), format.name());
                            failures.push(format!("{level} {name} {what} row {r}: {found}, expected {sum}"));
                        }
                    };
                    let mut out = vec![f32::NAN; rows];
                    for range in [0..rows / 128 * 64, rows / 128 * 64..rows] {
                        let out = &mut out[range.clone()];
                        kernels.axpy_columns_f32(by_columns, &columns, &x, range, out);
                    }
                    for (r, &y) in out.iter().enumerate() {
                        check("axpy", r, &mut columns.iter().map(|&c| c as usize), y);
                    }
                    kernels.matmul_columns_f32(by_columns, &x, &mut MatMut::new(&mut out, rows));
                    for (r, &y) in out.iter().enumerate() {
                        check("dense", r, &mut (0..cols), y);
                    }
                    let mut some = vec![f32::NAN; picked.len()];
                    kernels.matmul_rows_f32(w, &picked, &x, &mut some);
                    for (&r, &y) in picked.iter().zip(&some) {
                        check("rows", r as usize, &mut (0..cols), y);
                    }
                }
            }
        }
    }
    none(failures);
}

/// What is wrong with the weighted sums of some rows and of all, at any level.
fn wrong_sums(w: Rows<'_>, rng: &mut Rng) -> Vec<String> {
    let (rows, cols, len) = (w.rows(), w.cols(), w.format().block_len());
    let mut values = vec![0.0; rows * cols];
    w.format().decode(w.data(), &mut values).unwrap();
    let mut failures = Vec::new();
    for (tenths, tokens) in [(0, 0), (1, 1), (5, 3), (10, 13)] {
        let active = choose(rows, tenths, rng);
        let (h, x) = (rng.floats(active.len()), rng.floats(tokens * rows));
        for kernels in levels() {
            let mut check =
                |what: &str, c: usize, weights: &mut dyn Iterator<Item = (usize, f32)>, found: f32| {
                    let terms = weights.map(|(r, x)| f64::from(x) * f64::from(values[r * cols + c]));
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                    if !within(f64::from(found), sum, 1e-6 * size) {
                        let (level, name) = (kernels.level(), w.format().name());
                        failures.push(format!(
                            "{level} {name} {rows}x{cols} {what} column {c}: {found}, expected {sum}"
                        ));
                    }
                };
            let mut whole = vec![f32::NAN; cols];
            kernels.axpy_rows(w, &active, &h, 0..cols, &mut whole);
            for (c, &y) in whole.iter().enumerate() {
                check("axpy", c, &mut active.iter().map(|r| *r as usize).zip(h.iter().copied()), y);
            }
            let mut parts = vec![f32::NAN; cols];
            for range in [0..cols / len / 3 * len, cols / len / 3 * len..cols] {
                kernels.axpy_rows(w, &active, &h, range.clone(), &mut parts[range]);
            }
            assert_eq!(
                whole,
                parts,
                "{} {}: columns depend on the range",
                kernels.level(),
                w.format().name()
            );

            let mut added = vec![0.0; cols];
            let (first, second) = active.split_at(active.len() / 2);
            for (active, h) in [(first, &h[..first.len()]), (second, &h[first.len()..])] {
                kernels.add_rows(w, active, h, 0..cols, &mut added);
            }
            assert_eq!(whole, added, "{} {}: two sums are not one", kernels.level(), w.format().name());

            let mut out = vec![f32::NAN; tokens * cols];
            kernels.weighted_sum(&x, w, &mut MatMut::new(&mut out, cols));
            for (i, &y) in out.iter().enumerate() {
                let x = &x[i / cols * rows..][..rows];
                check("sum", i % cols, &mut x.iter().copied().enumerate(), y);
            }
        }
    }
    failures
}

#[test]
fn sums_of_rows_of_any_format_are_within_the_bound() {
    let mut failures = Vec::new();
    for format in BlockFormat::ALL {
        for (rows, cols) in [(0, 256), (1, 32), (3, 256), (9, 512), (70, 96), (67, 288), (40, 544), (5, 7)] {
            if format.row_bytes(cols).is_some() {
                let mut rng = Rng((rows * cols) as u64);
                let mut bytes = vec![0];
                bytes.extend(weights(format, rows * cols, &mut rng));
                failures.extend(wrong_sums(Rows::new(format, cols, &bytes[1..]).unwrap(), &mut rng));
            }
        }
    }
    none(failures);
}

/// A sum of one row with a weight of one is what decoding gives, bit for bit: also what is not a number.
#[test]
fn single_rows_are_decoded_exactly() {
    for format in BlockFormat::ALL {
        let cols = format.block_len() * if format.is_quantized() { 9 } else { 300 };
        let mut rng = Rng(3);
        let mut bytes = weights(format, cols, &mut rng);
        for scale in [0.37, 0.0, 6e-8, 65504.0, f32::INFINITY, f32::NAN] {
            set_factors(format, &mut bytes, || scale);
            let w = Rows::new(format, cols, &bytes).unwrap();
            let mut values = vec![0.0; cols];
            format.decode(&bytes, &mut values).unwrap();
            for kernels in levels() {
                let mut out = vec![f32::NAN; cols];
                kernels.axpy_rows(w, &[0], &[1.0], 0..cols, &mut out);
                for (c, (a, b)) in out.iter().zip(&values).enumerate() {
                    let (level, name) = (kernels.level(), format.name());
                    assert!(a == b || a.is_nan() && b.is_nan(), "{level} {name} {scale} [{c}]: {a}, not {b}");
                }
            }
        }
    }
}

#[test]
fn non_finite_scales_reach_the_result_of_their_row_alone() {
    for format in quantized().filter(|format| format.has_columns()) {
        let cols = 2 * format.block_len();
        for scale in [f32::NAN, f32::INFINITY] {
            let mut rng = Rng(7);
            let x = Activations::random(cols, 1, &mut rng);
            let mut bytes = weights(format, cols * 66, &mut rng);
            let at = 64 * format.row_bytes(cols).unwrap();
            set_factors(format, &mut bytes[at..][..format.block_bytes()], || scale);
            let (layout, copy) = relaid(Rows::new(format, cols, &bytes).unwrap());
            let w = Columns::new(layout, &copy[1..]).unwrap();
            let (first, second): (Vec<u32>, Vec<u32>) =
                (0..cols as u32).partition(|c| (*c as usize) < format.block_len());
            for kernels in levels() {
                let bad = |active: &[u32]| {
                    let mut out = [0.0; 66];
                    kernels.axpy_columns_q8(w, active, x.view(), 0..66, &mut out);
                    (0..66).filter(|r| !out[*r].is_finite()).collect::<Vec<_>>()
                };
                assert_eq!(bad(&first), [64], "{} {} {scale}", kernels.level(), format.name());
                assert!(bad(&second).is_empty(), "{} {} {scale}", kernels.level(), format.name());
            }
        }
    }
}

#[cfg(panic = "unwind")]
#[test]
fn mistakes_are_named() {
    let bytes = [0; 18 * 2 * 3];
    let w = Rows::new(BlockFormat::Q4_0, 64, &bytes).unwrap();
    let (layout, copy) = relaid(w);
    let by_columns = Columns::new(layout, &copy[1..]).unwrap();
    let x = Activations::random(64, 1, &mut Rng(0));
    for kernels in levels() {
        let message = |run: &dyn Fn()| {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
            caught
                .downcast_ref::<String>()
                .cloned()
                .or(caught.downcast_ref::<&str>().map(|s| s.to_string()))
                .unwrap()
        };
        let rows = |active: &[u32]| kernels.matmul_rows_q8(w, active, x.view(), &mut vec![0.0; active.len()]);
        assert_eq!(message(&|| rows(&[1, 3])), "matmul_rows_q8: active has 3, but there are 3");
        let axpy = |active: &[u32], range: std::ops::Range<usize>| {
            let n = range.len();
            kernels.axpy_columns_q8(by_columns, active, x.view(), range, &mut vec![0.0; n]);
        };
        let sum = |active: &[u32], range: std::ops::Range<usize>| {
            let n = range.len();
            kernels.axpy_rows(w, active, &[1.0; 2], range, &mut vec![0.0; n]);
        };
        assert_eq!(message(&|| sum(&[1, 3], 0..64)), "axpy_rows: active has 3, but there are 3");
        assert_eq!(message(&|| sum(&[1], 0..64)), "axpy_rows: active is 1 but h is 2");
        assert_eq!(message(&|| sum(&[1, 2], 0..96)), "axpy_rows: columns 0..96 of 64");
        assert_eq!(message(&|| sum(&[1, 2], 16..64)), "axpy_rows: columns 16..64 are no whole blocks of 32");
        assert_eq!(message(&|| axpy(&[64], 0..3)), "axpy_columns_q8: active has 64, but there are 64");
        assert_eq!(message(&|| axpy(&[0], 0..4)), "axpy_columns_q8: rows 0..4 of 3");
        assert_eq!(
            message(&|| axpy(&[0], 1..3)),
            "axpy_columns_q8: rows 1..3 do not begin at a multiple of 64"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_set_is_the_dense_product_of_what_it_keeps(
        format in prop::sample::select(quantized().collect::<Vec<_>>()),
        rows in 1usize..200,
        blocks in 1usize..20,
        tokens in 1usize..8,
        tenths in 0u64..=10,
        seed: u64,
    ) {
        let cols = format.block_len() * if format.block_len() == 256 { blocks.min(3) } else { blocks };
        let mut rng = Rng(seed);
        let bytes = weights(format, rows * cols, &mut rng);
        let x = Activations::random(cols, tokens, &mut rng);
        let (columns, picked) = (choose(cols, tenths, &mut rng), choose(rows, tenths, &mut rng));
        let failures = wrong(Rows::new(format, cols, &bytes).unwrap(), &x, &columns, &picked);
        prop_assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

/// Codes in a slab in another order, and rows by place: the same bits as from the matrix itself.
#[test]
fn places_change_no_bit() {
    let (rows, tenths) = (130, 3);
    for format in columnar() {
        let cols = format.block_len().max(32) * 3;
        let mut rng = Rng(11);
        let bytes = weights(format, rows * cols, &mut rng);
        let w = Rows::new(format, cols, &bytes).unwrap();
        let x = Activations::random(cols, 1, &mut rng);
        let floats: Vec<f32> = (0..cols).map(|c| (c * 31 % 17) as f32 - 8.0).collect();
        let (layout, copy) = relaid(w);
        let copy = &copy[1..];
        let mut factors = vec![0; layout.factor_bytes()];
        layout.take_factors(copy, &mut factors);
        let active = choose(cols, tenths, &mut rng);
        // Backwards, and one piece that is no column's.
        let (mut slab, mut places) = (vec![7; layout.column_bytes()], vec![u32::MAX; cols]);
        for (i, c) in active.iter().rev().enumerate() {
            slab.extend_from_slice(&copy[layout.column(*c as usize)]);
            places[*c as usize] = i as u32 + 1;
        }
        let mut again = vec![0; layout.bytes()];
        layout.put_factors(&factors, &mut again);
        for c in 0..cols {
            again[layout.column(c)].copy_from_slice(&copy[layout.column(c)]);
        }
        assert_eq!(again, copy, "{}", format.name());
        let inside = Columns::new(layout, copy).unwrap();
        let apart = Columns::apart(layout, &factors, &slab, &places).unwrap();
        let picked: Vec<u32> = (0..rows as u32).filter(|r| r % 3 != 1).collect();
        // Rows the other way round.
        let row_bytes = w.row_bytes();
        let turned: Vec<u8> = bytes.chunks(row_bytes).rev().flatten().copied().collect();
        let turned = Rows::new(format, cols, &turned).unwrap();
        let turned_rows: Vec<u32> = picked.iter().map(|r| rows as u32 - 1 - r).collect();
        for kernels in levels() {
            let name = format!("{} {}", kernels.level(), format.name());
            let sums = |w| {
                let mut out = vec![0.0; rows];
                match format.is_quantized() {
                    true => kernels.axpy_columns_q8(w, &active, x.view(), 0..rows, &mut out),
                    false => kernels.axpy_columns_f32(w, &active, &floats, 0..rows, &mut out),
                }
                out
            };
            assert_eq!(sums(inside), sums(apart), "{name}");
            let products = |w, active: &[u32]| {
                let mut out = vec![0.0; active.len()];
                match format.is_quantized() {
                    true => kernels.matmul_rows_q8(w, active, x.view(), &mut out),
                    false => kernels.matmul_rows_f32(w, active, &floats, &mut out),
                }
                out
            };
            assert_eq!(products(w, &picked), products(turned, &turned_rows), "{name}");
            let sums = |w, active: &[u32]| {
                let (h, mut out) = (vec![0.5; active.len()], vec![0.0; cols]);
                kernels.axpy_rows(w, active, &h, 0..cols, &mut out);
                out
            };
            assert_eq!(sums(w, &picked), sums(turned, &turned_rows), "{name}");
            // All rows of a slab, in any order.
            let all: Vec<u32> = (0..rows as u32).rev().collect();
            let backwards = products(w, &(0..rows as u32).collect::<Vec<_>>());
            assert_eq!(products(turned, &all), backwards, "{name}");
        }
    }
}
