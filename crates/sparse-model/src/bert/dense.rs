//! A matrix and a bias, in the storage that the options ask for.

use sparse_core::{Activations, Compute, Linear, Matrix, Storage};
use sparse_gguf::{BlockFormat, quantise};

use super::EncoderFormat;
use crate::Error;

/// `y = W x + b`.
#[derive(Debug)]
pub(super) struct Dense(Linear);

impl Dense {
    /// A map with `weights`, `[outputs x inputs]`, and a bias of one value per output. `name` is for errors.
    pub(super) fn new(
        format: EncoderFormat,
        name: &str,
        inputs: usize,
        weights: &[f32],
        bias: Vec<f32>,
    ) -> Result<Self, Error> {
        let format = match format {
            EncoderFormat::F32 => BlockFormat::F32,
            EncoderFormat::Int8 => BlockFormat::Q8_0,
            EncoderFormat::Blocks(format) => format,
        };
        Ok(Self(Linear::new(matrix(format, name, inputs, weights)?, Some(bias))?))
    }

    /// `out[t] = W x[t] + b` for every token; `out` is `[tokens x outputs]`.
    pub(super) fn forward(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        self.0.forward(compute, x, out);
    }

    /// Bytes of the matrix.
    pub(super) fn bytes(&self) -> usize {
        self.0.weight().bytes()
    }
}

/// A matrix of rows of `cols` values.
fn matrix(format: BlockFormat, name: &str, cols: usize, values: &[f32]) -> Result<Matrix, Error> {
    let fault = |problem| Error::Tensor { name: name.to_owned(), problem };
    if !cols.is_multiple_of(format.block_len()) {
        return Err(fault(format!(
            "rows of {cols} values cannot be stored in {}, which takes multiples of {}; choose another format",
            format.name(),
            format.block_len()
        )));
    }
    let bytes = quantise(format, values).map_err(|e| fault(e.to_string()))?;
    Matrix::new(format, cols, Storage::Owned(bytes)).map_err(|e| fault(e.to_string()))
}
