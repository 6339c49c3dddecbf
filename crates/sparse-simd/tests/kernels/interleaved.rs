//! Interleaved rows: the layout and back, and products.

use super::data::{Activations, Rng, quantized, set_factors, weights};
use super::matmul::reference;
use super::{levels, none, within};
use proptest::prelude::*;
use sparse_simd::{BlockFormat, Kernels, Level, MatMut, Rows};
use sparse_simd::{Interleaved, InterleavedLayout, ShapeError};

/// The formats that have products.
fn formats() -> impl Iterator<Item = BlockFormat> {
    quantized().filter(|format| Kernels::get().has_interleaved(*format))
}

fn interleaved(format: BlockFormat, rows: usize, cols: usize, bytes: &[u8]) -> (InterleavedLayout, Vec<u8>) {
    let layout = InterleavedLayout::new(format, rows, cols).unwrap();
    let mut out = vec![0xAA; layout.bytes()];
    layout.interleave(Rows::new(format, cols, bytes).unwrap(), &mut out);
    (layout, out)
}

proptest! {
    #[test]
    fn rows_come_back_byte_for_byte(
        format in prop::sample::select(BlockFormat::ALL.to_vec()),
        rows in 0_usize..20,
        blocks in 1_usize..4,
        seed: u64,
    ) {
        if let Err(error) = InterleavedLayout::new(format, rows, blocks * format.block_len()) {
            prop_assert!(!fits(format), "{error}");
            prop_assert_eq!(error, ShapeError::NoInterleaving { format });
            return Ok(());
        }
        prop_assert!(fits(format));
        let bytes = Rng(seed).bytes(rows * blocks * format.block_bytes());
        let (layout, groups) = interleaved(format, rows, blocks * format.block_len(), &bytes);
        let mut back = vec![0; bytes.len()];
        Interleaved::new(layout, &groups).unwrap().restore(&mut back);
        prop_assert_eq!(back, bytes);
    }
}

/// Whether blocks are factors and words of four bytes.
fn fits(format: BlockFormat) -> bool {
    use BlockFormat as F;
    let floats = matches!(format, F::F32 | F::F16 | F::Bf16);
    let small = matches!(format, F::Tq1_0 | F::Q1_0);
    let codebooks = matches!(format, F::Iq1S | F::Iq2Xxs | F::Iq2Xs | F::Iq2S | F::Iq3Xxs | F::Iq3S);
    !(floats || small || codebooks)
}

#[test]
fn whole_groups_are_as_long_as_their_rows() {
    for format in quantized().filter(|format| fits(*format)) {
        let of = |rows| InterleavedLayout::new(format, rows, 512).unwrap();
        assert_eq!(of(16).bytes(), 16 * format.row_bytes(512).unwrap(), "{format:?}");
        assert_eq!(of(9).bytes(), of(16).bytes(), "{format:?}");
    }
    assert!(InterleavedLayout::new(BlockFormat::Q4K, 8, 288).is_err());
    assert!(InterleavedLayout::new(BlockFormat::Q4_0, usize::MAX, 32).is_err());
    assert!(InterleavedLayout::new(BlockFormat::Q4_0, 8, 0).is_err());
    assert!(InterleavedLayout::new(BlockFormat::F16, 8, 32).is_err());
    let layout = InterleavedLayout::new(BlockFormat::Q4_0, 8, 32).unwrap();
    assert!(Interleaved::new(layout, &[0; 143]).is_err());
}

