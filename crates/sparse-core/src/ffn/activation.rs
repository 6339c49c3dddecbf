//! What neurons do with their sum.

use sparse_simd::{Activation, Kernels};

/// The activation function of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActivationType {
    /// `max(x, 0)`: most neurons of a model trained with it are exactly zero.
    Relu,
    /// `max(x, 0)^2` (So et al. 2021, arXiv 2109.08668).
    Relu2,
    /// `x Phi(x)` (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    Gelu,
    /// The approximation of [`Gelu`](Self::Gelu) by tanh.
    GeluTanh,
    /// `x sigmoid(x)` (Elfwing et al. 2017, arXiv 1702.03118).
    Silu,
    /// `x`.
    Identity,
}

impl ActivationType {
    /// Another name of [`Silu`](Self::Silu).
    #[allow(non_upper_case_globals, reason = "stands beside the variants")]
    pub const Swish: Self = Self::Silu;

    /// The function of that name in model files: `relu`, `relu2`, `gelu`, `gelu_tanh`, `silu` or `identity`, and
    /// their usual other names.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "relu" => Self::Relu,
            "relu2" | "relu_squared" => Self::Relu2,
            "gelu" => Self::Gelu,
            "gelu_tanh" | "gelu_new" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "silu" | "swish" => Self::Silu,
            "identity" | "linear" => Self::Identity,
            _ => return None,
        })
    }

    /// Whether it gives exact zeros: neurons that can be left out without any loss.
    pub fn has_zeros(self) -> bool {
        matches!(self, Self::Relu | Self::Relu2)
    }

    /// `x[i] = f(x[i])`.
    pub fn apply(self, kernels: &Kernels, x: &mut [f32]) {
        if let Some(function) = self.kernel() {
            kernels.activate(function, x);
        }
        if self == Self::Relu2 {
            x.iter_mut().for_each(|x| *x *= *x);
        }
    }

    /// `gate[i] = f(gate[i]) * up[i]`.
    pub(crate) fn apply_mul(self, kernels: &Kernels, gate: &mut [f32], up: &[f32]) {
        match self.kernel() {
            Some(function) if self != Self::Relu2 => kernels.activate_mul(function, gate, up),
            _ => {
                self.apply(kernels, gate);
                multiply(gate, up);
            }
        }
    }

    fn kernel(self) -> Option<Activation> {
        Some(match self {
            Self::Relu | Self::Relu2 => Activation::Relu,
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
            Self::Silu => Activation::Silu,
            Self::Identity => return None,
        })
    }
}

/// `y *= x`.
pub(crate) fn multiply(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
}
