//! Packed weights: products against plain arithmetic, and all levels against each other.

use super::data::Rng;
use super::{levels, none, within};
use proptest::prelude::*;
use sparse_simd::{Int8, Int8Mut, Kernels, Level, Line, MatMut, PanelKind, PanelLayout, Panels, ShapeError};

/// Owned packed weights.
pub(super) struct Packed {
    pub(super) layout: PanelLayout,
    pub(super) lines: Vec<Line>,
}

impl Packed {
    pub(super) fn new(kind: PanelKind, cols: usize, w: &[f32], bias: &[f32]) -> Self {
        let layout = PanelLayout::new(kind, bias.len(), cols).unwrap();
        let mut lines = vec![Line::ZERO; layout.lines()];
        for (r, (row, bias)) in w.chunks(cols).zip(bias).enumerate() {
            layout.write(r, row, *bias, &mut lines);
        }
        Self { layout, lines }
    }

    fn view(&self) -> Panels<'_> {
        Panels::new(self.layout, &self.lines).unwrap()
    }
}

/// Owned int8 activations.
#[derive(Clone, Debug, PartialEq)]
struct Codes {
    cols: usize,
    q: Vec<u8>,
    d: Vec<f32>,
}

impl Codes {
    fn quantized(kernels: &Kernels, x: &[f32], cols: usize) -> Self {
        let tokens = x.len() / cols;
        let mut codes = Self { cols, q: vec![7; tokens * Int8::stride(cols)], d: vec![7.0; tokens] };
        kernels.quantize_rows(x, &mut Int8Mut { cols, q: &mut codes.q, d: &mut codes.d });
        codes
    }

    fn view(&self) -> Int8<'_> {
        Int8 { cols: self.cols, q: &self.q, d: &self.d }
    }

    /// Code `c` of token `t`.
    fn code(&self, t: usize, c: usize) -> i64 {
        i64::from(self.q[t * Int8::stride(self.cols) + c]) - 128
    }
}

fn scalar() -> &'static Kernels {
    Kernels::at(Level::Scalar).unwrap()
}

