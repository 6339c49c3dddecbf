//! Weights times one row of activations.
//!
//! Decoding is bound by memory, so this is about keeping the bus busy: two row streams far apart, each prefetched a
//! few kilobytes ahead.

use super::format::{Bytes, Format, StepX};
use crate::{Q8, Rows};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Columns arranged at a time. More are done in several passes over the rows.
const COLS: usize = 16384;

/// Bytes that a stream is prefetched ahead.
const AHEAD: usize = 4096;

/// `out[0][r]` = row `r` of `w` times `x`, one token.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, and the shapes fit together.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn gemv<F: Format>(w: Rows<'_>, x: Q8<'_>, out: &mut [f32]) {
    // Steps have at least 128 values.
    let mut arranged = [const { MaybeUninit::<F::X>::uninit() }; COLS / 128];
    for from in (0..x.cols).step_by(COLS) {
        let cols = COLS.min(x.cols - from);
        let steps = cols.div_ceil(F::VALUES);
        for (step, slot) in arranged[..steps].iter_mut().enumerate() {
            let at = from + step * F::VALUES;
            let part = StepX { q: &x.q[at..], d: &x.d[at / 32..], sums: &x.sums[at / 16..] };
            if x.cols - at >= F::VALUES {
                F::arrange(&part, slot);
            } else {
                let (mut q, mut d, mut sums) = ([0; 256], [0.0; 8], [0; 16]);
                q[..part.q.len()].copy_from_slice(part.q);
                d[..part.d.len()].copy_from_slice(part.d);
                sums[..part.sums.len()].copy_from_slice(part.sums);
                F::arrange(&StepX { q: &q, d: &d, sums: &sums }, slot);
            }
        }
        // SAFETY: just written.
        let arranged = unsafe { arranged[..steps].assume_init_ref() };

        let (skip, len) = (from / F::VALUES * F::BYTES, cols * F::BYTES / F::VALUES);
        let (count, half) = (out.len(), out.len() / 2);
        let row = |r: usize| w.row(r)[skip..][..len].as_ptr();
        let mut put = |r: usize, sum: f32| if from == 0 { out[r] = sum } else { out[r] += sum };
        for r in 0..half {
            // SAFETY: both rows have `len` bytes.
            let [a, b] = unsafe { rows::<F, 2>([row(r), row(half + r)], len, arranged) };
            put(r, a);
            put(half + r, b);
        }
        for r in 2 * half..count {
            // SAFETY: the row has `len` bytes.
            let [a] = unsafe { rows::<F, 1>([row(r)], len, arranged) };
            put(r, a);
        }
    }
}

/// The products of `R` rows.
///
/// # Safety
/// - The CPU has the features of this level.
/// - `len` bytes can be read at each of `rows`, and `x` has a step for all of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn rows<F: Format, const R: usize>(rows: [*const u8; R], len: usize, x: &[F::X]) -> [f32; R] {
    let mut sums = [_mm512_setzero_ps(); R];
    let (full, rest) = (len / F::BYTES, len % F::BYTES);
    for (step, x) in x[..full].iter().enumerate() {
        for r in 0..R {
            let at = rows[r].wrapping_add(step * F::BYTES);
            for line in (0..F::BYTES).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + line).cast());
            }
            // SAFETY: the step lies inside the row.
            sums[r] = unsafe { F::dot::<true>(Bytes { at, len: F::BYTES }, x, sums[r]) };
        }
    }
    if rest > 0 {
        for r in 0..R {
            let at = rows[r].wrapping_add(full * F::BYTES);
            // SAFETY: `rest` bytes of the row are left.
            sums[r] = unsafe { F::dot::<false>(Bytes { at, len: rest }, &x[full], sums[r]) };
        }
    }
    sums.map(|s| _mm512_reduce_add_ps(s))
}
