//! Products of quantized weights with int8 activations.
//!
//! All formats go through one driver, four groups of 32 columns at a time. `pmaddubsw` and `pmaddwd` reduce a group
//! to four integers, and horizontal additions the four groups to one integer each (exact: see [`Step::codes`]), which
//! are scaled as floats. Centers and minima go through the sums of the activations, one multiplication for the four
//! groups.

use super::load;
use crate::x86::shared::prefetch;
use crate::{MatMut, Q8, Rows};
use bytemuck::Pod;
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// Which columns have a scale of their own below the floats.
#[derive(PartialEq, Eq)]
pub(super) enum SubScales {
    None,
    /// 32 columns.
    Group,
    /// 16 columns.
    Half,
}

/// 128 or 256 columns of one row of weights.
pub(super) trait Step: Pod {
    /// How many times 128 columns, 1 or 2.
    const QUADS: usize;
    /// Whether codes are signed.
    const SIGNED: bool = false;
    /// What has a scale below the floats.
    const SUB_SCALES: SubScales = SubScales::None;
    /// What is subtracted from each unsigned code.
    const CENTRE: i16 = 0;
    /// Whether there are minima.
    const MINS: bool = false;

    /// The 32 codes of group `g` as bytes, signed or not as [`SIGNED`](Self::SIGNED) says.
    ///
    /// Unsigned ones must be below 64, or below 32 unless halves have sub-scales of their own. Then nothing
    /// saturates: `pmaddubsw` adds two products in 16 bits, and with activations of at most 127 and codes of at most
    /// 128 their sum is at most 32512. The driver adds two such sums only where codes are below 32.
    ///
    /// # Safety
    /// - The CPU has SSE4.1.
    unsafe fn codes(&self, g: usize) -> [__m128i; 2];

    /// The factors of groups `4 * quad..4 * quad + 4`.
    ///
    /// # Safety
    /// - The CPU has SSE4.1.
    unsafe fn factors(&self, quad: usize) -> Factors;
}

/// Value `i` of four groups is `d[i / 32] * sub[i / 16] * (code[i] - CENTRE) + m[i / 32] * mins[i / 16]`.
pub(super) struct Factors {
    /// Scales of the groups.
    pub(super) d: __m128,
    /// Eight sub-scales of 16 bits, all one without [`Step::SUB_SCALES`].
    pub(super) sub: __m128i,
    /// Factors of the minima; not used unless [`Step::MINS`].
    pub(super) m: __m128,
    /// Eight minima of 16 bits; not used unless [`Step::MINS`].
    pub(super) mins: __m128i,
}

/// 128 columns of one token's activations.
struct X<'a> {
    codes: &'a [i8; 128],
    d: &'a [f32; 4],
    sums: &'a [i16; 8],
}

/// Tokens per tile of a batch: weights are unpacked once for all of them.
const TOKENS: usize = 4;

/// Weights of at least 128 columns and activations that are to be multiplied.
struct Quantized<'a, S> {
    w: Rows<'a>,
    x: Q8<'a>,
    steps: PhantomData<S>,
}

/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "sse4.1")]
pub(super) fn matmul<S: Step>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    if w.cols() < 128 {
        return narrow::<S>(w, x, out);
    }
    Quantized::<S> { w, x, steps: PhantomData }.write(out);
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
///
/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "sse4.1")]
pub(super) fn rows<S: Step>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
    for (&r, out) in active.iter().zip(out) {
        let r = r as usize;
        matmul::<S>(w.slice(r..r + 1), x, &mut MatMut::new(core::slice::from_mut(out), 1));
    }
}

