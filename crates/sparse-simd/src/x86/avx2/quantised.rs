//! Products of quantised weights with int8 activations.
//!
//! All formats go through one driver, in steps of 256 columns: eight blocks of 32 or one of 256. In a step each
//! group of 32 columns is one register of codes; `vpmaddubsw` and `vpmaddwd` reduce it to eight integers (exact:
//! see [`Step::codes`]), which are scaled as floats. Minima go through the sums of the activations, one
//! multiplication per step.

use super::load;
use crate::{MatMut, Q8, Rows};
use bytemuck::Pod;
use core::arch::x86_64::*;

/// Tokens per tile of a batch: a group's codes are unpacked once for all of them.
const TOKENS: usize = 4;

/// How far ahead weights are prefetched, in bytes: far enough to cover the latency of DRAM at full bandwidth.
const AHEAD: usize = 4096;

/// 256 columns of one row of weights.
pub(super) trait Step: Pod {
    /// Whether codes are signed.
    const SIGNED: bool = false;
    /// Whether there are scales per 16 columns below the floats.
    const SUB_SCALES: bool = false;
    /// What is subtracted from each unsigned code.
    const CENTRE: i8 = 0;
    /// Whether there are minima.
    const MINS: bool = false;

    /// The 32 codes of group `g` as bytes, signed or not as [`SIGNED`](Self::SIGNED) says.
    ///
    /// Unsigned ones must be below 64. Then nothing saturates: `vpmaddubsw` adds two products in 16 bits, and with
    /// activations of at most 127 and codes of at most 128 their sum is at most 32512.
    ///
    /// # Safety
    /// - The CPU has AVX2, FMA and F16C.
    unsafe fn codes(&self, g: usize) -> __m256i;

    /// The factors of the step.
    ///
    /// # Safety
    /// - The CPU has AVX2, FMA and F16C.
    unsafe fn factors(&self) -> Factors;
}

/// Value `i` of a step is `d[i / 32] * sub[i / 16] * (code[i] - CENTRE) + m[i / 32] * mins[i / 16]`.
pub(super) struct Factors {
    /// Scales of the eight groups.
    pub(super) d: __m256,
    /// Sixteen sub-scales of 16 bits; not used unless [`Step::SUB_SCALES`].
    pub(super) sub: __m256i,
    /// Factors of the minima; not used unless [`Step::MINS`].
    pub(super) m: __m256,
    /// Sixteen minima of 16 bits; not used unless [`Step::MINS`].
    pub(super) mins: __m256i,
}

/// 256 columns of one token's activations, or the last groups of them.
struct X<'a> {
    /// Codes of the groups that are there.
    codes: &'a [[i8; 32]],
    /// Scales, zero for groups that are not.
    d: __m256,
    sums: __m256i,
}

/// # Safety
/// As for [`MatmulQ8`](crate::kernels::MatmulQ8).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<S: Step>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    // Two streams from far apart keep more of the memory's banks busy than neighbouring rows do.
    let half = w.rows() / 2;
    for r in 0..half {
        columns::<S, 2>(w, [r, half + r], x, out);
    }
    if 2 * half < w.rows() {
        columns::<S, 1>(w, [2 * half], x, out);
    }
}

/// Rows `r` times all tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns<S: Step, const R: usize>(w: Rows<'_>, r: [usize; R], x: Q8<'_>, out: &mut MatMut<'_>) {
    let rows = r.map(|r| w.row(r));
    let tiles = x.tokens() / TOKENS * TOKENS;
    for t in (0..tiles).step_by(TOKENS) {
        let tile: [Q8<'_>; TOKENS] = core::array::from_fn(|i| x.row(t + i));
        for (r, sums) in r.into_iter().zip(dot::<S, R, TOKENS>(rows, tile)) {
            for (i, sum) in sums.into_iter().enumerate() {
                out.row(t + i)[r] = sum;
            }
        }
    }
    for t in tiles..x.tokens() {
        for (r, [sum]) in r.into_iter().zip(dot::<S, R, 1>(rows, [x.row(t)])) {
            out.row(t)[r] = sum;
        }
    }
}

