//! Products of quantized weights with int8 activations.
//!
//! All formats go through one driver, in steps of 256 columns: eight blocks of 32 or one of 256. In a step each
//! group of 32 columns is one register of codes; `vpmaddubsw` and `vpmaddwd` reduce it to eight integers (exact:
//! see [`Step::codes`]), which are scaled as floats. Minima go through the sums of the activations, one
//! multiplication per step.

use super::dot::{Dot, Pairs};
use super::load;
use crate::generic::prefetch::{AHEAD, prefetch_bytes, prefetch_far};
use crate::{MatMut, Q8, Rows};
use bytemuck::Pod;
use core::arch::x86_64::*;

/// Tokens per tile of a batch: a group's codes are unpacked once for all of them.
pub(super) const TOKENS: usize = 4;

/// 256 columns of one row of weights.
pub(in crate::x86) trait Step: Pod {
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
    /// Nothing saturates: `vpmaddubsw` adds two products in 16 bits, and with activations of at most 127 and codes of at
    /// most 128 their sum is at most 32512.
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
pub(in crate::x86) struct Factors {
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
#[derive(Clone, Copy)]
pub(super) struct X<'a> {
    /// Codes of the groups that are there.
    codes: &'a [[i8; 32]],
    /// Scales, zero for groups that are not.
    d: __m256,
    sums: __m256i,
}

/// `out[t][r]` = row `r` of `w` times token `t` of `x`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<S: Step>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    // SAFETY: this function is compiled for the same features, so the CPU that runs it has them.
    unsafe { all_rows::<S, Pairs>(w, x, out) }
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rows<S: Step>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
    // SAFETY: this function is compiled for the same features, so the CPU that runs it has them.
    unsafe { some_rows::<S, Pairs>(w, active, x, out) }
}

// Everything below is always inlined: such functions cannot ask for CPU features, and have those of the functions that
// they become a part of.

/// [`matmul`] with another way to multiply bytes.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C, and what `D` needs.
#[inline(always)]
pub(in crate::x86) unsafe fn all_rows<S: Step, D: Dot>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    if w.cols() < 256 {
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        return unsafe { narrow::<S, D>(w, x, out) };
    }
    // Two streams from far apart keep more of the memory's banks busy than neighboring rows do. The last of an odd
    // number of rows is computed twice: code for one row would take half as long to compile as that for two.
    let half = w.rows().div_ceil(2);
    for r in 0..half {
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        unsafe { columns::<S, D>(w, [r, (half + r).min(w.rows() - 1)], x, out) };
    }
}

/// [`rows`] with another way to multiply bytes.
///
/// # Safety
/// - The CPU has AVX2, FMA and F16C, and what `D` needs.
#[inline(always)]
pub(in crate::x86) unsafe fn some_rows<S: Step, D: Dot>(
    w: Rows<'_>,
    active: &[u32],
    x: Q8<'_>,
    out: &mut [f32],
) {
    let row = |i: usize| active[i.min(active.len() - 1)] as usize;
    if w.cols() < 256 {
        for (i, out) in out.iter_mut().enumerate() {
            let w = w.slice(row(i)..row(i) + 1);
            // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
            unsafe { narrow::<S, D>(w, x, &mut MatMut::new(core::slice::from_mut(out), 1)) };
        }
        return;
    }
    let ahead = 2 * AHEAD.div_ceil(w.row_bytes());
    let next = |i: usize| w.row(row(i + ahead)).as_ptr();
    for (i, out) in out.chunks_mut(2).enumerate() {
        let i = 2 * i;
        let (r, next) = ([row(i), row(i + 1)], [next(i), next(i + 1)]);
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        let products = unsafe { dot::<S, D, true, 2, 1>(w, r, next, x, 0) };
        out.copy_from_slice(&products.as_flattened()[..out.len()]);
    }
}

