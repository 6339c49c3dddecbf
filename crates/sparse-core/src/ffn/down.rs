//! The down projection, in the storage that skipping wants.

use alloc::vec;
use alloc::vec::Vec;

use crate::{Activations, ColumnMatrix, Compute, Matrix, SegmentedMatrix};

/// The weights that turn neurons into outputs. Neuron j is column j of the down projection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Down {
    /// Output by output, `[outputs x neurons]`, as files have it. Skipping a neuron saves nothing.
    Rows(Matrix),
    /// The same numbers, neuron by neuron.
    Columns(ColumnMatrix),
    /// Neuron records, `[neurons x outputs]`: each neuron's column is quantized on its own. Skips without any overhead;
    /// lossless only if the file was written like that.
    Neurons(SegmentedMatrix),
}

impl Down {
    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Rows(w) => w.rows(),
            Self::Columns(w) => w.rows(),
            Self::Neurons(w) => w.cols(),
        }
    }

    /// Number of neurons.
    pub fn neurons(&self) -> usize {
        match self {
            Self::Rows(w) => w.cols(),
            Self::Columns(w) => w.cols(),
            Self::Neurons(w) => w.rows(),
        }
    }

    /// Bytes that computing with all neurons reads.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Rows(w) => w.bytes(),
            Self::Columns(w) => w.bytes(),
            Self::Neurons(w) => w.bytes(),
        }
    }

    /// Bytes that computing with the neurons in `active` reads.
    pub fn bytes_of(&self, active: &[u32]) -> usize {
        match self {
            Self::Rows(w) => w.bytes(),
            Self::Columns(w) => w.bytes_of(active),
            Self::Neurons(w) => w.bytes_of(active),
        }
    }

    /// The Euclidean norm of every neuron's column: how much of its value gets into the output.
    pub fn norms(&self) -> Vec<f32> {
        let mut squares = vec![0.0; self.neurons()];
        match self {
            Self::Neurons(w) => {
                let mut row = vec![0.0; w.cols()];
                for (j, square) in squares.iter_mut().enumerate() {
                    w.decode_row(j, &mut row);
                    *square = row.iter().map(|v| v * v).sum();
                }
            }
            Self::Rows(w) => add_squares(w, &mut squares),
            Self::Columns(w) => add_squares(&w.to_rows(), &mut squares),
        }
        squares.iter().map(|s| libm::sqrtf(*s)).collect()
    }

    /// What it makes of one token's `hidden`, in f32 whatever the format: for what is computed once.
    pub(super) fn product(&self, hidden: &[f32]) -> Vec<f32> {
        match self {
            Self::Neurons(w) => {
                let (mut sums, mut row) = (vec![0.0_f64; w.cols()], vec![0.0; w.cols()]);
                for (j, h) in hidden.iter().enumerate() {
                    w.decode_row(j, &mut row);
                    sums.iter_mut().zip(&row).for_each(|(sum, w)| *sum += f64::from(h * w));
                }
                sums.iter().map(|sum| *sum as f32).collect()
            }
            Self::Rows(w) => dots(w, hidden),
            Self::Columns(w) => dots(&w.to_rows(), hidden),
        }
    }

    /// `out = down(hidden)` for every token; `hidden` must be quantized.
    pub(super) fn forward(&self, compute: &Compute, hidden: &Activations, out: &mut [f32]) {
        match self {
            Self::Rows(w) => w.matmul(compute, hidden, out),
            Self::Columns(w) => w.matmul(compute, hidden, out),
            Self::Neurons(w) => w.weighted_sum(compute, hidden, out),
        }
    }

    /// `out = down(h)` for one token whose neurons `active` have the values `values` and whose others are zero. With
    /// more than `limit` neurons it computes with all. Returns the bytes read.
    pub(super) fn forward_active(
        &self,
        compute: &Compute,
        active: &[u32],
        values: &[f32],
        limit: usize,
        hidden: &mut Activations,
        out: &mut [f32],
    ) -> usize {
        if let Self::Neurons(w) = self {
            w.axpy_rows(compute, active, &values[..active.len()], out);
            return w.bytes_of(active);
        }
        hidden.x_mut().fill(0.0);
        scatter(active, values, hidden.x_mut());
        hidden.quantize(compute.kernels);
        match self {
            Self::Columns(w) if active.len() <= limit && active.len() < w.cols() => {
                w.axpy(compute, active, hidden, out);
                w.bytes_of(active)
            }
            _ => {
                self.forward(compute, hidden, out);
                self.bytes()
            }
        }
    }
}

/// Every row times `x`.
fn dots(w: &Matrix, x: &[f32]) -> Vec<f32> {
    let mut row = vec![0.0; w.cols()];
    let dot = |r| {
        w.decode_row(r, &mut row);
        row.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>() as f32
    };
    (0..w.rows()).map(dot).collect()
}

/// Adds the square of every value to that of its column.
fn add_squares(w: &Matrix, squares: &mut [f32]) {
    let mut row = vec![0.0; w.cols()];
    for r in 0..w.rows() {
        w.decode_row(r, &mut row);
        squares.iter_mut().zip(&row).for_each(|(s, v)| *s += v * v);
    }
}

/// `out[active[i]] = values[i]`.
pub(super) fn scatter(active: &[u32], values: &[f32], out: &mut [f32]) {
    for (&j, value) in active.iter().zip(values) {
        out[j as usize] = *value;
    }
}
