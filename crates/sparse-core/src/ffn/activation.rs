//! What neurons do with their sum.

use sparse_simd::{Activation, Kernels};

/// The activation function of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ActivationType {
    /// `max(x, 0)`: most neurons of a model trained with it are exactly zero.
    Relu,
    /// `max(x, 0)^2` (So et al. 2021, arXiv 2109.08668).
    Relu2,
    /// `x` above the threshold, 0 up to it (ProSparse, arXiv 2402.13516).
    FatRelu {
        /// The threshold.
        threshold: f32,
    },
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

    /// The function of that name in model files: `relu`, `relu2`, `fatrelu:0.03` (with its threshold), `gelu`,
    /// `gelu_tanh`, `silu` or `identity`, and their usual other names.
    pub fn by_name(name: &str) -> Option<Self> {
        if let Some(threshold) = name.strip_prefix("fatrelu:") {
            let threshold = threshold.parse().ok().filter(|t: &f32| t.is_finite() && *t >= 0.0)?;
            return Some(Self::FatRelu { threshold });
        }
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

    /// Its name in model files, as [`by_name`](Self::by_name) reads it, but for a threshold.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu2 => "relu2",
            Self::FatRelu { .. } => "fatrelu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
            Self::Identity => "identity",
        }
    }

    /// Whether it gives exact zeros: neurons that can be left out without any loss.
    pub fn has_zeros(self) -> bool {
        matches!(self, Self::Relu | Self::Relu2 | Self::FatRelu { .. })
    }

    /// `x[i] = f(x[i])`.
    pub fn apply(self, kernels: &Kernels, x: &mut [f32]) {
        if let Some(function) = self.kernel() {
            kernels.activate(function, x);
        }
        match self {
            Self::Relu2 => x.iter_mut().for_each(|x| *x *= *x),
            // NaN stays.
            Self::FatRelu { threshold } => {
                x.iter_mut().for_each(|x| *x = if *x <= threshold { 0.0 } else { *x });
            }
            _ => {}
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
            Self::FatRelu { .. } | Self::Identity => return None,
        })
    }
}

/// `y *= x`.
pub(crate) fn multiply(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
}