/// Rows `r` times all tokens.
///
/// # Safety
/// As for [`all_rows`].
#[inline(always)]
unsafe fn columns<S: Step, D: Dot>(w: Rows<'_>, r: [usize; 2], x: Q8<'_>, out: &mut MatMut<'_>) {
    // What is read next of adjacent rows is what follows in memory.
    let mut next = [core::ptr::null(); 2];
    for (next, r) in next.iter_mut().zip(r) {
        *next = w.row(r).as_ptr().wrapping_add(AHEAD);
    }
    let mut t = 0;
    while t < x.tokens() {
        // The rest in one tile: fewer tokens must not take longer.
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        t += unsafe {
            match x.tokens() - t {
                1 => tile::<S, D, 2, 1>(w, r, next, x, t, out),
                2 => tile::<S, D, 2, 2>(w, r, next, x, t, out),
                _ => tile::<S, D, 2, TOKENS>(w, r, next, x, t, out),
            }
        };
    }
}

/// Rows `r` times tokens `t..t + T`, or as many of them as there are; returns how many.
///
/// # Safety
/// As for [`all_rows`].
#[inline(always)]
unsafe fn tile<S: Step, D: Dot, const R: usize, const T: usize>(
    w: Rows<'_>,
    r: [usize; R],
    next: [*const u8; R],
    x: Q8<'_>,
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
    let sums = unsafe { dot::<S, D, false, R, T>(w, r, next, x, t) };
    let tokens = T.min(x.tokens() - t);
    for i in 0..tokens {
        let out = out.row(t + i);
        for (r, sums) in r.iter().zip(&sums) {
            out[*r] = sums[i];
        }
    }
    tokens
}

/// Rows `r`, at least 256 columns wide, times `T` tokens from `t` on, the last one for those that are not there. If `T` is one, as much is fetched from `next`
/// on as the rows have; `SCATTERED` says whether rows are chosen one by one.
///
/// Arrays are filled by loops here: closures do not get inlined into `map` and `from_fn` if they need CPU features.
///
/// # Safety
/// As for [`all_rows`].
#[inline(always)]
unsafe fn dot<S: Step, D: Dot, const SCATTERED: bool, const R: usize, const T: usize>(
    w: Rows<'_>,
    r: [usize; R],
    next: [*const u8; R],
    x: Q8<'_>,
    t: usize,
) -> [[f32; T]; R] {
    let full = w.row_bytes() / size_of::<S>();
    let mut steps: [&[S]; R] = [&[]; R];
    for (steps, r) in steps.iter_mut().zip(r) {
        *steps = bytemuck::cast_slice(&w.row(r)[..full * size_of::<S>()]);
    }
    let mut tokens = [x.row(t); T];
    for (i, token) in tokens.iter_mut().enumerate().skip(1) {
        *token = x.row((t + i).min(x.tokens() - 1));
    }
    // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
    let (zero, none) = unsafe { (_mm256_setzero_ps(), _mm256_setzero_si256()) };
    let mut sums = [[zero; T]; R];
    let mut parts = [X { codes: &[], d: zero, sums: none }; T];
    for s in 0..full {
        for (part, token) in parts.iter_mut().zip(&tokens) {
            part.codes = &token.q.as_chunks().0[s * 8..][..8];
            // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
            unsafe {
                part.d = load::floats(&token.d.as_chunks().0[s]);
                part.sums = load::words16(&token.sums.as_chunks().0[s]);
            }
        }
        if T == 1 {
            for next in next {
                let at = next.wrapping_add(s * size_of::<S>());
                if SCATTERED {
                    prefetch_far(at, size_of::<S>());
                } else {
                    prefetch_bytes(at, size_of::<S>());
                }
            }
        }
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        unsafe { step::<S, D, R, T>(&steps, s, &parts, 0, &mut sums) };
    }
    let groups = x.cols / 32 % 8;
    if groups > 0 {
        // The last 256 columns of the row, but only the groups that were in no step yet.
        for (steps, r) in steps.iter_mut().zip(r) {
            *steps = bytemuck::cast_slice(&w.row(r)[w.row_bytes() - size_of::<S>()..]);
        }
        for (part, token) in parts.iter_mut().zip(&tokens) {
            // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
            *part = unsafe { last_groups(token, groups) };
        }
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        unsafe { step::<S, D, R, T>(&steps, 0, &parts, 8 - groups, &mut sums) };
    }
    let mut out = [[0.0; T]; R];
    for (out, sums) in out.iter_mut().flatten().zip(sums.iter().flatten()) {
        // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
        *out = unsafe { load::sum(*sums) };
    }
    out
}

