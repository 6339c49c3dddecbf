//! A matrix and a bias, in the storage that the options ask for.

use sparse_core::{ActivationType, Activations, Compute, Linear, Matrix, PackedMatrix};
use sparse_simd::{Kernels, MatMut, PanelKind};

use super::{EncoderFormat, TOKENS};
use crate::{Error, WeightFormat};

/// Inputs that [`Kernels::hadamard`] takes are a multiple of this; twice, it multiplies with this.
const TURNED: usize = 16;

/// `y = W x + b`.
#[derive(Debug)]
pub(super) enum Dense {
    /// In f32.
    Floats(PackedMatrix),
    /// In int8. If `turned`, weights and inputs are multiplied in the coordinates of [`Kernels::hadamard`]: a few values of
    /// BERT's vectors are ten times as large as the rest, and one scale per vector would leave the rest few codes.
    Integers { weight: PackedMatrix, turned: bool },
    /// In blocks of their own scale.
    Blocks(Linear),
}

impl Dense {
    /// A map with `weights`, `[outputs x inputs]`, and a bias of one value per output. `name` is for errors.
    pub(super) fn new(
        format: EncoderFormat,
        name: &str,
        inputs: usize,
        mut weights: Vec<f32>,
        bias: Vec<f32>,
    ) -> Result<Self, Error> {
        let packed = |kind, weights: &[f32]| {
            PackedMatrix::new(kind, inputs, weights, Some(&bias))
                .map_err(|e| Error::Tensor { name: name.to_owned(), problem: e.to_string() })
        };
        match format {
            EncoderFormat::F32 => Ok(Self::Floats(packed(PanelKind::F32, &weights)?)),
            EncoderFormat::Int8 => {
                let turned = inputs.is_multiple_of(TURNED);
                if turned {
                    for row in weights.chunks_mut(inputs) {
                        Kernels::get().hadamard(row);
                        row.iter_mut().for_each(|w| *w /= TURNED as f32);
                    }
                }
                Ok(Self::Integers { weight: packed(PanelKind::Int8, &weights)?, turned })
            }
            EncoderFormat::Blocks(format) => {
                Ok(Self::Blocks(Linear::new(matrix(format, name, inputs, &weights)?, Some(bias))?))
            }
        }
    }

    /// `out[t] = W x[t] + b` for every token; `out` is `[tokens x outputs]`. What `x` holds afterwards is of no meaning.
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
            Self::Floats(weight) => weight.matmul_activate(compute, x, f, out),
            Self::Integers { weight, turned } => {
                if *turned {
                    let (cols, threads) = (x.cols(), compute.pool.threads());
                    let values = MatMut::new(x.x_mut(), cols);
                    let tile = (TOKENS, cols);
                    compute.pool.for_tiles(&mut vec![(); threads], values, tile, |(), _, _, mut rows| {
                        (0..rows.tokens()).for_each(|t| compute.kernels.hadamard(rows.row(t)));
                    });
                }
                x.quantize_rows(compute.kernels);
                weight.matmul_activate(compute, x, f, out);
            }
            Self::Blocks(linear) => {
                if linear.weight().is_quantized() {
                    x.quantize(compute.kernels);
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
            Self::Floats(weight) | Self::Integers { weight, .. } => weight.bytes(),
            Self::Blocks(linear) => linear.weight().bytes(),
        }
    }
}

/// Rows of `cols` values in blocks. `name` is for errors.
pub(super) fn matrix(format: WeightFormat, name: &str, cols: usize, values: &[f32]) -> Result<Matrix, Error> {
    let fault = |problem| Error::Tensor { name: name.to_owned(), problem };
    format.round(cols, values, None).map_err(fault)
}
