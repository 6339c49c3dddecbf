//! Products of quantized weights with int8 activations.
//!
//! All formats go through one driver, four groups of 32 columns at a time. A level multiplies a group to four integers
//! ([`Bits128::group`]), and horizontal additions make one of them (exact: see [`Step::codes`]). These are scaled as
//! floats. Centers and minima go through the sums of the activations, one multiplication for the four groups.

use super::Bits128;
use crate::generic::prefetch::prefetch;
use crate::{MatMut, Q8, Rows};
use bytemuck::Pod;
use core::marker::PhantomData;
use core::ops::Range;

/// Which columns have a scale of their own below the floats.
#[derive(PartialEq, Eq)]
pub(crate) enum SubScales {
    None,
    /// 32 columns.
    Group,
    /// 16 columns.
    Half,
}

/// 128 or 256 columns of one row of weights.
pub(crate) trait Step: Pod {
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
    /// overflows 16 bits: two products of activations of at most 127 and codes of at most 128 are at most 32512. Levels
    /// add two such sums only where codes are below 32.
    fn codes<V: Bits128>(&self, v: V, g: usize) -> [V::I; 2];

    /// The factors of groups `4 * quad..4 * quad + 4`.
    fn factors<V: Bits128>(&self, v: V, quad: usize) -> Factors<V>;
}

