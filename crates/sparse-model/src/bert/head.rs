//! From the vectors of a text's tokens to its embedding.

use sha2::{Digest, Sha256};
use sparse_simd::{Activation, Kernels};

use super::Pooling;
use crate::Error;

/// What follows on a transformer.
#[derive(Debug)]
pub(super) struct Head {
    /// Width of a token's vector.
    pub(super) width: usize,
    /// Ways to pool, whose results stand one behind the other.
    pub(super) pooling: Vec<Pooling>,
    /// Whether the prompt's tokens count.
    pub(super) include_prompt: bool,
    /// What is done to the result, in this order.
    pub(super) steps: Vec<Step>,
}

/// Something done to an embedding.
#[derive(Debug)]
pub(super) enum Step {
    /// Scales it to length 1.
    Normalize,
    Dense(Projection),
    LayerNorm {
        weight: Vec<f32>,
        bias: Vec<f32>,
    },
}

/// `y = f(W x + b)`, plus `x` itself or `R x`.
#[derive(Debug)]
pub(super) struct Projection {
    pub(super) inputs: usize,
    /// `[outputs x inputs]`.
    pub(super) weight: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) activation: Option<Activation>,
    pub(super) residual: Residual,
}

/// What a projection adds to its output.
#[derive(Debug)]
pub(super) enum Residual {
    None,
    /// Its input.
    Input,
    /// `[outputs x inputs]` times its input.
    Matrix(Vec<f32>),
}

/// Epsilon of PyTorch's layer norms.
const EPSILON: f32 = 1e-5;
/// The least length that PyTorch divides a vector by.
const LEAST_LENGTH: f32 = 1e-12;

impl Head {
    /// Pools vectors of `width` values, and does nothing else.
    pub(super) fn new(width: usize, pooling: Vec<Pooling>) -> Self {
        Self { width, pooling, include_prompt: true, steps: Vec::new() }
    }

    /// Values of an embedding.
    pub(super) fn dimension(&self) -> usize {
        let projections = self.steps.iter().rev().find_map(|step| match step {
            Step::Dense(projection) => Some(projection.weight.len() / projection.inputs),
            _ => None,
        });
        projections.unwrap_or(self.width * self.pooling.len())
    }

    /// Whether embeddings have length 1.
    pub(super) fn normalizes(&self) -> bool {
        matches!(self.steps.last(), Some(Step::Normalize))
    }

    /// Pools by one way alone.
    ///
    /// # Errors
    /// If a step that follows wants as many values as before, and it gives another number.
    pub(super) fn set_pooling(&mut self, pooling: Pooling) -> Result<(), Error> {
        let fixed = self.steps.iter().any(|step| !matches!(step, Step::Normalize));
        if fixed && self.pooling.len() > 1 {
            let problem = format!("one way gives {} values, too few for the layers behind it", self.width);
            return Err(Error::setting("pooling", problem));
        }
        self.pooling = vec![pooling];
        Ok(())
    }

    /// Has embeddings scaled to length 1 in the end, or not.
    pub(super) fn set_normalize(&mut self, normalize: bool) {
        while self.normalizes() {
            self.steps.pop();
        }
        if normalize {
            self.steps.push(Step::Normalize);
        }
    }