/// Rows of fewer than 256 columns, padded at the front.
///
/// # Safety
/// As for [`all_rows`].
#[inline(always)]
unsafe fn narrow<S: Step, D: Dot>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    let mut padded = S::zeroed();
    for r in 0..w.rows() {
        bytemuck::bytes_of_mut(&mut padded)[size_of::<S>() - w.row_bytes()..].copy_from_slice(w.row(r));
        for t in 0..x.tokens() {
            let groups = x.cols / 32;
            // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
            unsafe {
                let mut sums = [[_mm256_setzero_ps()]];
                let part = last_groups(&x.row(t), groups);
                let w = core::slice::from_ref(&padded);
                step::<S, D, 1, 1>(&[w], 0, &[part], 8 - groups, &mut sums);
                out.row(t)[r] = load::sum(sums[0][0]);
            }
        }
    }
}

/// The activations of strip `i` of a token, which has `groups` groups and is the last if those are fewer than eight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn part<'a>(x: &Q8<'a>, i: usize, groups: usize) -> X<'a> {
    if groups < 8 {
        return last_groups(x, groups);
    }
    X {
        codes: &x.q.as_chunks().0[8 * i..][..8],
        d: load::floats(&x.d.as_chunks().0[i]),
        sums: load::words16(&x.sums.as_chunks().0[i]),
    }
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

/// Adds the products of step `s`, of its groups from `first` on.
///
/// # Safety
/// As for [`all_rows`].
#[inline(always)]
pub(super) unsafe fn step<S: Step, D: Dot, const R: usize, const T: usize>(
    w: &[&[S]; R],
    s: usize,
    x: &[X<'_>; T],
    first: usize,
    sums: &mut [[__m256; T]; R],
) {
    // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs, which is all that these
    // ask for.
    unsafe {
        let mut scales = [[[0.0; 8]; T]; R];
        let mut subs = [[_mm256_set1_epi16(1); 2]; R];
        for r in 0..R {
            let f = w[r][s].factors();
            for t in 0..T {
                load::store(_mm256_mul_ps(f.d, x[t].d), &mut scales[r][t]);
                if S::MINS {
                    let mins = _mm256_cvtepi32_ps(_mm256_madd_epi16(f.mins, x[t].sums));
                    sums[r][t] = _mm256_fmadd_ps(_mm256_mul_ps(f.m, x[t].d), mins, sums[r][t]);
                }
            }
            if S::SUB_SCALES {
                subs[r][0] = _mm256_permute2x128_si256::<0x00>(f.sub, f.sub);
                subs[r][1] = _mm256_permute2x128_si256::<0x11>(f.sub, f.sub);
            }
        }
        for g in first..8 {
            for r in 0..R {
                let codes = w[r][s].codes(g);
                let sub = if S::SUB_SCALES {
                    _mm256_shuffle_epi8(subs[r][g / 4], load::bytes32(&SUB_SCALES[g % 4]))
                } else {
                    subs[r][0]
                };
                for t in 0..T {
                    let x = load::bytes32(&x[t].codes[g - first]);
                    let products = _mm256_cvtepi32_ps(products::<S, D>(codes, x, sub));
                    sums[r][t] = _mm256_fmadd_ps(products, _mm256_set1_ps(scales[r][t][g]), sums[r][t]);
                }
            }
        }
    }
}

/// Products of a group with its sub-scales, as eight sums.
///
/// # Safety
/// As for [`all_rows`].
#[inline(always)]
unsafe fn products<S: Step, D: Dot>(codes: __m256i, x: __m256i, sub: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2, FMA and F16C, and what `D` needs.
    unsafe {
        if D::FUSED && !S::SUB_SCALES {
            let zero = _mm256_setzero_si256();
            if S::SIGNED {
                return D::add(zero, _mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
            }
            let products = D::add(zero, codes, x);
            if S::CENTRE == 0 {
                return products;
            }
            return _mm256_sub_epi32(products, D::add(zero, _mm256_set1_epi8(S::CENTRE), x));
        }
        let pairs = if S::SIGNED {
            _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
        } else if S::CENTRE > 0 {
            let center = _mm256_maddubs_epi16(_mm256_set1_epi8(S::CENTRE), x);
            _mm256_sub_epi16(_mm256_maddubs_epi16(codes, x), center)
        } else {
            _mm256_maddubs_epi16(codes, x)
        };
        _mm256_madd_epi16(pairs, sub)
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
