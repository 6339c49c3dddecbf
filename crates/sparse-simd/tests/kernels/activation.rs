//! Activation functions over all of f32, against f64.

use super::{levels, none};
use sparse_simd::Activation;

/// The function in f64; a product of infinity with zero is NaN, as documented.
fn reference(f: Activation, x: f64) -> f64 {
    let normal = |x: f64| 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2);
    let sigmoid = |x: f64| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
    match f {
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Exp => x.exp(),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => x * normal(x),
        Activation::GeluTanh => {
            x * sigmoid((8.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x))
        }
        f => unreachable!("{f:?} has no reference"),
    }
}

/// The relative and the absolute error that [`Activation`] allows at `x`.
fn bound(f: Activation, x: f64) -> (f64, f64) {
    let smallest = f64::from(f32::from_bits(1));
    // A factor off by the smallest number, times x, which is at most 105 where the factor is not zero.
    let product = smallest * (1.0 + x.abs().min(110.0));
    match f {
        Activation::Relu => (0.0, 0.0),
        Activation::Exp => (3e-7, smallest),
        Activation::Tanh | Activation::Sigmoid => (6e-7, smallest),
        Activation::Silu => (6e-7, product),
        Activation::Gelu => (if x < -4.0 { 1e-5 } else { 1e-6 }, product),
        Activation::GeluTanh => (if x < -4.0 { 4e-5 } else { 2e-6 }, product),
        f => unreachable!("{f:?} has no bound"),
    }
}

/// Whether `found` is `f(x)` within the bound.
fn right(f: Activation, x: f32, found: f32) -> bool {
    let (expected, (relative, absolute)) = (reference(f, f64::from(x)), bound(f, f64::from(x)));
    let found = f64::from(found);
    if expected.abs() >= f64::from(f32::MAX) || !expected.is_finite() {
        // An overflow may come at the last numbers before it.
        return found == expected as f32 as f64 || (found.is_nan() && expected.is_nan()) || {
            found > f64::from(f32::MAX) * (1.0 - 1e-6) && expected > 0.0
        };
    }
    (found - expected).abs() <= relative * expected.abs() + absolute
        || (found.is_infinite() && expected > f64::from(f32::MAX) * (1.0 - 1e-6))
}

fn check(f: Activation, x: &[f32], failures: &mut Vec<String>) {
    for kernels in levels() {
        let mut y = x.to_vec();
        kernels.activate(f, &mut y);
        for (x, y) in x.iter().zip(y) {
            if !right(f, *x, y) {
                let expected = reference(f, f64::from(*x));
                failures.push(format!("{} {f:?}({x:e}) = {y:e}, expected {expected:e}", kernels.level()));
            }
        }
    }
}

/// Every 4099th bit pattern; all of them when the variable `SPARSE_SIMD_EXHAUSTIVE` is set, which takes an hour.
#[test]
fn bounds_hold_over_all_floats() {
    let step = if std::env::var_os("SPARSE_SIMD_EXHAUSTIVE").is_some() { 1 } else { 4099 };
    let mut failures = Vec::new();
    let mut at = 0u64;
    while at <= u64::from(u32::MAX) && failures.len() < 100 {
        let mut x = Vec::new();
        while x.len() < 1003 && at <= u64::from(u32::MAX) {
            x.push(f32::from_bits(at as u32));
            at += step;
        }
        for f in Activation::ALL {
            check(f, &x, &mut failures);
        }
    }
    none(failures);
}

/// Where the functions bend, finely.
#[test]
fn bounds_hold_around_zero_and_in_the_tails() {
    let mut failures = Vec::new();
    let x: Vec<f32> = (-110_000..110_000).step_by(3).map(|i| i as f32 * 1e-3).collect();
    for f in Activation::ALL {
        check(f, &x, &mut failures);
    }
    none(failures);
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    let tiny = f32::from_bits(1);
    let mut failures = Vec::new();
    let ends: [(Activation, f32, f32); 7] = [
        (Activation::Relu, 0.0, INF),
        (Activation::Exp, 0.0, INF),
        (Activation::Tanh, -1.0, 1.0),
        (Activation::Sigmoid, 0.0, 1.0),
        (Activation::Silu, f32::NAN, INF),
        (Activation::Gelu, f32::NAN, INF),
        (Activation::GeluTanh, f32::NAN, INF),
    ];
    for kernels in levels() {
        for n in [1, 7, 8, 15, 16, 33] {
            for (f, low, high) in ends {
                for (x, expected) in [(-INF, low), (INF, high), (f32::NAN, f32::NAN), (-f32::NAN, f32::NAN)] {
                    let mut y = vec![x; n];
                    kernels.activate(f, &mut y);
                    if !y.iter().all(|y| *y == expected || (y.is_nan() && expected.is_nan())) {
                        failures.push(format!("{} {f:?}({x}) = {y:?}", kernels.level()));
                    }
                }
            }
        }
    }
    let given = [0.0, -0.0, tiny, -tiny, 1e-40, -1e-40, 10.0, -10.0, 20.0, -20.0, f32::MAX, f32::MIN];
    for f in Activation::ALL {
        check(f, &given, &mut failures);
    }
    none(failures);
}

#[test]
fn gated_forms_are_the_products() {
    for kernels in levels() {
        for n in (0..40).chain([576]) {
            let gate: Vec<f32> = (0..n).map(|i| (i as f32 - 20.0) * 0.37).collect();
            let up: Vec<f32> = (0..n).map(|i| 1.0 - i as f32 * 0.11).collect();
            for f in Activation::ALL {
                let mut expected = gate.clone();
                kernels.activate(f, &mut expected);
                expected.iter_mut().zip(&up).for_each(|(y, u)| *y *= u);
                let mut found = gate.clone();
                kernels.activate_mul(f, &mut found, &up);
                assert_eq!(found, expected, "{} {f:?} {n}", kernels.level());
            }
        }
    }
}