/// The product, in the middle of a larger matrix that must stay as it is around it.
fn product(rows: usize, tokens: usize, f: impl FnOnce(&mut MatMut<'_>)) -> Vec<f32> {
    let mut all = vec![-7.0; tokens * (rows + 3)];
    f(&mut MatMut::new(&mut all, rows + 3).columns(1..rows + 1));
    let untouched = all.chunks(rows + 3).all(|row| row[0] == -7.0 && row[rows + 1..] == [-7.0; 2]);
    assert!(untouched, "written beside the window");
    all.chunks(rows + 3).flat_map(|row| row[1..rows + 1].to_vec()).collect()
}

/// The scale and the codes of a row, straight from the definition.
fn reference_row(w: &[f32]) -> (f32, Vec<i64>) {
    let max = w.iter().fold(0.0f32, |max, w| max.max(w.abs()));
    let inverse = if max == 0.0 { 0.0 } else { 127.0 / max };
    (max / 127.0, w.iter().map(|w| (w * inverse).round_ties_even() as i64).collect())
}

/// Shapes and numbers of tokens: every remainder of lanes, panels, tiles and blocks.
fn shapes() -> Vec<[usize; 3]> {
    let mut shapes: Vec<_> = (1..=34).map(|rows| [rows, 37, 3]).collect();
    shapes.extend((1..=70).map(|cols| [19, cols, 2]));
    shapes.extend((1..=27).map(|tokens| [33, 41, tokens]));
    shapes.extend([[64, 384, 16], [48, 1536, 5], [17, 2048, 3], [33, 2049, 13], [5, 4100, 7], [70, 385, 26]]);
    shapes
}

/// What is wrong with the int8 products of all levels: they are the exact sums, scaled in the order that is documented.
fn wrong_int8(rows: usize, cols: usize, w: &[f32], bias: &[f32], x: &Codes) -> Vec<String> {
    let packed = Packed::new(PanelKind::Int8, cols, w, bias);
    let tokens = x.d.len();
    let mut failures = Vec::new();
    for kernels in levels() {
        let found = product(rows, tokens, |out| kernels.matmul_panels_int8(packed.view(), x.view(), out));
        for r in 0..rows {
            let (scale, codes) = reference_row(&w[r * cols..][..cols]);
            for t in 0..tokens {
                let sum: i64 = codes.iter().enumerate().map(|(c, w)| w * x.code(t, c)).sum();
                let expected = sum as f32 * (x.d[t] * scale) + bias[r];
                let found = found[t * rows + r];
                if found.to_bits() != expected.to_bits() {
                    let level = kernels.level();
                    failures
                        .push(format!("{level} [{rows} x {cols}] [{t}][{r}]: {found}, expected {expected}"));
                }
            }
        }
    }
    failures
}

#[test]
fn int8_products_are_exact() {
    let mut failures = Vec::new();
    for [rows, cols, tokens] in shapes() {
        let mut rng = Rng((rows * cols + tokens) as u64);
        let (w, bias) = (rng.floats(rows * cols), rng.floats(rows));
        let x = Codes::quantized(scalar(), &rng.floats(tokens * cols), cols);
        failures.extend(wrong_int8(rows, cols, &w, &bias, &x));
    }
    none(failures);
}

/// The largest products, of either sign, and all bytes that activations may have or not.
#[test]
fn extreme_codes_do_not_saturate() {
    let mut failures = Vec::new();
    for (cols, sign) in [(128, 1.0), (128, -1.0), (3000, 1.0), (3000, -1.0)] {
        for q in [0, 1, 127, 128, 129, 255] {
            let w: Vec<f32> = (0..17 * cols).map(|i| if i % 3 == 0 { sign } else { -sign }).collect();
            let mut w2 = vec![sign; 17 * cols];
            w2[..cols].copy_from_slice(&w[..cols]);
            let x = Codes { cols, q: vec![q; 3 * Int8::stride(cols)], d: vec![0.5; 3] };
            failures.extend(wrong_int8(17, cols, &w, &[0.25; 17], &x));
            failures.extend(wrong_int8(17, cols, &w2, &[0.25; 17], &x));
        }
    }
    none(failures);
}

/// As many columns as are allowed, of the largest products.
#[test]
fn the_widest_rows_do_not_overflow() {
    let cols = PanelLayout::MAX_INT8_COLS;
    let x = Codes { cols, q: vec![255; Int8::stride(cols)], d: vec![1.0] };
    for sign in [1.0, -1.0] {
        none(wrong_int8(1, cols, &vec![sign; cols], &[0.0], &x));
    }
}

#[test]
fn float_products() {
    let mut failures = Vec::new();
    for [rows, cols, tokens] in shapes() {
        let mut rng = Rng((rows * cols + tokens) as u64);
        let (w, bias) = (rng.floats(rows * cols), rng.floats(rows));
        let x = rng.floats(tokens * cols + 1);
        let packed = Packed::new(PanelKind::F32, cols, &w, &bias);
        for kernels in levels() {
            for x in [&x[1..], &x[..tokens * cols]] {
                let found = product(rows, tokens, |out| kernels.matmul_panels_f32(packed.view(), x, out));
                for (i, found) in found.into_iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let (mut sum, mut size) = (f64::from(bias[r]), f64::from(bias[r]).abs());
                    for (w, x) in w[r * cols..][..cols].iter().zip(&x[t * cols..]) {
                        sum += f64::from(*w) * f64::from(*x);
                        size += (f64::from(*w) * f64::from(*x)).abs();
                    }
                    if !within(f64::from(found), sum, 1e-5 * size) {
                        let level = kernels.level();
                        failures
                            .push(format!("{level} [{rows} x {cols}] [{t}][{r}]: {found}, expected {sum}"));
                    }
                }
            }
        }
    }
    none(failures);
}

