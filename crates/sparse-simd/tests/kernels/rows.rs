//! Kernels on rows of floats: each length up to a few vectors, at every address, against f64.

use super::data::Rng;
use super::{levels, none, within};
use half::f16;
use sparse_simd::{Activation, BlockFormat, Kernels, MatMut, Rows};

/// Lengths from nothing to a few vectors of any level, and some that a model has.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=70).chain([96, 100, 127, 128, 255, 576, 1536])
}

/// Compares each value with what f64 gives: `expected` returns it, and how far off a value may be.
fn compare(failures: &mut Vec<String>, what: &str, found: &[f32], expected: impl Fn(usize) -> (f64, f64)) {
    for (i, &found) in found.iter().enumerate() {
        let (value, slack) = expected(i);
        let equal = f64::from(found) == value || (found.is_nan() && value.is_nan());
        if !equal && !within(f64::from(found), value, slack) {
            failures.push(format!("{what} [{i}]: {found}, expected {value}"));
        }
    }
}

/// Runs `case` for every level, length and alignment; the slices it gets lie at that offset in their buffers.
fn each(mut case: impl FnMut(&'static Kernels, String, usize, usize, &mut Rng)) {
    for kernels in levels() {
        for n in lengths() {
            for offset in [0, 1, 3] {
                let mut rng = Rng((n * 4 + offset) as u64);
                case(kernels, format!("{} n={n} offset={offset}", kernels.level()), n, offset, &mut rng);
            }
        }
    }
}

fn wide(x: f32) -> f64 {
    f64::from(x)
}

fn sum_and_size(terms: impl Iterator<Item = f64>) -> (f64, f64) {
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

#[test]
fn dot_products() {
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let (a, b) = (rng.floats(n + offset), rng.floats(n + offset));
        let (a, b) = (&a[offset..], &b[offset..]);
        let (sum, size) = sum_and_size(a.iter().zip(b).map(|(a, b)| wide(*a) * wide(*b)));
        compare(&mut failures, &format!("dot_f32 {what}"), &[kernels.dot_f32(a, b)], |_| (sum, 1e-6 * size));
    });
    none(failures);
}

#[test]
fn sums_of_rows() {
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let (x, y0, a) = (rng.floats(n + offset), rng.floats(n + offset), rng.float());
        let mut y = y0.clone();
        kernels.axpy_f32(a, &x[offset..], &mut y[offset..]);
        compare(&mut failures, &format!("axpy_f32 {what}"), &y[offset..], |i| {
            (wide(y0[offset + i]) + wide(a) * wide(x[offset + i]), 2e-7)
        });

        let mut y = y0.clone();
        kernels.add(&mut y[offset..], &x[offset..]);
        compare(&mut failures, &format!("add {what}"), &y[offset..], |i| {
            (wide(y0[offset + i] + x[offset + i]), 0.0)
        });
        assert_eq!(y[..offset], y0[..offset], "written before the slice: {what}");
    });
    none(failures);
}

#[test]
fn half_precision_is_rounded_to_nearest_even() {
    let special = [
        0.0,
        -0.0,
        1.0,
        65504.0,
        65519.9,
        65520.0,
        -1e6,
        6e-8,
        2.9e-8,
        3.1e-8,
        6.1e-5,
        1e-40,
        2049.0,
        2051.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let mut x = rng.floats(n + offset);
        for (x, special) in x.iter_mut().rev().zip(special) {
            *x = special;
        }
        let x = &x[offset..];
        let mut out = vec![f16::ONE; n];
        kernels.to_f16(x, &mut out);
        for (x, y) in x.iter().zip(out) {
            if y.to_bits() != f16::from_f32(*x).to_bits() {
                failures.push(format!("{what}: {x} became {y}"));
            }
        }
    });
    for kernels in levels() {
        let mut out = [f16::ONE; 9];
        kernels.to_f16(&[f32::NAN; 9], &mut out);
        assert!(out.iter().all(|x| x.is_nan()), "{}", kernels.level());
    }
    none(failures);
}

/// The numbers half-way between two neighbors, where rounding turns, and what is next to them.
#[test]
fn half_precision_rounds_at_the_middle() {
    let mut x = Vec::new();
    for bits in 0..0x7C00 {
        let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
        let middle = if high.is_finite() { (low + high) / 2.0 } else { 65520.0 };
        x.extend([low, middle.next_down(), middle, middle.next_up()]);
    }
    x.extend(x.clone().iter().map(|x| -x));
    for kernels in levels() {
        let mut out = vec![f16::ONE; x.len()];
        kernels.to_f16(&x, &mut out);
        let wrong = x.iter().zip(out).filter(|(x, y)| y.to_bits() != f16::from_f32(**x).to_bits());
        none(wrong.map(|(x, y)| format!("{}: {x} became {y}", kernels.level())).collect());
    }
}

