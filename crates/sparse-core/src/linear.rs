//! A matrix and a bias.

use alloc::vec::Vec;

use crate::error::same_len;
use crate::{Activations, Compute, Error, Matrix, SegmentedMatrix};

/// `y = W x + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: SegmentedMatrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// A map with `weight`, `[outputs x inputs]`, and a bias of one value per output.
    ///
    /// # Errors
    /// If the bias has another length.
    pub fn new(weight: impl Into<SegmentedMatrix>, bias: Option<Vec<f32>>) -> Result<Self, Error> {
        let weight = weight.into();
        if let Some(bias) = &bias {
            same_len("bias", weight.rows(), bias.len())?;
        }
        Ok(Self { weight, bias })
    }

    /// The matrix.
    pub fn weight(&self) -> &SegmentedMatrix {
        &self.weight
    }

    /// The matrix, to be [interleaved](crate::interleave) or to be made rows again. `None` if it has several segments.
    pub fn matrix_mut(&mut self) -> Option<&mut Matrix> {
        self.weight.single_mut()
    }

    /// The bias.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// `out[t] = W x[t] + b` for every token; `out` is `[tokens x outputs]`.
    ///
    /// # Panics
    /// As [`SegmentedMatrix::matmul`].
    pub fn forward(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        self.weight.matmul(compute, x, out);
        add_bias(compute, self.bias(), out);
    }

    /// The outputs in `active` alone, of one token: `out[i]` is output `active[i]`.
    ///
    /// # Panics
    /// As [`SegmentedMatrix::matmul_rows`].
    pub fn forward_rows(&self, compute: &Compute, active: &[u32], x: &Activations, out: &mut [f32]) {
        self.weight.matmul_rows(compute, active, x, out);
        if let Some(bias) = &self.bias {
            for (y, &j) in out.iter_mut().zip(active) {
                *y += bias[j as usize];
            }
        }
    }
}

/// `out[t] += bias` for every token.
pub(crate) fn add_bias(compute: &Compute, bias: Option<&[f32]>, out: &mut [f32]) {
    if let Some(bias) = bias {
        for y in out.chunks_mut(bias.len()) {
            compute.kernels.add(y, bias);
        }
    }
}
