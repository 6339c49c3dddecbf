//! Weights times one row of activations.
//!
//! Decoding is bound by memory, so this is about keeping the bus busy. Two or four rows at a time, far apart,
//! are so many streams for the hardware's prefetchers; more prefetching, by instructions, made it slower on
//! Zen 4. Rows that are chosen one by one are taken eight at a time, and the next eight fetched meanwhile.

use super::format::{Bytes, Format, STEP, StepX, Sum};
use super::transpose::totals;
use crate::columns::{All, Choice};
use crate::generic::prefetch::prefetch_far;
use crate::{MatMut, Q8, Rows};
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Columns arranged at a time: what the first cache holds. More are done in several passes over the rows.
const COLS: usize = 12288;

/// Rows shorter than this many bytes, and parts of rows, are done four at a time, to have less overhead per row;
/// longer ones two at a time.
const SHORT: usize = 1536;

/// Rows done at a time where they are chosen one by one.
const CHOSEN: usize = 8;

/// How many times [`CHOSEN`] rows are fetched ahead.
const AHEAD: usize = 2;

/// `out[r]` = row `r` of `w` times `x`, one token.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, and the shapes fit together.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn gemv<F: Format>(w: Rows<'_>, x: Q8<'_>, out: &mut [f32]) {
    // SAFETY: the caller promises the features of this level, weights in the format `F`, and shapes
    // that fit.
    unsafe { chosen::<F, _>(w, All(w.rows()), x, out) }
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, the shapes fit together, and the rows exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn rows<F: Format>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
    // SAFETY: the caller promises the features of this level, weights in the format `F`, shapes
    // that fit, and rows that exist.
    unsafe {
        if active.len() == w.rows() && active.is_sorted() {
            chosen::<F, _>(w, All(w.rows()), x, out)
        } else {
            chosen::<F, _>(w, active, x, out)
        }
    }
}

/// The products of some rows.
///
/// # Safety
/// As for [`rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn chosen<F: Format, C: Choice>(w: Rows<'_>, active: C, x: Q8<'_>, out: &mut [f32]) {
    let mut arranged = [const { MaybeUninit::uninit() }; COLS / STEP];
    // Passes are alike: the last of them is no short one.
    let pass = x.cols.div_ceil(x.cols.div_ceil(COLS).max(1)).next_multiple_of(STEP);
    for from in (0..x.cols).step_by(pass.max(STEP)) {
        let cols = pass.min(x.cols - from);
        let steps = cols.div_ceil(STEP);
        for (step, slot) in arranged[..steps].iter_mut().enumerate() {
            slot.write(arrange::<F>(x, from + step * STEP));
        }
        // SAFETY: just written.
        let x = unsafe { core::slice::from_raw_parts(arranged.as_ptr().cast::<StepX>(), steps) };
        let pass = Pass::new::<F>(w, from, cols, x);
        // SAFETY: the caller promises the features of this level, weights in the format `F`, shapes
        // that fit, and rows that exist.
        unsafe {
            if C::SCATTERED {
                pass.streams::<F, C, CHOSEN>(active, out)
            } else if w.row_bytes() < SHORT || cols < w.cols() {
                pass.streams::<F, C, 4>(active, out)
            } else {
                pass.streams::<F, C, 2>(active, out)
            }
        }
    }
}

/// Steps of activations that [`each`] arranges at a time, of several tokens.
const ROOM: usize = 128;

/// `out[t][r]` = row `r` of `w` times token `t` of `x`, with the bits of [`gemv`]: a step of weights is decoded once for
/// several tokens, and each token adds its products in the order that it has alone.
///
/// # Safety
/// As for [`gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn each<F: Format>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    let steps = x.cols.div_ceil(STEP);
    let mut t = 0;
    while t < x.tokens() {
        let left = x.tokens() - t;
        // SAFETY: the caller promises the features of this level, weights in the format `F`, and
        // shapes that fit, and the steps fit the room.
        t += unsafe {
            // Several passes add products in another order.
            match if x.cols > COLS { 1 } else { left.min(ROOM / steps) } {
                0 | 1 => {
                    gemv::<F>(w, x.row(t), out.row(t));
                    1
                }
                2 | 3 => several::<F, 2>(w, x, t, out),
                4..8 => several::<F, 4>(w, x, t, out),
                _ => several::<F, 8>(w, x, t, out),
            }
        };
    }
}