#[test]
fn every_half_precision_number_is_read_exactly() {
    let w: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let row = Rows::new(BlockFormat::F16, w.len(), &bytes).unwrap();
    for kernels in levels() {
        let mut y = vec![9.0; w.len()];
        kernels.weighted_sum(&[1.0], row, &mut MatMut::new(&mut y, w.len()));
        let read = |w: &f16, y: f32| y == w.to_f32() || w.is_nan() && y.is_nan();
        let wrong = w.iter().zip(y).filter(|(w, y)| !read(w, *y));
        none(wrong.map(|(w, y)| format!("{}: {w} became {y}", kernels.level())).collect());
    }
}

#[test]
fn rms_norm() {
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let (x, w) = (rng.floats(n + offset), rng.floats(n + offset));
        let (x, w) = (&x[offset..], &w[offset..]);
        let mut out = vec![9.0; n + offset];
        kernels.rms_norm(x, w, 1e-5, &mut out[offset..]);
        let mean = x.iter().map(|x| wide(*x) * wide(*x)).sum::<f64>() / n as f64;
        compare(&mut failures, &format!("rms_norm {what}"), &out[offset..], |i| {
            let y = wide(x[i]) * wide(w[i]) / (mean + wide(1e-5)).sqrt();
            (y, 1e-6 * y.abs())
        });
    });
    for kernels in levels() {
        let mut out = [0.0; 20];
        kernels.rms_norm(&[0.0; 20], &[1.0; 20], 1e-6, &mut out);
        assert_eq!(out, [0.0; 20]);
        let mut x = [1.0; 20];
        x[18] = f32::NAN;
        kernels.rms_norm(&x, &[1.0; 20], 1e-6, &mut out);
        assert!(out.iter().all(|y| y.is_nan()), "{}", kernels.level());
    }
    none(failures);
}

#[test]
fn layer_norm() {
    let mut failures = Vec::new();
    for shift in [0.0, 100.0] {
        each(|kernels, what, n, offset, rng| {
            let x: Vec<f32> = rng.floats(n + offset).iter().map(|x| x + shift).collect();
            let (w, b) = (rng.floats(n + offset), rng.floats(n + offset));
            let (x, w, b) = (&x[offset..], &w[offset..], &b[offset..]);
            let mut out = vec![9.0; n + offset];
            kernels.layer_norm(x, w, b, 1e-5, &mut out[offset..]);
            let mean = x.iter().map(|x| wide(*x)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|x| (wide(*x) - mean).powi(2)).sum::<f64>() / n as f64;
            let factor = 1.0 / (variance + wide(1e-5)).sqrt();
            // The mean is rounded to f32; everything else is relative.
            let slack = 2e-6 + 3e-7 * wide(shift) * factor;
            compare(&mut failures, &format!("layer_norm {what} shift={shift}"), &out[offset..], |i| {
                ((wide(x[i]) - mean) * factor * wide(w[i]) + wide(b[i]), slack)
            });
        });
    }
    for kernels in levels() {
        let mut out = [0.0; 21];
        kernels.layer_norm(&[3.0; 21], &[1.0; 21], &[0.5; 21], 1e-6, &mut out);
        assert_eq!(out, [0.5; 21]);
        let mut x = [1.0; 21];
        x[18] = f32::NAN;
        kernels.layer_norm(&x, &[1.0; 21], &[0.5; 21], 1e-6, &mut out);
        assert!(out.iter().all(|y| y.is_nan()), "{}", kernels.level());
    }
    none(failures);
}

#[test]
fn softmax() {
    let mut failures = Vec::new();
    for scale in [1.0, 20.0, 500.0, 1e38] {
        each(|kernels, what, n, offset, rng| {
            let mut x: Vec<f32> = rng.floats(n + offset).iter().map(|x| x * scale).collect();
            if n > 4 {
                x[offset + n / 2] = f32::NEG_INFINITY;
            }
            let given = x[offset..].to_vec();
            kernels.softmax(&mut x[offset..]);
            let max = given.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // The difference is taken in f32, as the formula says.
            let e = |x: f32| wide(x - max).exp();
            let total: f64 = given.iter().map(|&x| e(x)).sum();
            compare(&mut failures, &format!("softmax {what} scale={scale}"), &x[offset..], |i| {
                let y = e(given[i]) / total;
                (y, 2e-6 * y + 1e-37)
            });
        });
    }
    for kernels in levels() {
        for n in [1, 2, 9, 33] {
            let mut nowhere = vec![f32::NEG_INFINITY; n];
            kernels.softmax(&mut nowhere);
            assert!(nowhere.iter().all(|x| x.is_nan()), "{} only -inf", kernels.level());
            for bad in [f32::NAN, f32::INFINITY] {
                for at in 0..n {
                    let mut x = vec![0.5; n];
                    x[at] = bad;
                    kernels.softmax(&mut x);
                    assert!(x.iter().all(|x| x.is_nan()), "{} {bad} at {at} of {n}: {x:?}", kernels.level());
                }
            }
        }
    }
    none(failures);
}