/// Neither its row of a panel nor the tile that it falls into changes a product.
#[test]
fn a_part_has_the_same_products() {
    let (rows, cols, tokens) = (70, 50, 29);
    let mut rng = Rng(9);
    let (w, bias, x) = (rng.floats(rows * cols), rng.floats(rows), rng.floats(tokens * cols));
    for kernels in levels() {
        let codes = Codes::quantized(kernels, &x, cols);
        let run = |packed: &Packed, range: std::ops::Range<usize>, from: usize, to: usize| {
            let w = packed.view().slice(range.clone());
            let part = Codes {
                cols,
                q: codes.q[from * Int8::stride(cols)..to * Int8::stride(cols)].to_vec(),
                d: codes.d[from..to].to_vec(),
            };
            product(range.len(), to - from, |out| match packed.layout.kind() {
                PanelKind::F32 => kernels.matmul_panels_f32(w, &x[from * cols..to * cols], out),
                PanelKind::Int8 => kernels.matmul_panels_int8(w, part.view(), out),
                kind => unreachable!("{kind:?}"),
            })
        };
        for kind in [PanelKind::F32, PanelKind::Int8] {
            let packed = Packed::new(kind, cols, &w, &bias);
            let all = run(&packed, 0..rows, 0, tokens);
            for range in [0..16, 16..70, 32..33, 48..64, 64..70] {
                for (from, to) in [(0, 1), (3, 29), (7, 9), (20, 28)] {
                    let part = run(&packed, range.clone(), from, to);
                    let expected = (from..to).flat_map(|t| all[t * rows..][range.clone()].to_vec());
                    assert!(
                        part.into_iter().eq(expected),
                        "{} {kind:?} {range:?} {from}..{to}",
                        kernels.level()
                    );
                }
            }
        }
    }
}

#[test]
fn quantized_rows_are_the_same_at_every_level() {
    let mut failures = Vec::new();
    for cols in (1..=70).chain([127, 128, 384, 1536]) {
        let mut rng = Rng(cols as u64);
        for scale in [1.0, 1e-30, 1e-37, 1e-42, 1e30, 3e38] {
            let x: Vec<f32> = rng.floats(3 * cols + 1).iter().map(|x| x * scale).collect();
            for x in [&x[1..], &x[..3 * cols]] {
                let expected = Codes::quantized(scalar(), x, cols);
                for (t, x) in x.chunks(cols).enumerate() {
                    let (d, codes) = reference_row(x);
                    let tiny = x.iter().all(|x| x.abs() < f32::from_bits(8 << 23));
                    let right = codes.iter().enumerate().all(|(c, code)| expected.code(t, c) == *code);
                    let zero = expected.d[t] == 0.0 && (0..cols).all(|c| expected.code(t, c) == 0);
                    if if tiny { !zero } else { !right || expected.d[t] != d } {
                        failures.push(format!("scalar cols={cols} scale={scale} [{t}]: {:?}", expected));
                    }
                }
                for kernels in levels() {
                    if Codes::quantized(kernels, x, cols) != expected {
                        failures.push(format!("{} cols={cols} scale={scale}", kernels.level()));
                    }
                }
            }
        }
    }
    none(failures);
}

#[test]
fn rounding_is_to_nearest_even() {
    let x: Vec<f32> = (-127..=127).flat_map(|i| [i as f32, i as f32 + 0.5, i as f32 - 0.5]).collect();
    let x: Vec<f32> = x.into_iter().filter(|x| x.abs() <= 127.0).collect();
    for kernels in levels() {
        let codes = Codes::quantized(kernels, &x, x.len());
        let found: Vec<i64> = (0..x.len()).map(|c| codes.code(0, c)).collect();
        let expected: Vec<i64> = x.iter().map(|x| x.round_ties_even() as i64).collect();
        assert_eq!((codes.d[0], found), (1.0, expected), "{}", kernels.level());
    }
}

