//! A matrix and a bias, in the storage that the options ask for.

use sparse_core::{ActivationType, Activations, Compute, Linear, Matrix, PackedMatrix, Storage};
use sparse_gguf::{BlockFormat, quantise};
use sparse_simd::PanelKind;

use super::EncoderFormat;
use crate::Error;

/// `y = W x + b`.
#[derive(Debug)]
pub(super) enum Dense {
    Packed(PackedMatrix),
    Blocks(Linear),
}

impl Dense {
    /// A map with `weights`, `[outputs x inputs]`, and a bias of one value per output. `name` is for errors.
    pub(super) fn new(
        format: EncoderFormat,
        name: &str,
        inputs: usize,
        weights: &[f32],
        bias: Vec<f32>,
    ) -> Result<Self, Error> {
        let packed = |kind| {
            let fault =
                |e: sparse_core::Error| Error::Tensor { name: name.to_owned(), problem: e.to_string() };
            PackedMatrix::new(kind, inputs, weights, Some(&bias)).map(Self::Packed).map_err(fault)
        };
        match format {
            EncoderFormat::F32 => packed(PanelKind::F32),
            EncoderFormat::Int8 => packed(PanelKind::Int8),
            EncoderFormat::Blocks(format) => {
                let matrix = matrix(format, name, inputs, weights)?;
                Ok(Self::Blocks(Linear::new(matrix, Some(bias))?))
            }
        }
    }

    /// `out[t] = W x[t] + b` for every token; `out` is `[tokens x outputs]`. Brings the form of `x` up to date that it reads.
    pub(super) fn forward(&self, compute: &Compute, x: &mut Activations, out: &mut [f32]) {
        self.forward_activate(compute, x, ActivationType::Identity, out);
    }

    /// `out[t] = f(W x[t] + b)`: [`forward`](Self::forward) and an activation function.
    pub(super) fn forward_activate(
        &self,
        compute: &Compute,
        x: &mut Activations,
        f: ActivationType,
        out: &mut [f32],
    ) {
        match self {
            Self::Packed(weight) => {
                if weight.kind() == PanelKind::Int8 {
                    x.quantise_rows(compute.kernels);
                }
                weight.matmul_activate(compute, x, f, out);
            }
            Self::Blocks(linear) => {
                if linear.weight().format().is_quantised() {
                    x.quantise(compute.kernels);
                }
                linear.forward(compute, x, out);
                // Row by row: what a value becomes must not depend on how many rows there are.
                out.chunks_mut(linear.weight().rows()).for_each(|row| f.apply(compute.kernels, row));
            }
        }
    }

    /// Bytes of the matrix.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Packed(weight) => weight.bytes(),
            Self::Blocks(linear) => linear.weight().bytes(),
        }
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