/// All remainders of groups, of tiles of tokens and of steps; columns that are one step, many, and more than fit a batch.
#[test]
fn products_are_those_of_the_rows_and_the_same_at_every_level() {
    let mut failures = Vec::new();
    let mut rng = Rng(3);
    for format in formats() {
        let shapes = [
            (8, 256, 1),
            (1, 256, 3),
            (7, 512, 2),
            (16, 768, 4),
            (17, 256, 5),
            (24, 1536, 9),
            (9, 66048, 5),
            (16, 256, 131),
        ];
        let small = [
            (8, 32, 1),
            (3, 64, 2),
            (12, 96, 3),
            (31, 224, 7),
            (8, 288, 4),
            (40, 576, 8),
            (11, 608, 6),
            (9, 32, 135),
        ];
        for (rows, cols, tokens) in shapes.into_iter().chain(small) {
            if format.row_bytes(cols).is_none() {
                continue;
            }
            let bytes = weights(format, rows * cols, &mut rng);
            let (layout, groups) = interleaved(format, rows, cols, &bytes);
            // Unaligned, as weights in a file may be.
            let mut shifted = vec![0];
            shifted.extend(&groups);
            let w = Interleaved::new(layout, &shifted[1..]).unwrap();
            let x = Activations::random(cols, tokens, &mut rng);
            let run = |k: &Kernels| {
                let mut out = vec![f32::NAN; rows * tokens];
                k.matmul_interleaved(w, x.view(), &mut MatMut::new(&mut out, rows));
                out
            };
            let expected = run(Kernels::at(Level::Scalar).unwrap());
            let plain = Rows::new(format, cols, &bytes).unwrap();
            for (i, found) in expected.iter().enumerate() {
                let (sum, size) = reference(format, plain.row(i % rows), x.view().row(i / rows));
                // An offset becomes a part of its own, as large as the codes.
                if !within(f64::from(*found), sum, 4e-6 * size) {
                    failures.push(format!("{format:?} {rows} x {cols}: {found}, expected {sum} of {size}"));
                }
            }
            for k in levels() {
                if run(k).iter().map(|y| y.to_bits()).ne(expected.iter().map(|y| y.to_bits())) {
                    failures.push(format!("{format:?} {} {rows} x {cols} x {tokens} differs", k.level()));
                }
            }
        }
    }
    none(failures);
}

/// The largest codes and activations: nothing may saturate or wrap.
#[test]
fn extreme_codes_are_exact() {
    let mut failures = Vec::new();
    for format in formats() {
        for fill in [0x00, 0xFF, 0x7F, 0x80, 0x88, 0x0F, 0xF0] {
            for q in [127, -127] {
                let (rows, cols) = (8, 512);
                let mut bytes = vec![fill; rows * format.row_bytes(cols).unwrap()];
                set_factors(format, &mut bytes, || 1.0);
                let (layout, groups) = interleaved(format, rows, cols, &bytes);
                let x = Activations::new(cols, vec![q; cols], vec![1.0; cols / 32]);
                for k in levels() {
                    let mut out = vec![f32::NAN; rows];
                    let w = Interleaved::new(layout, &groups).unwrap();
                    k.matmul_interleaved(w, x.view(), &mut MatMut::new(&mut out, rows));
                    let row = Rows::new(format, cols, &bytes).unwrap().row(0);
                    let (sum, size) = reference(format, row, x.view());
                    if !out.iter().all(|y| within(f64::from(*y), sum, 4e-6 * size)) {
                        failures
                            .push(format!("{format:?} {fill:#x} {q} {}: {out:?}, expected {sum}", k.level()));
                    }
                }
            }
        }
    }
    none(failures);
}

#[test]
fn a_token_does_not_depend_on_the_others_nor_a_group_on_the_window() {
    let mut rng = Rng(5);
    for format in formats() {
        let (rows, cols, tokens) = (27, 512, 11);
        let bytes = weights(format, rows * cols, &mut rng);
        let (layout, groups) = interleaved(format, rows, cols, &bytes);
        let w = Interleaved::new(layout, &groups).unwrap();
        let x = Activations::random(cols, tokens, &mut rng);
        for k in levels() {
            let mut all = vec![0.0; rows * tokens];
            k.matmul_interleaved(w, x.view(), &mut MatMut::new(&mut all, rows));
            for t in 0..tokens {
                for range in [0..8, 8..rows, 24..rows, 16..16] {
                    let mut out = vec![0.0; range.len()];
                    if range.is_empty() {
                        continue;
                    }
                    let mut window = MatMut::new(&mut out, range.len());
                    k.matmul_interleaved(w.slice(range.clone()), x.view().row(t), &mut window);
                    assert_eq!(out, all[t * rows..][range], "{format:?} {}", k.level());
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    for format in formats() {
        let (rows, cols) = (8, 256);
        let mut bytes = weights(format, rows * cols, &mut Rng(7));
        let row = format.row_bytes(cols).unwrap();
        set_factors(format, &mut bytes[2 * row..3 * row], || f32::NAN);
        let (layout, groups) = interleaved(format, rows, cols, &bytes);
        let w = Interleaved::new(layout, &groups).unwrap();
        let x = Activations::random(cols, 1, &mut Rng(8));
        for k in levels() {
            let mut out = vec![0.0; rows];
            k.matmul_interleaved(w, x.view(), &mut MatMut::new(&mut out, rows));
            assert!(out.iter().enumerate().all(|(r, y)| y.is_nan() == (r == 2)), "{format:?}: {out:?}");
        }
    }
}
