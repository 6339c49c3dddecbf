//! Tensors of a model that is being made.

use sparse_gguf::{BlockFormat, quantize};

use crate::Weights;

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
    /// A tensor of these values, in a format that [`quantize`] writes.
    pub fn new(name: impl Into<String>, dims: &[usize], format: BlockFormat, values: &[f32]) -> Self {
        let data = quantize(format, values).expect("values that the format can hold");
        Self { name: name.into(), dims: dims.to_vec(), format, data }
    }

    /// The values, dequantized.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.dims.iter().product()];
        self.format.decode(&self.data, &mut values).expect("data as long as the shape says");
        values
    }

    /// Sets every bit of the first block, which makes its values NaN in every format.
    pub fn poison(&mut self) {
        self.data[..self.format.block_bytes()].fill(0xff);
    }

    /// Values of about this mean and standard deviation, see [`Weights`]; `stream` tells tensors of one file apart.
    pub(crate) fn random(
        name: String,
        dims: &[usize],
        format: BlockFormat,
        (mean, deviation): (f32, f32),
        seed: u64,
        stream: u64,
    ) -> Self {
        let len: usize = dims.iter().product();
        let mut data = vec![0; len / format.block_len() * format.block_bytes()];
        Weights::new(format, mean, deviation, seed, stream).fill(&mut data);
        Self { name, dims: dims.to_vec(), format, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisoned_block_is_nan_in_every_format() {
        for format in BlockFormat::GGML {
            let mut tensor = Tensor::random("t".into(), &[512, 8], format, (0.0, 0.25), 7, 0);
            assert!(tensor.values().iter().all(|v| v.is_finite()), "{}", format.name());
            tensor.poison();
            let values = tensor.values();
            assert!(values[0].is_nan() && values[256].is_finite(), "{}: {}", format.name(), values[0]);
        }
    }
}