#[test]
fn values_that_are_not_finite_stay_so() {
    let (rows, cols, tokens) = (35, 45, 14);
    let mut rng = Rng(4);
    let (w, bias, x) = (rng.floats(rows * cols), rng.floats(rows), rng.floats(tokens * cols));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for kernels in levels() {
            for at in [0, 17, cols - 1] {
                let mut x = x.clone();
                x[3 * cols + at] = bad;
                let codes = Codes::quantized(kernels, &x, cols);
                let odd: Vec<usize> = (0..tokens).filter(|t| codes.d[*t].is_nan()).collect();
                assert_eq!(odd, [3], "{}", kernels.level());
                for kind in [PanelKind::F32, PanelKind::Int8] {
                    let mut w = w.clone();
                    w[20 * cols + at] = bad;
                    let packed = Packed::new(kind, cols, &w, &bias);
                    let found = product(rows, tokens, |out| match kind {
                        PanelKind::F32 => kernels.matmul_panels_f32(packed.view(), &x, out),
                        PanelKind::Int8 => kernels.matmul_panels_int8(packed.view(), codes.view(), out),
                        kind => unreachable!("{kind:?}"),
                    });
                    for (i, found) in found.iter().enumerate() {
                        let odd = i / rows == 3 || i % rows == 20;
                        assert_eq!(!found.is_finite(), odd, "{} {kind:?} {bad} [{i}]", kernels.level());
                    }
                }
            }
        }
    }
}

/// Its square cannot be addressed.
const LARGE: usize = 1 << (usize::BITS / 8 * 5);

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let new = PanelLayout::new;
    let error = new(PanelKind::F32, 3, 0).unwrap_err();
    assert_eq!(error, ShapeError::Panels { rows: 3, cols: 0 });
    let refused = "3 rows of 0 values cannot be panels: expected some of both, and not too many";
    assert_eq!(error.to_string(), refused);
    for kind in [PanelKind::F32, PanelKind::Int8] {
        for (rows, cols) in
            [(0, 3), (usize::MAX, 1), (1, usize::MAX), (LARGE, LARGE), (usize::MAX, usize::MAX)]
        {
            assert!(new(kind, rows, cols).is_err(), "{kind:?} {rows} {cols}");
        }
    }
    assert!(new(PanelKind::Int8, 1, PanelLayout::MAX_INT8_COLS).is_ok());
    assert!(new(PanelKind::Int8, 1, PanelLayout::MAX_INT8_COLS + 1).is_err());
    let layout = new(PanelKind::Int8, 17, 33).unwrap();
    assert_eq!(layout.lines(), 2 * (3 + 9));
    let error = Panels::new(layout, &[Line::ZERO; 7]).unwrap_err();
    assert_eq!(error.to_string(), "panels are 24 lines, found 7");
}

#[test]
#[should_panic(expected = "matmul_panels_int8: w.cols is 5 but x.cols is 6")]
fn products_with_other_widths_are_refused() {
    let packed = Packed::new(PanelKind::Int8, 5, &[1.0; 5], &[0.0]);
    let x = Codes::quantized(scalar(), &[1.0; 6], 6);
    scalar().matmul_panels_int8(packed.view(), x.view(), &mut MatMut::new(&mut [0.0], 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_int8_product_is_exact(rows in 1_usize..80, cols in 1_usize..300, tokens in 1_usize..30, seed: u64) {
        let mut rng = Rng(seed);
        let (w, bias) = (rng.floats(rows * cols), rng.floats(rows));
        let x = Codes { cols, q: rng.bytes(tokens * Int8::stride(cols)), d: rng.floats(tokens) };
        let failures = wrong_int8(rows, cols, &w, &bias, &x);
        prop_assert!(failures.is_empty(), "{failures:?}");
    }
}
