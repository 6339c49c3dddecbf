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