impl<S: Step> Quantized<'_, S> {
    /// All rows times all tokens.
    #[target_feature(enable = "sse4.1")]
    fn write(&self, out: &mut MatMut<'_>) {
        // Two streams from far apart keep more of the memory's banks busy than neighboring rows do.
        let half = out.cols() / 2;
        for r in 0..half {
            self.write_columns([r, half + r], out);
        }
        if 2 * half < out.cols() {
            self.write_columns([2 * half], out);
        }
    }

    /// Rows `r` times all tokens.
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn write_columns<const R: usize>(&self, r: [usize; R], out: &mut MatMut<'_>) {
        let tiles = out.tokens() / TOKENS * TOKENS;
        for t in (0..tiles).step_by(TOKENS) {
            write_tile(r, t, self.dot::<R, TOKENS>(r, t), out);
        }
        for t in tiles..out.tokens() {
            write_tile(r, t, self.dot::<R, 1>(r, t), out);
        }
    }

    /// Weight rows `r` times `T` tokens from `t` on.
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn dot<const R: usize, const T: usize>(&self, r: [usize; R], t: usize) -> [[f32; T]; R] {
        let (rows, tokens) = (self.rows(r), self.tokens::<T>(t));
        let (size, bytes) = (size_of::<S>(), self.w.row_bytes());
        let full = bytes / size;
        let whole = steps::<S, R>(&rows, 0..full * size);
        let mut sums = [[_mm_setzero_ps(); T]; R];
        for s in 0..full {
            let w = step(&whole, s);
            if T == 1 {
                w.into_iter().for_each(prefetch);
            }
            // SAFETY: this function asks for the same features.
            unsafe {
                add_products(w, 0, columns(&tokens, s * S::QUADS), &mut sums);
                // Not a loop, so that `quad` is a constant.
                if S::QUADS == 2 {
                    add_products(w, 1, columns(&tokens, s * S::QUADS + 1), &mut sums);
                }
            }
        }
        let groups = self.x.cols / 32 % 4;
        if groups > 0 {
            // The last 128 columns, but only the groups that were in no step yet: the others get a scale of zero.
            let mut d = [[0.0; 4]; T];
            for (d, token) in d.iter_mut().zip(&tokens) {
                d[4 - groups..].copy_from_slice(&token.d[token.d.len() - groups..]);
            }
            let w = step(&steps::<S, R>(&rows, bytes - size..bytes), 0);
            // SAFETY: as above.
            unsafe { add_products(w, 0, last_columns(&tokens, &d), &mut sums) };
        }
        let mut out = [[0.0; T]; R];
        for (out, sums) in out.iter_mut().flatten().zip(sums.iter().flatten()) {
            *out = load::sum(*sums);
        }
        out
    }
}

#[inline]
fn write_tile<const R: usize, const T: usize>(
    r: [usize; R],
    t: usize,
    sums: [[f32; T]; R],
    out: &mut MatMut<'_>,
) {
    for i in 0..T {
        let out = out.row(t + i);
        for (r, sums) in r.iter().zip(&sums) {
            out[*r] = sums[i];
        }
    }
}

// These have closures, so they ask for no CPU features: those would keep the closures from being inlined.

impl<'a, S> Quantized<'a, S> {
    #[inline]
    fn rows<const R: usize>(&self, r: [usize; R]) -> [&'a [u8]; R] {
        r.map(|r| self.w.row(r))
    }

    #[inline]
    fn tokens<const T: usize>(&self, t: usize) -> [Q8<'a>; T] {
        core::array::from_fn(|i| self.x.row(t + i))
    }
}

/// The steps in a range of bytes of all rows.
#[inline]
fn steps<'a, S: Step, const R: usize>(rows: &[&'a [u8]; R], bytes: Range<usize>) -> [&'a [S]; R] {
    rows.map(|row| bytemuck::cast_slice(&row[bytes.clone()]))
}

/// Step `s` of all rows.
#[inline]
fn step<'a, S, const R: usize>(steps: &[&'a [S]; R], s: usize) -> [&'a S; R] {
    steps.map(|steps| &steps[s])
}

/// Columns `128 * i..` of all tokens.
#[inline]
fn columns<'a, const T: usize>(tokens: &[Q8<'a>; T], i: usize) -> [X<'a>; T] {
    tokens.map(|x| X {
        codes: &x.q.as_chunks().0[i],
        d: &x.d.as_chunks().0[i],
        sums: &x.sums.as_chunks().0[i],
    })
}

/// The last 128 columns of all tokens, with scales `d`.
#[inline]
fn last_columns<'a, const T: usize>(tokens: &[Q8<'a>; T], d: &'a [[f32; 4]; T]) -> [X<'a>; T] {
    core::array::from_fn(|t| X {
        codes: &tokens[t].q[tokens[t].q.len() - 128..].as_chunks().0[0],
        d: &d[t],
        sums: &tokens[t].sums[tokens[t].sums.len() - 8..].as_chunks().0[0],
    })
}

/// Rows of fewer than 128 columns, padded with zeros.
#[target_feature(enable = "sse4.1")]
fn narrow<S: Step>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    fn padded<V: Pod, const N: usize>(x: &[V]) -> [V; N] {
        let mut all = [V::zeroed(); N];
        all[..x.len()].copy_from_slice(x);
        all
    }
    let mut w_padded = S::zeroed();
    for r in 0..w.rows() {
        bytemuck::bytes_of_mut(&mut w_padded)[..w.row_bytes()].copy_from_slice(w.row(r));
        for t in 0..x.tokens() {
            let x = x.row(t);
            let x = X { codes: &padded(x.q), d: &padded(x.d), sums: &padded(x.sums) };
            let mut sums = [[_mm_setzero_ps()]];
            // SAFETY: this function asks for the same features.
            unsafe { add_products([&w_padded], 0, [x], &mut sums) };
            out.row(t)[r] = load::sum(sums[0][0]);
        }
    }
}

