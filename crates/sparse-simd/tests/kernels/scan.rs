//! Rows in tiles.

use super::data::{Activations, Rng};
use super::{levels, none, within};
use half::f16;
use proptest::prelude::*;
use sparse_simd::{Kernels, Level, TileLayout, TileRow, Tiles};

/// Rows as they were before they were packed.
pub(super) struct Matrix {
    pub(super) layout: TileLayout,
    nibbles: Vec<u8>,
    pairs: Vec<u8>,
    scales: Vec<[f16; 2]>,
    bias: Vec<f16>,
    /// One byte off any alignment.
    bytes: Vec<u8>,
}

impl Matrix {
    pub(super) fn random(rows: usize, nibbles: usize, pairs: usize, rng: &mut Rng) -> Self {
        let layout = TileLayout::new(rows, nibbles, pairs).unwrap();
        let mut half = || f16::from_f32(rng.float());
        let scales: Vec<_> = (0..rows).map(|_| [half(), half()]).collect();
        let bias: Vec<_> = (0..rows).map(|_| half()).collect();
        let mut codes = |n: usize, top: u8| rng.bytes(n).iter().map(|b| b & top).collect::<Vec<u8>>();
        let (nibbles, pairs) = (codes(rows * nibbles, 15), codes(rows * pairs, 3));
        let mut matrix = Self { layout, nibbles, pairs, scales, bias, bytes: vec![0; layout.bytes() + 1] };
        for r in 0..rows {
            let (nibbles, pairs) = (matrix.nibbles(r).to_vec(), matrix.pairs(r).to_vec());
            let row =
                TileRow { nibbles: &nibbles, pairs: &pairs, scales: matrix.scales[r], bias: matrix.bias[r] };
            layout.write(r, row, &mut matrix.bytes[1..]);
        }
        matrix
    }

    fn nibbles(&self, r: usize) -> &[u8] {
        &self.nibbles[r * self.layout.nibbles()..][..self.layout.nibbles()]
    }

    fn pairs(&self, r: usize) -> &[u8] {
        &self.pairs[r * self.layout.pairs()..][..self.layout.pairs()]
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[1..]
    }

    fn tiles(&self) -> Tiles<'_> {
        Tiles::new(self.layout, self.data()).unwrap()
    }

    /// Row `r` times `x` in f64, and the sum of magnitudes.
    fn reference(&self, r: usize, x: &Activations) -> (f64, f64) {
        let first = self.nibbles(r).iter().map(|q| (f64::from(*q) - 7.5) * self.scales[r][0].to_f64());
        let second = self.pairs(r).iter().map(|q| (f64::from(*q) - 1.5) * self.scales[r][1].to_f64());
        let bias = self.bias[r].to_f64();
        first.chain(second).enumerate().fold((bias, bias.abs()), |(sum, size), (k, w)| {
            let product = w * f64::from(x.d[k / 32]) * f64::from(x.q[k]);
            (sum + product, size + product.abs())
        })
    }
}

#[test]
fn values_are_rounded_to_the_nearest_of_four() {
    let mut rng = Rng(11);
    for len in [0, 1, 5, 16, 31, 32, 96, 577] {
        let mut x = rng.floats(len);
        // Far outside, on both sides.
        x.iter_mut().step_by(7).for_each(|x| *x *= 1e20);
        let inverse = 2.5;
        let mut expected = None;
        for kernels in levels() {
            let mut codes = vec![99; len];
            let [product, length] = kernels.round_pairs(&x, inverse, &mut codes);
            let levels = || codes.iter().map(|q| f64::from(*q) - 1.5);
            for (x, level) in x.iter().zip(levels()) {
                let nearest = (f64::from(*x * inverse).clamp(-1.5, 1.5) - level).abs();
                assert!(nearest <= 0.5 + 1e-6 && level.abs() <= 1.5, "{}: {x} is {level}", kernels.level());
            }
            let products = || x.iter().zip(levels()).map(|(x, level)| f64::from(*x) * level);
            let size = products().map(f64::abs).sum::<f64>();
            assert!(within(f64::from(product), products().sum(), 1e-5 * size));
            assert!(within(f64::from(length), levels().map(|x| x * x).sum(), 1e-4));
            let found = (codes, product.to_bits(), length.to_bits());
            assert!(*expected.get_or_insert_with(|| found.clone()) == found, "{}", kernels.level());
        }
    }
}

