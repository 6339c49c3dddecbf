//! Random blocks of every format.

use bytemuck::{Pod, cast_slice_mut};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sparse_gguf::layout::*;
use sparse_gguf::{BlockFormat, quantize_into};

/// An endless stream of blocks whose values have a given mean and deviation.
///
/// Floats are normally distributed. In quantized formats all codes and sub-scales are uniformly random bits, which tries
/// more of a kernel than rounded values would, and only the blocks' half-precision factors are chosen, which vary from
/// block to block; the mean is 0.
#[derive(Clone, Debug)]
pub struct Weights {
    format: BlockFormat,
    mean: f32,
    /// Deviation of floats, mean factor `d` of quantized blocks.
    scale: f32,
    rng: ChaCha8Rng,
}

/// Root mean square of [`factor`]: sqrt(1 + 1/12).
const FACTOR_RMS: f32 = 1.040_833;

impl Weights {
    /// Blocks of `format`; quantized ones have mean 0 whatever `mean` says. `seed` and `stream` decide all values, so that
    /// a stream per tensor makes the tensors of one file differ.
    pub fn new(format: BlockFormat, mean: f32, deviation: f32, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let scale = match format.is_quantized() {
            true => deviation / FACTOR_RMS / unit_deviation(format),
            false => deviation,
        };
        Self { format, mean, scale, rng }
    }

    /// Fills `blocks` with the next blocks.
    ///
    /// # Panics
    /// If there is no whole number of blocks.
    pub fn fill(&mut self, blocks: &mut [u8]) {
        if self.format.is_quantized() {
            self.rng.fill_bytes(blocks);
            let Self { format, scale, rng, .. } = self;
            set_factors(*format, blocks, || *scale * factor(rng));
            return;
        }
        let values: Vec<f32> = (0..blocks.len() / self.format.block_bytes())
            .map(|_| self.mean + self.scale * normal(&mut self.rng))
            .collect();
        quantize_into(self.format, &values, blocks)
            .expect("as many values as there is room for, all of them finite");
    }
}

/// Deviation of random codes under factors of 1, from a fixed sample.
fn unit_deviation(format: BlockFormat) -> f32 {
    let len = 1 << 16;
    let mut sample = vec![0; len / format.block_len() * format.block_bytes()];
    ChaCha8Rng::seed_from_u64(0).fill_bytes(&mut sample);
    set_factors(format, &mut sample, || 1.0);
    let mut values = vec![0.0; len];
    format.decode(&sample, &mut values).expect("a sample of whole blocks");
    (values.iter().map(|v| v * v).sum::<f32>() / len as f32).sqrt()
}

/// Gives each block a factor, and an offset with which the mean of random codes is 0.
fn set_factors(format: BlockFormat, blocks: &mut [u8], mut factor: impl FnMut() -> f32) {
    fn each<B: Pod>(blocks: &mut [u8], mut set: impl FnMut(&mut B)) {
        cast_slice_mut(blocks).iter_mut().for_each(&mut set);
    }
    // `d` times the mean code, the codes being uniform in 0..=max.
    let half = Half::from_f32;
    if format == BlockFormat::MxFp4 {
        return each(blocks, |b: &mut BlockMxFp4| b.e = exponent(factor(), b.qs[0]));
    }
    if format == BlockFormat::NvFp4 {
        return each(blocks, |b: &mut BlockNvFp4| b.d = b.d.map(|_| ue4m3(factor())));
    }
    if format == BlockFormat::NvFp4Scaled {
        return each(blocks, |b: &mut BlockNvFp4Scaled| {
            b.factor = factor().to_le_bytes();
            b.block.d = [ue4m3(1.0); 4];
        });
    }
    let mut pair = |max: f32| {
        let d = factor();
        (half(d), half(d * max / 2.0), half(-d * max / 2.0))
    };
    match format {
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => {}
        BlockFormat::Q4_0 => each(blocks, |b: &mut BlockQ4_0| b.d = pair(0.0).0),
        BlockFormat::Q4_1 => each(blocks, |b: &mut BlockQ4_1| (b.d, _, b.m) = pair(15.0)),
        BlockFormat::Q5_0 => each(blocks, |b: &mut BlockQ5_0| b.d = pair(0.0).0),
        BlockFormat::Q5_1 => each(blocks, |b: &mut BlockQ5_1| (b.d, _, b.m) = pair(31.0)),
        BlockFormat::Q8_0 => each(blocks, |b: &mut BlockQ8_0| b.d = pair(0.0).0),
        BlockFormat::Q2K => each(blocks, |b: &mut BlockQ2K| (b.d, b.dmin, _) = pair(3.0)),
        BlockFormat::Q3K => each(blocks, |b: &mut BlockQ3K| b.d = pair(0.0).0),
        BlockFormat::Q4K => each(blocks, |b: &mut BlockQ4K| (b.d, b.dmin, _) = pair(15.0)),
        BlockFormat::Q5K => each(blocks, |b: &mut BlockQ5K| (b.d, b.dmin, _) = pair(31.0)),
        BlockFormat::Q6K => each(blocks, |b: &mut BlockQ6K| b.d = pair(0.0).0),
        BlockFormat::Iq4Nl => each(blocks, |b: &mut BlockIq4Nl| b.d = pair(0.0).0),
        BlockFormat::Iq4Xs => each(blocks, |b: &mut BlockIq4Xs| b.d = pair(0.0).0),
        BlockFormat::Tq1_0 => each(blocks, |b: &mut BlockTq1_0| b.d = pair(0.0).0),
        BlockFormat::Tq2_0 => each(blocks, |b: &mut BlockTq2_0| b.d = pair(0.0).0),
        BlockFormat::Q1_0 => each(blocks, |b: &mut BlockQ1_0| b.d = pair(0.0).0),
        BlockFormat::Q2_0 => each(blocks, |b: &mut BlockQ2_0| b.d = pair(0.0).0),
        BlockFormat::Iq1S => each(blocks, |b: &mut BlockIq1S| b.d = pair(0.0).0),
        BlockFormat::Iq1M => each(blocks, |b: &mut BlockIq1M| {
            let bits = pair(0.0).0.to_bits().to_le_bytes();
            for (word, nibble) in
                b.scales.iter_mut().zip([bits[0] & 15, bits[0] >> 4, bits[1] & 15, bits[1] >> 4])
            {
                word[1] = word[1] & 15 | nibble << 4;
            }
        }),
        BlockFormat::Iq2Xxs => each(blocks, |b: &mut BlockIq2Xxs| b.d = pair(0.0).0),
        BlockFormat::Iq2Xs => each(blocks, |b: &mut BlockIq2Xs| b.d = pair(0.0).0),
        BlockFormat::Iq2S => each(blocks, |b: &mut BlockIq2S| b.d = pair(0.0).0),
        BlockFormat::Iq3Xxs => each(blocks, |b: &mut BlockIq3Xxs| b.d = pair(0.0).0),
        BlockFormat::Iq3S => each(blocks, |b: &mut BlockIq3S| b.d = pair(0.0).0),
        BlockFormat::Bit3 => each(blocks, |b: &mut BlockBit3| b.d = pair(0.0).0),
        BlockFormat::Bit7 => each(blocks, |b: &mut BlockBit7| b.d = pair(0.0).0),
        _ => {}
    }
}