/// Adds the products of four groups of `R` rows, one or two.
///
/// Always inlined, so that the sums stay in registers; such a function cannot ask for CPU features itself.
///
/// # Safety
/// - The CPU has SSE4.1.
#[inline(always)]
unsafe fn add_products<S: Step, const R: usize, const T: usize>(
    w: [&S; R],
    quad: usize,
    x: [X<'_>; T],
    sums: &mut [[__m128; T]; R],
) {
    // SAFETY: what this function asks of its caller is what these ask.
    unsafe {
        // No loop either: compilers leave long ones as they are, and the sums in memory.
        add_row_products(w[0], quad, &x, &mut sums[0]);
        if R == 2 {
            add_row_products(w[1], quad, &x, &mut sums[1]);
        }
    }
}

/// # Safety
/// - The CPU has SSE4.1.
#[inline(always)]
unsafe fn add_row_products<S: Step, const T: usize>(
    w: &S,
    quad: usize,
    x: &[X<'_>; T],
    sums: &mut [__m128; T],
) {
    // SAFETY: what this function asks of its caller is what all these ask.
    unsafe {
        let f = w.factors(quad);
        let mut codes = [[_mm_setzero_si128(); 2]; 4];
        for (g, codes) in codes.iter_mut().enumerate() {
            *codes = w.codes(4 * quad + g);
        }
        for t in 0..T {
            let mut groups = [_mm_setzero_si128(); 4];
            for (g, group) in groups.iter_mut().enumerate() {
                *group = group_products::<S>(codes[g], &x[t].codes.as_chunks().0[g], f.sub, g);
            }
            let [a, b, c, d] = groups;
            let mut products = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
            let x_sums = load::words8(x[t].sums);
            if S::CENTRE > 0 {
                let center = _mm_mullo_epi16(f.sub, _mm_set1_epi16(S::CENTRE));
                products = _mm_sub_epi32(products, _mm_madd_epi16(center, x_sums));
            }
            let x_d = load::floats(x[t].d);
            let scaled = _mm_mul_ps(_mm_mul_ps(f.d, x_d), _mm_cvtepi32_ps(products));
            sums[t] = _mm_add_ps(sums[t], scaled);
            if S::MINS {
                let mins = _mm_cvtepi32_ps(_mm_madd_epi16(f.mins, x_sums));
                sums[t] = _mm_add_ps(sums[t], _mm_mul_ps(_mm_mul_ps(f.m, x_d), mins));
            }
        }
    }
}

/// Products of group `g` of four with its sub-scales, as four sums.
#[inline]
#[target_feature(enable = "sse4.1")]
fn group_products<S: Step>(codes: [__m128i; 2], x: &[i8; 32], sub: __m128i, g: usize) -> __m128i {
    let [x0, x1] = load::bytes32(x);
    let [first, second] = if S::SIGNED {
        [
            _mm_maddubs_epi16(_mm_abs_epi8(codes[0]), _mm_sign_epi8(x0, codes[0])),
            _mm_maddubs_epi16(_mm_abs_epi8(codes[1]), _mm_sign_epi8(x1, codes[1])),
        ]
    } else {
        [_mm_maddubs_epi16(codes[0], x0), _mm_maddubs_epi16(codes[1], x1)]
    };
    let sub_scale = |half| _mm_shuffle_epi8(sub, load::bytes16(&SUB_SCALE[2 * g + half]));
    match S::SUB_SCALES {
        SubScales::None if S::SIGNED => {
            _mm_add_epi32(_mm_madd_epi16(first, sub), _mm_madd_epi16(second, sub))
        }
        SubScales::None => _mm_madd_epi16(_mm_add_epi16(first, second), sub),
        SubScales::Group => _mm_madd_epi16(_mm_add_epi16(first, second), sub_scale(0)),
        SubScales::Half => {
            _mm_add_epi32(_mm_madd_epi16(first, sub_scale(0)), _mm_madd_epi16(second, sub_scale(1)))
        }
    }
}

/// For each of eight sub-scales of 16 bits, the indices that put it everywhere.
const SUB_SCALE: [[u8; 16]; 8] = {
    let mut indices = [[0; 16]; 8];
    let mut i = 0;
    while i < 8 * 16 {
        indices[i / 16][i % 16] = (i / 16 * 2 + i % 2) as u8;
        i += 1;
    }
    indices
};
