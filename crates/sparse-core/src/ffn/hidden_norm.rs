//! A norm between the neurons and `down`.

use alloc::vec::Vec;

use sparse_simd::Kernels;

use super::selector::reordered;

/// RMS norm of what `down` multiplies, over all neurons of a token: `h / sqrt(mean(h^2) + epsilon) * weight`.
///
/// Neurons that are left out count as zeros.
#[derive(Clone, Debug)]
pub(super) struct HiddenNorm {
    pub(super) weight: Vec<f32>,
    pub(super) epsilon: f32,
}

impl HiddenNorm {
    /// Normalizes the values of the neurons in `active` of one token.
    pub(super) fn apply_active(&self, k: &Kernels, active: &[u32], values: &mut [f32]) {
        let factor = self.factor(k, values);
        for (value, j) in values.iter_mut().zip(active) {
            *value *= factor * self.weight[*j as usize];
        }
    }

    /// Normalizes every token of `hidden`, `[tokens x neurons]`.
    pub(super) fn apply(&self, k: &Kernels, hidden: &mut [f32]) {
        for values in hidden.chunks_mut(self.weight.len()) {
            let factor = self.factor(k, values);
            values.iter_mut().zip(&self.weight).for_each(|(value, w)| *value *= factor * w);
        }
    }

    /// The same for neurons in another order: neuron i is the one that was `order[i]`.
    pub(super) fn reordered(&self, order: &[u32]) -> Self {
        Self { weight: reordered(order, &self.weight), epsilon: self.epsilon }
    }

    /// One over the root mean square, of the values that are not zero.
    fn factor(&self, k: &Kernels, values: &[f32]) -> f32 {
        let mean = k.dot_f32(values, values) / self.weight.len() as f32;
        1.0 / libm::sqrtf(mean + self.epsilon)
    }
}