/// Value `i` of four groups is `d[i / 32] * sub[i / 16] * (code[i] - CENTRE) + m[i / 32] * mins[i / 16]`.
pub(crate) struct Factors<V: Bits128> {
    /// Scales of the groups.
    pub(crate) d: V::F,
    /// Eight sub-scales of 16 bits, all one without [`Step::SUB_SCALES`].
    pub(crate) sub: V::I,
    /// Factors of the minima; not used unless [`Step::MINS`].
    pub(crate) m: V::F,
    /// Eight minima of 16 bits; not used unless [`Step::MINS`].
    pub(crate) mins: V::I,
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

/// `out[t][r]` = row `r` of `w` times token `t` of `x`.
#[inline(always)]
pub(crate) fn matmul<V: Bits128, S: Step>(v: V, w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    if w.cols() < 128 {
        return narrow::<V, S>(v, w, x, out);
    }
    Quantized::<S> { w, x, steps: PhantomData }.write(v, out);
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
#[inline(always)]
pub(crate) fn rows<V: Bits128, S: Step>(v: V, w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
    for (r, out) in active.iter().zip(out) {
        let r = *r as usize;
        if w.cols() < 128 {
            narrow::<V, S>(v, w.slice(r..r + 1), x, &mut MatMut::new(core::slice::from_mut(out), 1));
        } else {
            [[*out]] = Quantized::<S> { w, x, steps: PhantomData }.dot(v, [r], 0);
        }
    }
}

impl<S: Step> Quantized<'_, S> {
    /// All rows times all tokens.
    #[inline(always)]
    fn write<V: Bits128>(&self, v: V, out: &mut MatMut<'_>) {
        // Two streams from far apart keep more of the memory's banks busy than neighboring rows do. The last of an odd
        // number of rows is computed twice: code for one row would take half as long to compile as that for two.
        let (rows, half) = (out.cols(), out.cols().div_ceil(2));
        for r in 0..half {
            self.write_columns(v, [r, (half + r).min(rows - 1)], out);
        }
    }

    /// Rows `r` times all tokens.
    #[inline(always)]
    fn write_columns<V: Bits128>(&self, v: V, r: [usize; 2], out: &mut MatMut<'_>) {
        let tiles = out.tokens() / TOKENS * TOKENS;
        for t in (0..tiles).step_by(TOKENS) {
            write_tile(r, t, self.dot::<V, 2, TOKENS>(v, r, t), out);
        }
        for t in tiles..out.tokens() {
            write_tile(r, t, self.dot::<V, 2, 1>(v, r, t), out);
        }
    }

    /// Weight rows `r` times `T` tokens from `t` on.
    #[inline(always)]
    fn dot<V: Bits128, const R: usize, const T: usize>(
        &self,
        v: V,
        r: [usize; R],
        t: usize,
    ) -> [[f32; T]; R] {
        let (rows, tokens) = (self.rows(r), self.tokens::<T>(t));
        let (size, bytes) = (size_of::<S>(), self.w.row_bytes());
        let full = bytes / size;
        let whole = steps::<S, R>(&rows, 0..full * size);
        let mut sums = [[v.splat(0.0); T]; R];
        for s in 0..full {
            let w = step(&whole, s);
            if T == 1 {
                w.into_iter().for_each(prefetch);
            }
            add_products(v, w, 0, columns(&tokens, s * S::QUADS), &mut sums);
            // Not a loop, so that `quad` is a constant.
            if S::QUADS == 2 {
                add_products(v, w, 1, columns(&tokens, s * S::QUADS + 1), &mut sums);
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
            add_products(v, w, 0, last_columns(&tokens, &d), &mut sums);
        }
        let mut out = [[0.0; T]; R];
        for (out, sums) in out.iter_mut().flatten().zip(sums.iter().flatten()) {
            *out = v.sum(*sums);
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
#[inline(always)]
fn narrow<V: Bits128, S: Step>(v: V, w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    fn padded<P: Pod, const N: usize>(x: &[P]) -> [P; N] {
        let mut all = [P::zeroed(); N];
        all[..x.len()].copy_from_slice(x);
        all
    }
    let mut w_padded = S::zeroed();
    for r in 0..w.rows() {
        bytemuck::bytes_of_mut(&mut w_padded)[..w.row_bytes()].copy_from_slice(w.row(r));
        for t in 0..x.tokens() {
            let x = x.row(t);
            let x = X { codes: &padded(x.q), d: &padded(x.d), sums: &padded(x.sums) };
            let mut sums = [[v.splat(0.0)]];
            add_products(v, [&w_padded], 0, [x], &mut sums);
            out.row(t)[r] = v.sum(sums[0][0]);
        }
    }
}

/// The product of a step of two quads with `groups` groups of a token from `first` on, which meet the step's last groups.
#[inline(always)]
pub(super) fn add_parts<V: Bits128, S: Step>(v: V, w: &S, x: Q8<'_>, first: usize, groups: usize) -> f32 {
    let mut sums = [[v.splat(0.0)]];
    if groups == 8 {
        add_products(v, [w], 0, columns(&[x], first / 4), &mut sums);
        add_products(v, [w], 1, columns(&[x], first / 4 + 1), &mut sums);
    } else {
        let (mut codes, mut d, mut totals) = ([0; 256], [0.0; 8], [0; 16]);
        codes[256 - 32 * groups..].copy_from_slice(&x.q[32 * first..][..32 * groups]);
        d[8 - groups..].copy_from_slice(&x.d[first..][..groups]);
        totals[16 - 2 * groups..].copy_from_slice(&x.sums[2 * first..][..2 * groups]);
        let x = Q8 { cols: 256, q: &codes, d: &d, sums: &totals };
        add_products(v, [w], 0, columns(&[x], 0), &mut sums);
        add_products(v, [w], 1, columns(&[x], 1), &mut sums);
    }
    v.sum(sums[0][0])
}

/// Adds the products of four groups of `R` rows, one or two.
#[inline(always)]
fn add_products<V: Bits128, S: Step, const R: usize, const T: usize>(
    v: V,
    w: [&S; R],
    quad: usize,
    x: [X<'_>; T],
    sums: &mut [[V::F; T]; R],
) {
    // No loop either: compilers leave long ones as they are, and the sums in memory.
    add_row_products(v, w[0], quad, &x, &mut sums[0]);
    if R == 2 {
        add_row_products(v, w[1], quad, &x, &mut sums[1]);
    }
}

#[inline(always)]
fn add_row_products<V: Bits128, S: Step, const T: usize>(
    v: V,
    w: &S,
    quad: usize,
    x: &[X<'_>; T],
    sums: &mut [V::F; T],
) {
    let f = w.factors(v, quad);
    let mut codes = [[v.splat8(0); 2]; 4];
    for (g, codes) in codes.iter_mut().enumerate() {
        *codes = w.codes(v, 4 * quad + g);
    }
    for t in 0..T {
        // No loop, so that levels know the numbers of sub-scales.
        let mut products = v.lane_sums([
            group_products::<V, S>(v, codes[0], x[t].codes, f.sub, 0),
            group_products::<V, S>(v, codes[1], x[t].codes, f.sub, 1),
            group_products::<V, S>(v, codes[2], x[t].codes, f.sub, 2),
            group_products::<V, S>(v, codes[3], x[t].codes, f.sub, 3),
        ]);
        let x_sums = v.load16(bytemuck::cast_ref(x[t].sums));
        if S::CENTRE > 0 {
            let center = v.mul16(f.sub, v.splat16(S::CENTRE));
            products = v.sub32(products, v.madd(center, x_sums));
        }
        let x_d = v.load(x[t].d);
        let scaled = v.mul(v.mul(f.d, x_d), v.to_floats(products));
        sums[t] = v.add(sums[t], scaled);
        if S::MINS {
            let mins = v.to_floats(v.madd(f.mins, x_sums));
            sums[t] = v.add(sums[t], v.mul(v.mul(f.m, x_d), mins));
        }
    }
}

/// Products of group `g` of four with its sub-scales, as four sums.
#[inline(always)]
fn group_products<V: Bits128, S: Step>(v: V, codes: [V::I; 2], x: &[i8; 128], sub: V::I, g: usize) -> V::I {
    v.group::<S>(codes, v.load32(bytemuck::cast_ref(&x.as_chunks::<32>().0[g])), sub, g)
}
