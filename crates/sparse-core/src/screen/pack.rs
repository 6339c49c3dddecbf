//! Rows to codes.

use alloc::vec::Vec;

use half::f16;
use sparse_simd::{Kernels, TileRow};

/// The step of a uniform quantizer with as few errors as possible, of normally distributed values with deviation 1 (Max 1960,
/// doi 10.1109/TIT.1960.1057548).
const STEPS: [f32; 2] = [0.3352, 0.9957];
/// Added and taken off again, it rounds small numbers to integers, without a call where the CPU has no instruction for that.
const ROUND: f32 = 12_582_912.0;
/// Times that codes and scale are fitted to each other.
const ROUNDS: usize = 2;

/// Codes of one row in the making.
#[derive(Debug, Default)]
pub(super) struct Packed {
    codes: [Vec<u8>; 2],
    scales: [f16; 2],
}

impl Packed {
    /// Rounds `row`, whose first `nibbles` values get four bits and the others two; returns the squared error.
    pub(super) fn round(&mut self, row: &[f32], nibbles: usize) -> f32 {
        let (first, second) = row.split_at(nibbles);
        let mut error = 0.0;
        for (part, values) in [first, second].into_iter().enumerate() {
            self.codes[part].resize(values.len(), 0);
            let top = [15.0, 3.0][part];
            let square = values.iter().map(|v| v * v).sum::<f32>() / values.len().max(1) as f32;
            let mut scale = square.sqrt() * STEPS[part];
            for round in 0..=ROUNDS {
                if round == ROUNDS {
                    scale = f16::from_f32(scale).to_f32();
                }
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                let (mut product, mut length) = (0.0, 0.0);
                for (code, value) in self.codes[part].iter_mut().zip(values) {
                    let level = (value * inverse + 0.5 * top).clamp(0.0, top) + ROUND - ROUND;
                    *code = level as u8;
                    let level = level - 0.5 * top;
                    product += level * value;
                    length += level * level;
                }
                if round == ROUNDS {
                    let left = |(code, value): (&u8, &f32)| value - scale * (f32::from(*code) - 0.5 * top);
                    error += self.codes[part].iter().zip(values).map(left).map(|e| e * e).sum::<f32>();
                } else if length > 0.0 {
                    scale = product / length;
                }
            }
            self.scales[part] = f16::from_f32(scale);
        }
        error
    }

    /// Rounds `row`, which was turned at random, to two bits; returns the squared error.
    ///
    /// The scale is such that what was rounded has the same product with `row` as `row` itself. The error is then
    /// perpendicular to `row`, and products with any vector are right on the average of all rotations: the estimator of
    /// RaBitQ (arXiv 2405.12497).
    pub(super) fn round_turned(&mut self, kernels: &Kernels, row: &[f32]) -> f32 {
        let square = kernels.dot_f32(row, row);
        let inverse = match (square / row.len().max(1) as f32).sqrt() * STEPS[1] {
            step if step > 0.0 => 1.0 / step,
            _ => 0.0,
        };
        self.codes[0].clear();
        self.codes[1].resize(row.len(), 0);
        let [product, length] = kernels.round_pairs(row, inverse, &mut self.codes[1]);
        let scale = f16::from_f32(if product > 0.0 { square / product } else { 0.0 });
        self.scales = [f16::ZERO, scale];
        let scale = scale.to_f32();
        (square - 2.0 * scale * product + scale * scale * length).max(0.0)
    }

    /// What was made of the last row, with a bias.
    pub(super) fn row(&self, bias: f16) -> TileRow<'_> {
        TileRow { nibbles: &self.codes[0], pairs: &self.codes[1], scales: self.scales, bias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_number_of_bits() {
        // Sums of twelve uniform values are normally distributed, nearly.
        let mut state = 1_u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let row: Vec<f32> = (0..4096).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
        let mut packed = Packed::default();
        let per_value = |e: f32| e / 4096.0;
        let (four, two) = (per_value(packed.round(&row, 4096)), per_value(packed.round(&row, 0)));
        // Of a variance of 1, Max's table says 0.01154 and 0.1188.
        assert!((0.009..0.014).contains(&four) && (0.105..0.13).contains(&two), "{four} {two}");
        assert_eq!(packed.round(&[0.0; 64], 32), 0.0);
        assert!(packed.row(f16::ZERO).scales.iter().all(|s| *s == f16::ZERO));
        assert!(packed.round(&[7.0; 64], 32) < 1e-2 * 64.0 * 49.0);
    }

    #[test]
    fn turned_rows_keep_their_product_with_themselves() {
        let row: Vec<f32> =
            (0..640).map(|i| (i as f32 * 1.7).sin() + 0.3 * (i as f32 * 0.31).cos()).collect();
        let square: f32 = row.iter().map(|v| v * v).sum();
        let mut packed = Packed::default();
        let error = packed.round_turned(Kernels::get(), &row);
        let scale = packed.scales[1].to_f32();
        let rounded = || packed.codes[1].iter().map(|q| scale * (f32::from(*q) - 1.5));
        let product: f32 = rounded().zip(&row).map(|(a, b)| a * b).sum();
        assert!((product / square - 1.0).abs() < 1e-3, "{product} {square}");
        let lost: f32 = rounded().zip(&row).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!((lost / error - 1.0).abs() < 1e-3 && lost < 0.2 * square, "{lost} {error}");
        assert_eq!(packed.round_turned(Kernels::get(), &[0.0; 64]), 0.0);
    }
}
