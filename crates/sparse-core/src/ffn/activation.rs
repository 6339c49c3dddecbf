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
    /// `y sigmoid(slope y)` of `y = min(x, limit)`: the gate of gpt-oss (arXiv 2508.10925).
    ClampedSwish {
        /// Factor inside the sigmoid, above zero.
        slope: f32,
        /// The largest `y`.
        limit: f32,
    },
    /// `x` between `-limit` and `limit`, plus 1: what gpt-oss multiplies its gate with.
    ClampedPlusOne {
        /// The largest magnitude of `x`.
        limit: f32,
    },
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

    /// Its name without its numbers; that of a function without numbers is what [`by_name`](Self::by_name)
    /// reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu2 => "relu2",
            Self::FatRelu { .. } => "fatrelu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
            Self::ClampedSwish { .. } => "clamped_swish",
            Self::ClampedPlusOne { .. } => "clamped_plus_one",
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
            // NaN stays in all of them.
            Self::Relu2 => x.iter_mut().for_each(|x| *x *= *x),
            Self::FatRelu { threshold } => {
                x.iter_mut().for_each(|x| *x = if *x <= threshold { 0.0 } else { *x });
            }
            Self::ClampedSwish { slope, limit } => {
                x.iter_mut().for_each(|x| *x = slope * if *x > limit { limit } else { *x });
                kernels.activate(Activation::Silu, x);
                let inverse = 1.0 / slope;
                x.iter_mut().for_each(|x| *x *= inverse);
            }
            Self::ClampedPlusOne { limit } => {
                x.iter_mut().for_each(|x| *x = x.clamp(-limit, limit) + 1.0);
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
            Self::FatRelu { .. }
            | Self::ClampedSwish { .. }
            | Self::ClampedPlusOne { .. }
            | Self::Identity => return None,
        })
    }
}

/// `y *= x`.
pub(crate) fn multiply(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamped_functions_follow_their_formulas() {
        let inputs = [-90.0_f32, -7.5, -1.0, 0.0, 0.3, 6.9, 7.0, 8.0, 1e30, f32::NAN];
        let apply = |function: ActivationType| {
            let mut values = inputs;
            function.apply(Kernels::get(), &mut values);
            values
        };
        let gates = apply(ActivationType::ClampedSwish { slope: 1.702, limit: 7.0 });
        let ups = apply(ActivationType::ClampedPlusOne { limit: 7.0 });
        for (x, (gate, up)) in inputs.iter().zip(gates.iter().zip(ups)) {
            if x.is_nan() {
                assert!(gate.is_nan() && up.is_nan());
                continue;
            }
            let y = f64::from(x.min(7.0));
            let expected = y / (1.0 + (-1.702 * y).exp());
            assert!((f64::from(*gate) - expected).abs() < 1e-5, "{x}: {gate}, {expected}");
            assert_eq!(up, x.clamp(-7.0, 7.0) + 1.0);
        }
    }
}
