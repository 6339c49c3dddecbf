//! Activation functions by name.

/// A function applied to each value on its own: see [`Kernels::activate`](crate::Kernels::activate), and
/// [`Kernels::activate_mul`](crate::Kernels::activate_mul) for the gated forms.
///
/// The bounds hold at every level and for every f32; subnormal results may be off by 2^-149 more, and where a
/// result is the product with a subnormal factor, by that factor's part. NaN gives NaN everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)`, exact.
    Relu,
    /// `e^x`, relative error at most 3e-7.
    Exp,
    /// `tanh x`, relative error at most 6e-7.
    Tanh,
    /// `1 / (1 + e^-x)`, relative error at most 6e-7.
    Sigmoid,
    /// `x / (1 + e^-x)`, relative error at most 6e-7 (Elfwing et al. 2017, arXiv 1702.03118). -inf gives NaN: it
    /// is infinity times zero.
    Silu,
    /// `x Phi(x)`, where `Phi` is the normal distribution function: `x (1 + erf(x / sqrt 2)) / 2`
    /// (Hendrycks and Gimpel 2016, arXiv 1606.08415). Relative error at most 1e-6, from `x = -4` down 1e-5. -inf
    /// gives NaN.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, the approximation of [`Gelu`](Self::Gelu) that many
    /// models were trained with. Relative error at most 2e-6, from `x = -4` down 4e-5. -inf gives NaN.
    GeluTanh,
}

impl Activation {
    /// Every function.
    pub const ALL: [Activation; 7] =
        [Self::Relu, Self::Exp, Self::Tanh, Self::Sigmoid, Self::Silu, Self::Gelu, Self::GeluTanh];
}

/// `sqrt(8 / pi)`: `(1 + tanh(y / 2)) / 2` is the sigmoid of `y`.
pub(crate) const TANH_FORM: f32 = 1.595_769;
/// The factor of the cube, times [`TANH_FORM`].
pub(crate) const TANH_FORM_CUBE: f32 = 0.071_354_82;