/// `R` rows times `T` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<S: Step, const R: usize, const T: usize>(rows: [&[u8]; R], x: [Q8<'_>; T]) -> [[f32; T]; R] {
    let full = rows[0].len() / size_of::<S>();
    let steps = rows.map(|row| bytemuck::cast_slice::<u8, S>(&row[..full * size_of::<S>()]));
    let mut sums = [[_mm256_setzero_ps(); T]; R];
    for s in 0..full {
        if T == 1 {
            for steps in steps {
                prefetch(&steps[s]);
            }
        }
        let x = x.each_ref().map(|x| X {
            codes: &x.q.as_chunks().0[s * 8..][..8],
            d: load::floats(&x.d.as_chunks().0[s]),
            sums: load::words16(&x.sums.as_chunks().0[s]),
        });
        step(steps.map(|steps| &steps[s]), &x, 0, &mut sums);
    }
    let groups = x[0].d.len() % 8;
    if groups > 0 {
        // The last 256 columns of the row, but only the groups that are not in a step yet. Shorter rows are padded
        // at the front.
        let mut padded = [S::zeroed(); R];
        let x = x.each_ref().map(|x| last_groups(x, groups));
        if full > 0 {
            let tail = rows.map(|row| bytemuck::from_bytes::<S>(&row[row.len() - size_of::<S>()..]));
            step(tail, &x, 8 - groups, &mut sums);
        } else {
            for (padded, row) in padded.iter_mut().zip(rows) {
                bytemuck::bytes_of_mut(padded)[size_of::<S>() - row.len()..].copy_from_slice(row);
            }
            step(padded.each_ref(), &x, 8 - groups, &mut sums);
        }
    }
    sums.map(|sums| sums.map(|sum| load::sum(sum)))
}

/// The last activations of a token: `groups` groups, fewer than eight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn last_groups<'a>(x: &Q8<'a>, groups: usize) -> X<'a> {
    let codes = x.q.as_chunks().0;
    let codes = &codes[codes.len() - groups..];
    if let (Some(d), Some(sums)) = (x.d.last_chunk(), x.sums.last_chunk()) {
        let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let present = _mm256_cmpgt_epi32(index, _mm256_set1_epi32(7 - groups as i32));
        let d = _mm256_and_ps(load::floats(d), _mm256_castsi256_ps(present));
        return X { codes, d, sums: load::words16(sums) };
    }
    let (mut d, mut sums) = ([0.0; 8], [0; 16]);
    d[8 - groups..].copy_from_slice(x.d);
    sums[16 - 2 * groups..].copy_from_slice(x.sums);
    X { codes, d: load::floats(&d), sums: load::words16(&sums) }
}

/// Adds the products of the groups of a step from `first` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn step<S: Step, const R: usize, const T: usize>(
    w: [&S; R],
    x: &[X<'_>; T],
    first: usize,
    sums: &mut [[__m256; T]; R],
) {
    let mut scales = [[[0.0; 8]; T]; R];
    let mut subs = [[_mm256_set1_epi16(1); 2]; R];
    for r in 0..R {
        // SAFETY: this function asks for the same features.
        let f = unsafe { w[r].factors() };
        for t in 0..T {
            load::store(_mm256_mul_ps(f.d, x[t].d), &mut scales[r][t]);
            if S::MINS {
                let mins = _mm256_cvtepi32_ps(_mm256_madd_epi16(f.mins, x[t].sums));
                sums[r][t] = _mm256_fmadd_ps(_mm256_mul_ps(f.m, x[t].d), mins, sums[r][t]);
            }
        }
        if S::SUB_SCALES {
            subs[r] = [
                _mm256_permute2x128_si256::<0x00>(f.sub, f.sub),
                _mm256_permute2x128_si256::<0x11>(f.sub, f.sub),
            ];
        }
    }
    for g in first..8 {
        for r in 0..R {
            // SAFETY: as above.
            let codes = unsafe { w[r].codes(g) };
            let sub = if S::SUB_SCALES {
                _mm256_shuffle_epi8(subs[r][g / 4], load::bytes32(&SUB_SCALES[g % 4]))
            } else {
                subs[r][0]
            };
            for t in 0..T {
                let x = load::bytes32(&x[t].codes[g - first]);
                let pairs = if S::SIGNED {
                    _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
                } else if S::CENTRE > 0 {
                    let centre = _mm256_maddubs_epi16(_mm256_set1_epi8(S::CENTRE), x);
                    _mm256_sub_epi16(_mm256_maddubs_epi16(codes, x), centre)
                } else {
                    _mm256_maddubs_epi16(codes, x)
                };
                let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, sub));
                sums[r][t] = _mm256_fmadd_ps(products, _mm256_set1_ps(scales[r][t][g]), sums[r][t]);
            }
        }
    }
}

/// For each of four groups of 32 columns, where its two sub-scales are among eight of 16 bits: the first for all
/// of the lower half, the second for all of the upper half.
const SUB_SCALES: [[u8; 32]; 4] = {
    let mut indices = [[0; 32]; 4];
    let mut i = 0;
    while i < 4 * 32 {
        indices[i / 32][i % 32] = (i / 32 * 4 + i % 32 / 16 * 2 + i % 2) as u8;
        i += 1;
    }
    indices
};

/// Fetches what is read [`AHEAD`] bytes later, as much as a step.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch<S>(step: &S) {
    for offset in (0..size_of::<S>()).step_by(64) {
        let at = core::ptr::from_ref(step).cast::<i8>().wrapping_add(AHEAD + offset);
        // SAFETY: a prefetch is a hint; it may point anywhere.
        #[allow(unused_unsafe, reason = "not every supported compiler knows that it is safe")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at)
        };
    }
}
