//! Pseudo-random weights and activations.

use sparse_simd::layout::*;
use sparse_simd::{Kernels, Level, Q8, Q8Mut};

/// A small deterministic generator (SplitMix64, Steele et al. 2014).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// The formats that are multiplied with int8 activations.
pub(super) fn quantized() -> impl Iterator<Item = BlockFormat> {
    BlockFormat::ALL.into_iter().filter(|format| format.is_quantized())
}

/// Where a block has its half-precision factors.
fn halves(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q2K => &[80, 82],
        BlockFormat::Q3K => &[108],
        BlockFormat::Q6K => &[208],
        BlockFormat::Tq1_0 => &[52],
        BlockFormat::Tq2_0 => &[64],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => &[],
        BlockFormat::MxFp4 | BlockFormat::NvFp4 | BlockFormat::NvFp4Scaled | BlockFormat::Iq1M => &[],
        _ => &[0],
    }
}

/// Overwrites the factors of all blocks.
pub(super) fn set_factors(format: BlockFormat, bytes: &mut [u8], mut value: impl FnMut() -> f32) {
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves(format) {
            block[at..at + 2].copy_from_slice(bytemuck::bytes_of(&Half::from_f32(value())));
        }
        match format {
            // A power of two.
            BlockFormat::MxFp4 => {
                let value = value();
                block[0] = if value.is_finite() { 124 + value.abs() as u8 % 8 } else { 255 };
            }
            BlockFormat::NvFp4 => set_ue4m3(&mut block[..4], &mut value),
            BlockFormat::NvFp4Scaled => {
                block[..4].copy_from_slice(&value().to_le_bytes());
                set_ue4m3(&mut block[4..8], &mut || 1.0);
            }
            BlockFormat::Iq1M => {
                let bits = Half::from_f32(value()).to_bits();
                for (i, word) in block[48..].chunks_exact_mut(2).enumerate() {
                    word[1] = word[1] & 15 | ((bits >> (4 * i) & 15) as u8) << 4;
                }
            }
            _ => {}
        }
    }
}

/// Scales between a sixteenth and sixteen, or NaN, which is the only value of theirs that is no number.
fn set_ue4m3(scales: &mut [u8], value: &mut impl FnMut() -> f32) {
    for scale in scales {
        *scale = if value().is_finite() { 24 + *scale % 64 } else { 127 };
    }
}

/// Random rows with finite factors.
pub(super) fn weights(format: BlockFormat, values: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rng.bytes(values / format.block_len() * format.block_bytes());
    set_factors(format, &mut bytes, || rng.float());
    match format {
        BlockFormat::F32 => rng.floats(values).iter().flat_map(|x| x.to_le_bytes()).collect(),
        BlockFormat::F16 => {
            rng.floats(values).iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
        }
        BlockFormat::Bf16 => {
            rng.floats(values).iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
        }
        _ => bytes,
    }
}

/// Owned activations.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Activations {
    pub(super) cols: usize,
    pub(super) q: Vec<i8>,
    pub(super) d: Vec<f32>,
    pub(super) sums: Vec<i16>,
}

impl Activations {
    /// From codes and scales, with the sums that belong to them.
    pub(super) fn new(cols: usize, q: Vec<i8>, d: Vec<f32>) -> Self {
        let sums = q.chunks_exact(16).map(|q| q.iter().map(|&q| i16::from(q)).sum()).collect();
        Self { cols, q, d, sums }
    }

    /// As `kernels` quantizes `x`.
    pub(super) fn quantized(kernels: &Kernels, x: &[f32], cols: usize) -> Self {
        let n = x.len();
        let mut a = Self { cols, q: vec![99; n], d: vec![99.0; n / 32], sums: vec![99; n / 16] };
        kernels.quantize(x, &mut Q8Mut { cols, q: &mut a.q, d: &mut a.d, sums: &mut a.sums });
        a
    }

    pub(super) fn random(cols: usize, tokens: usize, rng: &mut Rng) -> Self {
        Self::quantized(Kernels::at(Level::Scalar).unwrap(), &rng.floats(cols * tokens), cols)
    }

    pub(super) fn view(&self) -> Q8<'_> {
        Q8 { cols: self.cols, q: &self.q, d: &self.d, sums: &self.sums }
    }
}
