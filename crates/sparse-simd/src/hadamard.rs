//! The Hadamard transform: spreads what stands out.

/// Values that are transformed together, as a power of two: see [`transform`].
const STAGES: u32 = 4;

/// Values that are transformed together.
pub(crate) const ORDER: usize = 1 << STAGES;

/// Transforms `x`, a multiple of [`ORDER`] values, as [`Kernels::hadamard`](crate::Kernels::hadamard) says.
///
/// Additions of whole runs of values, which compilers turn into vectors: the same code serves all levels.
#[inline(always)]
pub(crate) fn transform(x: &mut [f32]) {
    let mut half = x.len() / 2;
    for _ in 0..STAGES {
        for pair in x.chunks_exact_mut((2 * half).max(1)) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half /= 2;
    }
}

/// Transforms each run of `order` values of `x`, as [`Kernels::hadamard_runs`](crate::Kernels::hadamard_runs) says.
///
/// Plain Rust for all levels, too. Three steps are made within vectors, the others two at a time.
#[inline(always)]
pub(crate) fn runs(x: &mut [f32], order: usize) {
    let mut half = 1;
    if order >= 8 {
        for eight in x.as_chunks_mut::<8>().0 {
            *eight = within::<4>(within::<2>(within::<1>(*eight)));
        }
        half = 8;
    }
    while 4 * half <= order {
        for four in x.chunks_exact_mut(4 * half) {
            let (first, second) = four.split_at_mut(2 * half);
            let ((a, b), (c, d)) = (first.split_at_mut(half), second.split_at_mut(half));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (ab, a_b, cd, c_d) = (*a + *b, *a - *b, *c + *d, *c - *d);
                (*a, *b, *c, *d) = (ab + cd, a_b + c_d, ab - cd, a_b - c_d);
            }
        }
        half *= 4;
    }
    if 2 * half <= order {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

/// Sums and differences of values that are `HALF` apart.
#[inline(always)]
fn within<const HALF: usize>(x: [f32; 8]) -> [f32; 8] {
    core::array::from_fn(|i| if i & HALF == 0 { x[i] + x[i ^ HALF] } else { x[i ^ HALF] - x[i] })
}
