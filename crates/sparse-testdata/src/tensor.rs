//! Tensors of random values.

use bytemuck::{Pod, cast_slice_mut};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use sparse_gguf::layout::{BlockIq4Nl, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, Half};
use sparse_gguf::{BlockFormat, quantise};

/// A tensor of a file that is not written yet.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Dimensions in ggml's order: the row length first.
    pub dims: Vec<usize>,
    /// Format of `data`.
    pub format: BlockFormat,
    /// Blocks, row after row.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A tensor of these values; K formats and IQ4_NL cannot be made like this.
    pub fn new(name: impl Into<String>, dims: &[usize], format: BlockFormat, values: &[f32]) -> Self {
        let data = quantise(format, values).expect("values that the format can hold");
        Self { name: name.into(), dims: dims.to_vec(), format, data }
    }

    /// The values, dequantised.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.dims.iter().product()];
        self.format.decode(&self.data, &mut values).expect("data as long as the shape says");
        values
    }

    /// Sets every bit of the first block, which makes its values NaN in every format.
    pub fn poison(&mut self) {
        self.data[..self.format.block_bytes()].fill(0xff);
    }

    /// Values of mean about 0 and this standard deviation.
    pub(crate) fn random(
        name: String,
        dims: &[usize],
        format: BlockFormat,
        deviation: f32,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let len = dims.iter().product();
        let has_quantiser = !set_scales(format, &mut [], 1.0);
        if has_quantiser {
            let values: Vec<f32> = (0..len).map(|_| deviation * normal(rng)).collect();
            return Self::new(name, dims, format, &values);
        }
        // Random codes and sub-scales; scales that give the deviation.
        let mut data = vec![0; len / format.block_len() * format.block_bytes()];
        rng.fill_bytes(&mut data);
        set_scales(format, &mut data, 1.0);
        let mut tensor = Self { name, dims: dims.to_vec(), format, data };
        let squares: f32 = tensor.values().iter().map(|v| v * v).sum();
        set_scales(format, &mut tensor.data, deviation / (squares / len as f32).sqrt());
        tensor
    }
}

/// Sets the scales of all blocks of a format that has no quantiser; `false` if it has one.
fn set_scales(format: BlockFormat, data: &mut [u8], scale: f32) -> bool {
    fn each<B: Pod>(data: &mut [u8], set: impl Fn(&mut B)) {
        cast_slice_mut(data).iter_mut().for_each(set);
    }
    let d = Half::from_f32(scale);
    match format {
        BlockFormat::Q2K => each(data, |b: &mut BlockQ2K| (b.d, b.dmin) = (d, d)),
        BlockFormat::Q3K => each(data, |b: &mut BlockQ3K| b.d = d),
        BlockFormat::Q4K => each(data, |b: &mut BlockQ4K| (b.d, b.dmin) = (d, d)),
        BlockFormat::Q5K => each(data, |b: &mut BlockQ5K| (b.d, b.dmin) = (d, d)),
        BlockFormat::Q6K => each(data, |b: &mut BlockQ6K| b.d = d),
        BlockFormat::Iq4Nl => each(data, |b: &mut BlockIq4Nl| b.d = d),
        _ => return false,
    }
    true
}

/// A sample of nearly the standard normal distribution: twelve uniform ones added (Irwin-Hall).
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn every_format_gets_values_of_the_deviation_asked_for() {
        for format in BlockFormat::ALL {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let mut tensor = Tensor::random("t".into(), &[512, 8], format, 0.25, &mut rng);
            let values = tensor.values();
            let rms = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
            assert!((rms / 0.25 - 1.0).abs() < 0.1, "{}: {rms}", format.name());
            tensor.poison();
            let values = tensor.values();
            assert!(values[0].is_nan() && values[256].is_finite(), "{}: {}", format.name(), values[0]);
        }
    }
}
