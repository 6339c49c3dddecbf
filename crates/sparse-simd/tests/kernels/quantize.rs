//! Activations to int8.

use super::data::{Activations, Rng};
use super::{levels, none};

/// Blocks that a quantizer can get wrong.
fn cases() -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = Rng(1);
    let mut cases = vec![("empty", vec![]), ("zeros", vec![0.0; 32]), ("minus zeros", vec![-0.0; 64])];
    for blocks in 1..6 {
        cases.push(("random", rng.floats(32 * blocks)));
        cases.push(("large", rng.floats(32 * blocks).iter().map(|x| x * 3e38).collect()));
        cases.push(("small", rng.floats(32 * blocks).iter().map(|x| x * 1e-35).collect()));
        cases.push(("smaller", rng.floats(32 * blocks).iter().map(|x| x * 1e-36).collect()));
        cases.push(("subnormal", rng.floats(32 * blocks).iter().map(|x| x * 1e-40).collect()));
    }
    // With a largest value of 127 the scale is one, and halves are ties.
    cases.push(("ties", (0..32).map(|i| if i == 0 { 127.0 } else { i as f32 - 16.5 }).collect()));
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 13, 31] {
            let mut x = rng.floats(96);
            x[32 + at] = bad;
            cases.push(("not finite", x));
        }
    }
    cases
}

/// Everything as integers, so that NaN equals NaN.
fn bits(a: &Activations) -> (&[i8], Vec<u32>, &[i16]) {
    (&a.q, a.d.iter().map(|d| d.to_bits()).collect(), &a.sums)
}

#[test]
fn levels_agree_bit_for_bit() {
    let mut failures = Vec::new();
    for (name, x) in cases() {
        let mut all = levels().map(|kernels| (kernels.level(), Activations::quantized(kernels, &x, 32)));
        let (_, scalar) = all.next().unwrap();
        for (level, found) in all {
            if bits(&found) != bits(&scalar) {
                failures.push(format!("{level} {name} ({} values): {found:?}, expected {scalar:?}", x.len()));
            }
        }
    }
    none(failures);
}

#[test]
fn codes_are_the_nearest_and_sums_are_theirs() {
    let mut failures = Vec::new();
    for (name, x) in cases() {
        for kernels in levels() {
            let a = Activations::quantized(kernels, &x, 32);
            assert_eq!(a.sums, Activations::new(32, a.q.clone(), vec![]).sums, "{name}");
            for (i, (x, q)) in x.iter().zip(&a.q).enumerate() {
                let d = a.d[i / 32];
                // A code off by 1e-4 of a step is the rounding of the inverse; below 2^-119 all is zero.
                let fits = (x - f32::from(*q) * d).abs() <= d * 0.5001 + if d == 0.0 { 2e-36 } else { 0.0 };
                if !fits && !d.is_nan() || *q == -128 {
                    failures.push(format!("{} {name} [{i}]: {q} * {d} for {x}", kernels.level()));
                }
            }
        }
    }
    none(failures);
}

#[test]
fn ties_go_to_even_and_non_finite_blocks_are_nan() {
    for kernels in levels() {
        let x: Vec<f32> = (0..32).map(|i| if i == 0 { 127.0 } else { i as f32 - 16.5 }).collect();
        let a = Activations::quantized(kernels, &x, 32);
        assert_eq!((a.d[0], &a.q[13..20]), (1.0, &[-4, -2, -2, 0, 0, 2, 2][..]), "{}", kernels.level());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 64];
            x[40] = bad;
            let a = Activations::quantized(kernels, &x, 64);
            assert!(a.d[0].is_finite() && a.d[1].is_nan(), "{} {bad}", kernels.level());
            assert_eq!(a.q[32..], [0; 32]);
        }
    }
}
