//! Rows to codes.

use half::f16;
use sparse_simd::TileRow;

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

    /// What [`round`](Self::round) made, with a bias.
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
}