/// Tokens `t..t + T` of [`each`]; returns `T`.
///
/// # Safety
/// As for [`gemv`]; `T` tokens have at most [`ROOM`] steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn several<F: Format, const T: usize>(
    w: Rows<'_>,
    x: Q8<'_>,
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    let mut arranged = [const { MaybeUninit::uninit() }; ROOM];
    let steps = x.cols.div_ceil(STEP);
    for (i, slot) in arranged[..steps * T].iter_mut().enumerate() {
        slot.write(arrange::<F>(x.row(t + i % T), i / T * STEP));
    }
    // SAFETY: just written.
    let arranged = unsafe { core::slice::from_raw_parts(arranged.as_ptr().cast::<[StepX; T]>(), steps) };
    // SAFETY: the caller promises the features of this level, weights in the format `F`, and shapes
    // that fit.
    unsafe { several_rows::<F, T>(w, arranged, t, out) };
    T
}

/// All rows times tokens `t..t + T`, whose steps are `x`.
///
/// # Safety
/// As for [`several`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn several_rows<F: Format, const T: usize>(
    w: Rows<'_>,
    x: &[[StepX; T]],
    t: usize,
    out: &mut MatMut<'_>,
) {
    let rest = w.row_bytes() % F::BYTES;
    let (steps, tail) = x.split_at(x.len() - usize::from(rest > 0));
    for first in (0..w.rows()).step_by(16 / T) {
        let rows = first..w.rows().min(first + 16 / T);
        let mut products = [_mm512_setzero_ps(); 16];
        for (k, r) in rows.clone().enumerate() {
            let row = w.row(r);
            let mut sums = [Sum::zero(); T];
            for (step, x) in steps.iter().enumerate() {
                let w = Bytes { at: row[step * F::BYTES..].as_ptr(), len: F::BYTES };
                // SAFETY: the step lies inside the row.
                let w = unsafe { F::decode::<true, 2>(w) };
                for (sum, x) in sums.iter_mut().zip(x) {
                    sum.add_decoded::<F, 2>(&w, x);
                }
            }
            if let Some(x) = tail.first() {
                let rest = &row[steps.len() * F::BYTES..];
                let w = Bytes { at: rest.as_ptr(), len: rest.len() };
                // SAFETY: so many bytes of the row are left.
                unsafe {
                    if rest.len() <= F::BYTES / 2 {
                        let w = F::decode::<false, 1>(w);
                        sums.iter_mut().zip(x).for_each(|(sum, x)| sum.add_decoded::<F, 1>(&w, x));
                    } else {
                        let w = F::decode::<false, 2>(w);
                        sums.iter_mut().zip(x).for_each(|(sum, x)| sum.add_decoded::<F, 2>(&w, x));
                    }
                }
            }
            for (sum, product) in sums.into_iter().zip(&mut products[k * T..]) {
                *product = sum.total::<F>();
            }
        }
        let totals = totals(&products);
        for (k, r) in rows.enumerate() {
            for i in 0..T {
                out.row(t + i)[r] = totals[k * T + i];
            }
        }
    }
}

/// Some columns of all rows, and the activations for them.
struct Pass<'a> {
    w: Rows<'a>,
    x: &'a [StepX],
    /// Where in a row the columns begin, in bytes.
    start: usize,
    /// Bytes of the columns that are not a whole step.
    rest: usize,
}

impl<'a> Pass<'a> {
    fn new<F: Format>(w: Rows<'a>, from: usize, cols: usize, x: &'a [StepX]) -> Self {
        let (start, len) = (from / STEP * F::BYTES, cols * F::BYTES / STEP);
        assert!(start + len <= w.row_bytes() && x.len() == len.div_ceil(F::BYTES));
        Self { w, x, start, rest: len % F::BYTES }
    }