/// The exponent of one of the two powers of two around `factor`, so that the mean square is that of factors if `dice` is
/// uniform.
fn exponent(factor: f32, dice: u8) -> u8 {
    let square = factor * factor;
    let mut power = 1.0_f32;
    let mut exponent = 128;
    while power * power > square {
        (power, exponent) = (power / 2.0, exponent - 1);
    }
    while 4.0 * power * power <= square {
        (power, exponent) = (2.0 * power, exponent + 1);
    }
    let upper = (square / (power * power) - 1.0) / 3.0;
    if f32::from(dice) < 256.0 * upper { exponent + 1 } else { exponent }
}

/// The nearest float without sign of 4 exponent bits and 3 of the fraction.
fn ue4m3(x: f32) -> u8 {
    let x = x.abs();
    // Those below the normal ones are multiples of 2^-9.
    let bits = if x < 1.0 / 64.0 {
        (x * 512.0).round() as u32
    } else {
        ((x.to_bits() + (1 << 19)) >> 20) - (120 << 3)
    };
    bits.min(126) as u8
}

/// The factor of a block, relative to the mean one: 0.5 to 1.5, of either sign, because codes in two's complement have a
/// mean below 0.
fn factor(rng: &mut ChaCha8Rng) -> f32 {
    let size = 0.5 + uniform(rng);
    if rng.next_u32() & 1 == 0 { size } else { -size }
}

/// Uniform in 0..1.
fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// A sample of nearly the standard normal distribution: twelve uniform ones added (Irwin-Hall).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| uniform(rng)).sum::<f32>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_the_mean_and_deviation_asked_for() {
        for format in BlockFormat::ALL {
            let (rows, cols) = (256, 2048);
            let mut weights = Weights::new(format, 0.0, 0.02, 3, 1);
            let mut row = vec![0; format.row_bytes(cols).unwrap()];
            let mut values = vec![0.0; rows * cols];
            for out in values.chunks_exact_mut(cols) {
                weights.fill(&mut row);
                format.decode(&row, out).unwrap();
            }
            let n = values.len() as f32;
            let mean = values.iter().sum::<f32>() / n;
            let deviation = (values.iter().map(|v| v * v).sum::<f32>() / n).sqrt();
            assert!(mean.abs() < 1e-3, "{}: mean {mean}", format.name());
            assert!((deviation / 0.02 - 1.0).abs() < 0.03, "{}: deviation {deviation}", format.name());
        }
    }

    #[test]
    fn the_same_seed_and_stream_give_the_same_weights() {
        let fill = |seed, stream| {
            let mut row = vec![0; BlockFormat::Q6K.row_bytes(512).unwrap()];
            Weights::new(BlockFormat::Q6K, 0.0, 0.02, seed, stream).fill(&mut row);
            row
        };
        assert_eq!(fill(1, 2), fill(1, 2));
        assert_ne!(fill(1, 2), fill(1, 3));
        assert_ne!(fill(1, 2), fill(2, 2));
    }
}
