//! Elementary functions.
//!
//! Bounds are stated with [`Activation`] and tested over all of f32.

use crate::Activation;
use crate::activation::{TANH_FORM, TANH_FORM_CUBE};
use crate::simd::{Simd, split, split_mut};

/// ln 2 in two parts: the first has so few bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `x = n ln 2 + r` with `|r| <= ln(2) / 2`; returns `n` and `r`.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let n = s.round(s.mul(x, s.splat(core::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    (n, s.fma(n, s.splat(-LN_2_LOW), r))
}

/// The polynomial with these coefficients, the highest first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: [f32; N]) -> S::F {
    let mut sum = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = s.fma(sum, x, s.splat(*c));
    }
    sum
}

/// `e^x`, by the Taylor polynomial of degree 7, whose remainder is below 6e-9 for a reduced argument.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond these the result is zero or infinity.
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let (n, r) = reduce(s, x);
    let e = polynomial(s, r, [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]);
    s.scale(e, n)
}

/// `tanh |x| = e / (e + 2)` with `e = exp(2 |x|) - 1 = 2^n (exp(r) - 1) + 2^n - 1`: nothing cancels, as `n >= 0`.
#[inline(always)]
fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    // From 9.01 on the result rounds to one.
    let y = s.min(s.splat(20.0), s.abs(s.add(x, x)));
    let (n, r) = reduce(s, y);
    let p = polynomial(s, r, [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5]);
    let p = s.fma(s.mul(p, r), r, r);
    let power = s.scale(s.splat(1.0), n);
    let e = s.fma(power, p, s.sub(power, s.splat(1.0)));
    s.copysign(s.div(e, s.add(e, s.splat(2.0))), x)
}

/// `1 / (1 + e^-x)`; the exponential is of `-|x|`, so that neither end loses digits.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.sub(s.splat(0.0), s.abs(x)));
    let one = s.splat(1.0);
    s.div(s.select_less(x, s.splat(0.0), e, one), s.add(one, e))
}

/// The normal distribution function.
///
/// Below zero it is `e^(-x^2 / 2) g(|x|)`, where `g` is fitted by a polynomial in `1 / (1 + 0.4 |x|)` (minimax of
/// the relative error on 0..=13.5, which is 7e-8).
#[inline(always)]
fn normal<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    // Beyond 14.2 the function is below the smallest f32.
    let z = s.min(s.splat(15.0), s.abs(x));
    let t = s.div(one, s.fma(z, s.splat(0.4), one));
    let g = polynomial(
        s,
        t,
        [
            -0.040_001_484,
            0.202_330_01,
            -0.376_820_12,
            0.254_086_82,
            -0.014_227_575,
            0.159_079_2,
            0.155_645_46,
            0.159_920_43,
            -1.276_027_7e-5,
        ],
    );
    let tail = s.mul(g, exp(s, s.mul(s.mul(z, z), s.splat(-0.5))));
    s.select_less(x, s.splat(0.0), tail, s.sub(one, tail))
}

/// `f(x)`.
#[inline(always)]
fn evaluate<S: Simd>(s: S, f: Activation, x: S::F) -> S::F {
    match f {
        // A selection would become a masked store, which AMD's AVX2 is slow at.
        Activation::Relu => s.max(s.splat(0.0), x),
        Activation::Exp => exp(s, x),
        Activation::Tanh => tanh(s, x),
        Activation::Sigmoid => sigmoid(s, x),
        Activation::Silu => s.mul(x, sigmoid(s, x)),
        Activation::Gelu => s.mul(x, normal(s, x)),
        Activation::GeluTanh => {
            let slope = s.fma(s.mul(x, x), s.splat(TANH_FORM_CUBE), s.splat(TANH_FORM));
            s.mul(x, sigmoid(s, s.mul(x, slope)))
        }
    }
}

/// Runs the code once for each function, with `$f` a constant: the choice is made outside the loop.
macro_rules! for_each {
    ($function:expr, |$f:ident| $code:expr) => {
        for_each!($function, $f, $code, Relu, Exp, Tanh, Sigmoid, Silu, Gelu, GeluTanh)
    };
    ($function:expr, $f:ident, $code:expr, $($name:ident),*) => {
        match $function {
            $(Activation::$name => {
                const $f: Activation = Activation::$name;
                $code
            })*
        }
    };
}

/// `x[i] = f(x[i])`.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, f: Activation, x: &mut [f32]) {
    for_each!(f, |F| {
        let (blocks, rest) = split_mut::<S>(x);
        for block in blocks {
            s.store(evaluate(s, F, s.load(block)), block);
        }
        s.store_part(evaluate(s, F, s.load_part(rest, 0.0)), rest);
    });
}

/// `gate[i] = f(gate[i]) * up[i]`.
#[inline(always)]
pub(crate) fn activate_mul<S: Simd>(s: S, f: Activation, gate: &mut [f32], up: &[f32]) {
    for_each!(f, |F| {
        let ((gates, gates_rest), (ups, ups_rest)) = (split_mut::<S>(gate), split::<S>(up));
        for (gate, up) in gates.iter_mut().zip(ups) {
            s.store(s.mul(evaluate(s, F, s.load(gate)), s.load(up)), gate);
        }
        let value = evaluate(s, F, s.load_part(gates_rest, 0.0));
        s.store_part(s.mul(value, s.load_part(ups_rest, 0.0)), gates_rest);
    });
}