    /// Adds to `out` the products of the active rows, `R` at a time; or sets it to them, if the columns are the first. All
    /// rows are `R` streams, far apart; chosen ones are taken as they come.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - The format of the weights is `F`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn streams<F: Format, C: Choice, const R: usize>(&self, active: C, out: &mut [f32]) {
        let mut put = |i: usize, sum: f32| if self.start == 0 { out[i] = sum } else { out[i] += sum };
        let (count, some) = (active.count(), 16 / R);
        let stream = count / R;
        let number = |s: usize, i: usize| if C::SCATTERED { i * R + s } else { s * stream + i };
        if C::SCATTERED {
            // A thread's part may be short: its first rows are fetched together, not one after the other.
            let steps = self.x.len() - usize::from(self.rest > 0);
            for i in 0..count.min(AHEAD * R) {
                prefetch_far(self.row(active.get(i)), steps * F::BYTES + self.rest);
            }
        }
        for first in (0..stream).step_by(some) {
            let range = first..stream.min(first + some);
            let mut sums = [_mm512_setzero_ps(); 16];
            for (k, i) in range.clone().enumerate() {
                let mut rows = [core::ptr::null(); R];
                let mut next = rows;
                for s in 0..R {
                    rows[s] = self.row(active.get(number(s, i)));
                    if C::SCATTERED {
                        next[s] = self.row(active.get(number(s, i + AHEAD).min(count - 1)));
                    }
                }
                // SAFETY: the caller promises the features of this level, and weights in the format
                // `F`.
                let dots = unsafe { self.dots::<F, C, R>(rows, next) };
                for (s, dot) in dots.into_iter().enumerate() {
                    sums[s * some + k] = dot;
                }
            }
            let totals = totals(&sums);
            for (k, i) in range.enumerate() {
                for s in 0..R {
                    put(number(s, i), totals[s * some + k]);
                }
            }
        }
        for i in R * stream..count {
            let row = self.row(active.get(i));
            // SAFETY: the caller promises the features of this level, and weights in the format `F`.
            let [sum] = unsafe { self.dots::<F, C, 1>([row], [row]) };
            // In the order of the other rows: how a matrix is split must not change a bit.
            let mut sums = [_mm512_setzero_ps(); 16];
            sums[0] = sum;
            put(i, totals(&sums)[0]);
        }
    }

    /// Where the columns of row `r` begin.
    #[inline]
    fn row(&self, r: usize) -> *const u8 {
        self.w.data().as_ptr().wrapping_add(r * self.w.row_bytes() + self.start)
    }

    /// The products, spread over the lanes, of the rows whose columns begin at `rows`. Those at `next` are fetched
    /// meanwhile, if rows are scattered.
    ///
    /// # Safety
    /// - As for [`streams`](Self::streams), and the rows exist.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn dots<F: Format, C: Choice, const R: usize>(
        &self,
        rows: [*const u8; R],
        next: [*const u8; R],
    ) -> [__m512; R] {
        let (mut sums, mut totals) = ([Sum::zero(); R], [_mm512_setzero_ps(); R]);
        let (steps, tail) = self.x.split_at(self.x.len() - usize::from(self.rest > 0));
        let half = self.rest <= F::BYTES / 2;
        for (step, x) in steps.iter().enumerate() {
            for (s, sum) in sums.iter_mut().enumerate() {
                if C::SCATTERED {
                    prefetch_far(next[s].wrapping_add(step * F::BYTES), F::BYTES);
                }
                let w = Bytes { at: rows[s].wrapping_add(step * F::BYTES), len: F::BYTES };
                // SAFETY: the step lies inside the row.
                unsafe { sum.add::<F, true, 2>(w, x) };
            }
        }
        if let Some(x) = tail.first() {
            for (s, sum) in sums.iter_mut().enumerate() {
                let offset = steps.len() * F::BYTES;
                if C::SCATTERED {
                    prefetch_far(next[s].wrapping_add(offset), self.rest);
                }
                let w = Bytes { at: rows[s].wrapping_add(offset), len: self.rest };
                // SAFETY: `rest` bytes of the row are left.
                unsafe {
                    if half {
                        sum.add::<F, false, 1>(w, x);
                    } else {
                        sum.add::<F, false, 2>(w, x);
                    }
                }
            }
        }
        for (sum, total) in sums.into_iter().zip(&mut totals) {
            *total = sum.total::<F>();
        }
        totals
    }
}

/// Arranges the step at column `from`; columns past the end of the row are zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn arrange<F: Format>(x: Q8<'_>, from: usize) -> StepX {
    let (q, d, sums) = (&x.q[from..], &x.d[from / 32..], &x.sums[from / 16..]);
    if let (Some(q), Some(d), Some(sums)) =
        (q.as_chunks().0.first_chunk(), d.first_chunk(), sums.first_chunk())
    {
        return StepX::new::<F>(q, d, sums);
    }
    let (mut some_q, mut some_d, mut some_sums) = ([[0; 16]; STEP / 16], [0.0; STEP / 32], [0; STEP / 16]);
    some_q.as_flattened_mut()[..q.len()].copy_from_slice(q);
    some_d[..d.len()].copy_from_slice(d);
    some_sums[..sums.len()].copy_from_slice(sums);
    StepX::new::<F>(&some_q, &some_d, &some_sums)
}