#[test]
fn silu_mul() {
    let special = [
        0.0,
        -0.0,
        20.0,
        -20.0,
        86.0,
        -86.0,
        -88.0,
        -89.0,
        -103.0,
        -105.0,
        1e30,
        -1e30,
        f32::MAX,
        f32::MIN,
        1e-40,
        f32::INFINITY,
        f32::NAN,
    ];
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let mut gate: Vec<f32> = rng.floats(n + offset).iter().map(|x| x * 30.0).collect();
        for (x, special) in gate.iter_mut().rev().zip(special) {
            *x = special;
        }
        let up: Vec<f32> = rng.floats(n + offset).iter().map(|x| x + 1.5).collect();
        let given = gate.clone();
        kernels.activate_mul(Activation::Silu, &mut gate[offset..], &up[offset..]);
        compare(&mut failures, &format!("silu_mul {what}"), &gate[offset..], |i| {
            let (g, u) = (wide(given[offset + i]), wide(up[offset + i]));
            let y = g / (1.0 + (-g).exp()) * u;
            if y.abs() > f64::from(f32::MAX) { (f64::INFINITY, 0.0) } else { (y, 1e-6 * y.abs() + 1e-36) }
        });
    });
    for kernels in levels() {
        let mut gate = [f32::NEG_INFINITY; 9];
        kernels.activate_mul(Activation::Silu, &mut gate, &[1.0; 9]);
        assert!(gate.iter().all(|g| g.is_nan()), "{}: {gate:?}", kernels.level());
    }
    none(failures);
}

#[test]
fn rope() {
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let angles: Vec<f32> = rng.floats(n + offset).iter().map(|x| x * 7.0).collect();
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let (cos, sin) = (&cos[offset..], &sin[offset..]);
        let mut x = rng.floats(2 * n + offset);
        let given = x[offset..].to_vec();
        kernels.rope(&mut x[offset..], cos, sin);
        compare(&mut failures, &format!("rope {what}"), &x[offset..], |i| {
            let (c, s) = (wide(cos[i / 2]), wide(sin[i / 2]));
            let (even, odd) = (wide(given[i / 2 * 2]), wide(given[i / 2 * 2 + 1]));
            (if i % 2 == 0 { even * c - odd * s } else { even * s + odd * c }, 3e-7)
        });
    });
    none(failures);
}

#[test]
fn rope_of_halves() {
    let mut failures = Vec::new();
    each(|kernels, what, n, offset, rng| {
        let angles: Vec<f32> = rng.floats(n + offset).iter().map(|x| x * 7.0).collect();
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let (cos, sin) = (&cos[offset..], &sin[offset..]);
        let mut x = rng.floats(2 * n + offset);
        let given = x[offset..].to_vec();
        kernels.rope_halves(&mut x[offset..], cos, sin);
        compare(&mut failures, &format!("rope_halves {what}"), &x[offset..], |i| {
            let (c, s) = (wide(cos[i % n]), wide(sin[i % n]));
            let (low, high) = (wide(given[i % n]), wide(given[n + i % n]));
            (if i < n { low * c - high * s } else { low * s + high * c }, 3e-7)
        });
    });
    none(failures);
}

#[test]
fn shapes_are_checked() {
    let data = [0; 18 * 6];
    let rows = Rows::new(BlockFormat::Q4_0, 64, &data).unwrap();
    assert_eq!((rows.rows(), rows.cols(), rows.row_bytes()), (3, 64, 36));
    assert_eq!(rows.slice(1..3).rows(), 2);
    assert_eq!(rows.slice(3..3).rows(), 0);
    let refused = |format, cols| Rows::new(format, cols, &data).unwrap_err().to_string();
    assert_eq!(
        refused(BlockFormat::Q4_0, 0),
        "rows of 0 values cannot be Q4_0: expected a positive multiple of 32"
    );
    assert!(refused(BlockFormat::Q4_0, 33).starts_with("rows of 33 values"));
    assert!(refused(BlockFormat::F32, usize::MAX).starts_with("rows of"));
    assert_eq!(
        refused(BlockFormat::Q4_0, 128),
        "108 bytes are no whole number of Q4_0 rows of 128 values (72 bytes)"
    );
}