    /// Adds everything that embeddings depend on to a hash.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        hash.update(format!("{:?} {} {}\n", self.pooling, self.include_prompt, self.steps.len()));
        let mut floats = |name: &str, values: &[f32]| {
            hash.update(format!("{name} {}\n", values.len()));
            values.iter().for_each(|v| hash.update(v.to_le_bytes()));
        };
        for step in &self.steps {
            match step {
                Step::Normalize => floats("normalize", &[]),
                Step::Dense(projection) => {
                    floats(&format!("dense {:?}", projection.activation), &projection.weight);
                    floats("bias", projection.bias.as_deref().unwrap_or_default());
                    match &projection.residual {
                        Residual::None => {}
                        Residual::Input => floats("input", &[]),
                        Residual::Matrix(matrix) => floats("residual", matrix),
                    }
                }
                Step::LayerNorm { weight, bias } => {
                    floats("norm", weight);
                    floats("bias", bias);
                }
            }
        }
    }

    /// The embedding of a text. `vectors` is `[tokens x width]`; the first `prompt` tokens are the prompt's.
    pub(super) fn embed(&self, kernels: &Kernels, vectors: &[f32], prompt: usize) -> Vec<f32> {
        let prompt = if self.include_prompt { 0 } else { prompt };
        let mut x = Vec::with_capacity(self.width * self.pooling.len());
        for pooling in &self.pooling {
            x.extend(pool(*pooling, kernels, vectors, self.width, prompt));
        }
        for step in &self.steps {
            match step {
                Step::Normalize => {
                    let length = kernels.dot_f32(&x, &x).sqrt().max(LEAST_LENGTH);
                    x.iter_mut().for_each(|v| *v /= length);
                }
                Step::Dense(projection) => x = projection.apply(kernels, &x),
                Step::LayerNorm { weight, bias } => {
                    let from = x.clone();
                    kernels.layer_norm(&from, weight, bias, EPSILON, &mut x);
                }
            }
        }
        x
    }
}

/// Pools `vectors`, of which the first `skipped` do not count. If that leaves none, the result is the first token's
/// vector for [`Pooling::Cls`], and zeros otherwise.
fn pool(pooling: Pooling, kernels: &Kernels, vectors: &[f32], width: usize, skipped: usize) -> Vec<f32> {
    let tokens = vectors.len() / width;
    let counted = &vectors[skipped.min(tokens) * width..];
    let count = (counted.len() / width) as f32;
    let mut out = vec![0.0; width];
    if counted.is_empty() && pooling != Pooling::Cls {
        return out;
    }
    let mut divisor = 1.0;
    match pooling {
        Pooling::Cls => {
            let first = if counted.is_empty() { vectors } else { counted };
            out.copy_from_slice(&first[..width]);
        }
        Pooling::LastToken => out.copy_from_slice(&counted[counted.len() - width..]),
        Pooling::Max => {
            out.fill(f32::NEG_INFINITY);
            for vector in counted.chunks(width) {
                // Unlike `f32::max`, keeps what is no number, so that damaged weights are noticed.
                for (max, v) in out.iter_mut().zip(vector) {
                    if *v > *max || v.is_nan() {
                        *max = *v;
                    }
                }
            }
        }
        Pooling::Mean | Pooling::MeanSqrtLen => {
            counted.chunks(width).for_each(|vector| kernels.add(&mut out, vector));
            divisor = if pooling == Pooling::Mean { count } else { count.sqrt() };
        }
        Pooling::WeightedMean => {
            divisor = 0.0;
            for (position, vector) in vectors.chunks(width).enumerate().skip(skipped) {
                let weight = (position + 1) as f32;
                kernels.axpy_f32(weight, vector, &mut out);
                divisor += weight;
            }
        }
    }
    out.iter_mut().for_each(|v| *v /= divisor);
    out
}

impl Projection {
    fn apply(&self, kernels: &Kernels, x: &[f32]) -> Vec<f32> {
        let product = |matrix: &[f32]| -> Vec<f32> {
            matrix.chunks(self.inputs).map(|row| kernels.dot_f32(row, x)).collect()
        };
        let mut y = product(&self.weight);
        if let Some(bias) = &self.bias {
            kernels.add(&mut y, bias);
        }
        if let Some(function) = self.activation {
            kernels.activate(function, &mut y);
        }
        match &self.residual {
            Residual::None => {}
            Residual::Input => kernels.add(&mut y, x),
            Residual::Matrix(matrix) => kernels.add(&mut y, &product(matrix)),
        }
        y
    }
}