/// Scores at one level, bit by bit.
fn scores(kernels: &Kernels, w: Tiles<'_>, x: &Activations) -> Vec<f32> {
    let mut out = vec![f32::NAN; w.layout().rows()];
    kernels.scan(w, x.view(), &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// What is wrong at any level.
fn wrong(matrix: &Matrix, x: &Activations) -> Vec<String> {
    let mut failures = Vec::new();
    let expected = scores(Kernels::at(Level::Scalar).unwrap(), matrix.tiles(), x);
    for (r, score) in expected.iter().enumerate() {
        let (sum, size) = matrix.reference(r, x);
        if !within(f64::from(*score), sum, 1e-6 * size) {
            failures.push(format!("scalar {:?} row {r}: {score}, expected {sum}", matrix.layout));
        }
    }
    for kernels in levels() {
        let found = scores(kernels, matrix.tiles(), x);
        if bits(&found) != bits(&expected) {
            failures.push(format!(
                "{} {:?}: {found:?}, expected {expected:?}",
                kernels.level(),
                matrix.layout
            ));
        }
    }
    failures
}

#[test]
fn levels_agree_bit_for_bit_and_with_the_definition() {
    let mut failures = Vec::new();
    for (nibbles, pairs) in [(32, 0), (0, 32), (32, 32), (64, 128), (0, 576), (96, 0), (160, 32)] {
        for rows in [0, 1, 2, 15, 16, 17, 31, 32, 33, 48, 100] {
            let mut rng = Rng((rows * 1000 + nibbles + pairs) as u64);
            let matrix = Matrix::random(rows, nibbles, pairs, &mut rng);
            failures.extend(wrong(&matrix, &Activations::random(nibbles + pairs, 1, &mut rng)));
        }
    }
    none(failures);
}

#[test]
fn extreme_codes_do_not_overflow() {
    let mut rng = Rng(3);
    let mut matrix = Matrix::random(16, 64, 64, &mut rng);
    matrix.nibbles.fill(15);
    matrix.pairs.fill(3);
    let codes = matrix.layout.bytes() - 16 * (64 / 2 + 64 / 4) + 1;
    matrix.bytes[codes..].fill(0xFF);
    for q in [-128, -127, 127] {
        let x = Activations::new(128, vec![q; 128], vec![0.01; 4]);
        none(wrong(&matrix, &x));
    }
}

#[test]
fn a_part_of_the_rows_has_the_same_scores() {
    let mut rng = Rng(5);
    let matrix = Matrix::random(100, 32, 64, &mut rng);
    let x = Activations::random(96, 1, &mut rng);
    for kernels in levels() {
        let all = scores(kernels, matrix.tiles(), &x);
        for range in [0..0, 0..16, 16..100, 32..33, 96..100, 0..100] {
            let part = scores(kernels, matrix.tiles().slice(range.clone()), &x);
            assert_eq!(bits(&part), bits(&all[range.clone()]), "{} {range:?}", kernels.level());
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_so() {
    let mut rng = Rng(6);
    let mut matrix = Matrix::random(33, 32, 32, &mut rng);
    let mut x = Activations::random(64, 1, &mut rng);
    for kernels in levels() {
        x.d[1] = f32::NAN;
        assert!(scores(kernels, matrix.tiles(), &x).iter().all(|s| s.is_nan()), "{}", kernels.level());
        x.d[1] = 1.0;
        matrix.bytes[1 + 2 * 7..][..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
        let found = scores(kernels, matrix.tiles(), &x);
        let odd: Vec<usize> = (0..33).filter(|r| !found[*r].is_finite()).collect();
        assert_eq!(odd, [7], "{}", kernels.level());
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let error = |rows, nibbles, pairs| TileLayout::new(rows, nibbles, pairs).unwrap_err().to_string();
    assert_eq!(error(5, 0, 0), "5 rows of 0 and 0 dimensions cannot be tiles: expected multiples of 32");
    assert!(error(5, 16, 32).starts_with("5 rows of 16 and 32"));
    assert!(error(5, 32, 33).starts_with("5 rows of 32 and 33"));
    assert!(error(usize::MAX, 32, 0).contains("cannot be tiles"));
    assert!(error(1, usize::MAX & !31, 32).contains("cannot be tiles"));
    let layout = TileLayout::new(17, 64, 128).unwrap();
    assert_eq!((layout.bytes(), layout.dims()), (2 * (3 * 32 + 16 * 64), 192));
    let refused = Tiles::new(layout, &[0; 7]).unwrap_err().to_string();
    assert_eq!(refused, "tiles are 2240 bytes, found 7");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_scores_as_defined(rows in 1_usize..70, first in 0_usize..5, second in 0_usize..7, seed: u64) {
        prop_assume!(first + second > 0);
        let mut rng = Rng(seed);
        let matrix = Matrix::random(rows, first * 32, second * 32, &mut rng);
        let failures = wrong(&matrix, &Activations::random((first + second) * 32, 1, &mut rng));
        prop_assert!(failures.is_empty(), "{failures:?}");
    }
}
