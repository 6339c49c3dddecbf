//! The Hadamard transform.

use super::data::Rng;
use super::levels;

/// The definition: rows of an ORDER x ORDER matrix of signs.
fn plain(x: &[f32]) -> Vec<f32> {
    let part = x.len() / 16;
    let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let sum = |i: usize, c: usize| (0..16).map(|j| sign(i, j) * x[j * part + c]).sum();
    (0..x.len()).map(|at| sum(at / part, at % part)).collect()
}

#[test]
fn small_integers_are_transformed_exactly_and_twice_is_sixteen_times() {
    for kernels in levels() {
        for len in (0..40).map(|n| 16 * n) {
            let x: Vec<f32> = (0..len).map(|i| ((i * 7919) % 251) as f32 - 125.0).collect();
            // At any alignment.
            for offset in 0..4 {
                let mut buffer = vec![0.5; offset + len + 3];
                buffer[offset..offset + len].copy_from_slice(&x);
                kernels.hadamard(&mut buffer[offset..offset + len]);
                assert_eq!(buffer[offset..offset + len], plain(&x), "{}, {len} values", kernels.level());
                kernels.hadamard(&mut buffer[offset..offset + len]);
                let sixteen: Vec<f32> = x.iter().map(|x| 16.0 * x).collect();
                assert_eq!(buffer[offset..offset + len], sixteen, "{}, {len} values twice", kernels.level());
                assert!(buffer[..offset].iter().chain(&buffer[offset + len..]).all(|x| *x == 0.5));
            }
        }
    }
}

#[test]
fn runs_are_products_with_the_matrix_of_their_order() {
    for kernels in levels() {
        for order in (0..=10).map(|n| 1 << n) {
            let len = 3 * order;
            let x: Vec<f32> = (0..len).map(|i| ((i * 7919) % 251) as f32 - 125.0).collect();
            let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            let product = |at: usize| {
                let run = &x[at / order * order..][..order];
                run.iter().enumerate().map(|(j, x)| sign(at % order, j) * x).sum::<f32>()
            };
            let expected: Vec<f32> = (0..len).map(product).collect();
            for offset in 0..4 {
                let mut buffer = vec![0.5; offset + len + 3];
                buffer[offset..offset + len].copy_from_slice(&x);
                kernels.hadamard_runs(&mut buffer[offset..offset + len], order);
                assert_eq!(buffer[offset..offset + len], expected, "{}, order {order}", kernels.level());
                assert!(buffer[..offset].iter().chain(&buffer[offset + len..]).all(|x| *x == 0.5));
            }
        }
    }
}

#[test]
fn levels_agree_bit_for_bit() {
    let mut rng = Rng(3);
    for len in [16, 48, 384, 400] {
        for bad in [None, Some(f32::NAN), Some(f32::INFINITY), Some(f32::MAX)] {
            let mut x = rng.floats(len);
            x[len / 3] = bad.unwrap_or(x[len / 3]);
            let mut all = levels().map(|kernels| {
                let mut x = x.clone();
                kernels.hadamard(&mut x);
                let bits = |x: f32| if x.is_nan() { None } else { Some(x.to_bits()) };
                (kernels.level(), x.into_iter().map(bits).collect::<Vec<_>>())
            });
            let (_, scalar) = all.next().unwrap();
            all.for_each(|(level, found)| assert!(found == scalar, "{level}, {len} values, {bad:?}"));
        }
    }
}

#[test]
#[should_panic = "hadamard: 17 values"]
fn other_lengths_are_refused() {
    levels().next().unwrap().hadamard(&mut [0.0; 17]);
}
