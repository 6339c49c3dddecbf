//! Products of quantized weights with int8 activations, for levels with vectors of 128 bits.
//!
//! Every format goes through one driver, four groups of 32 columns at a time: its codes are unpacked as bytes, and
//! the products of a group become one integer, which is scaled as a float.

use crate::layout::Block;
use crate::simd::Simd;
use crate::{MatMut, Q8, Rows};

/// Integers of a level with vectors of 128 bits.
pub(crate) trait Ints: Simd<Floats = [f32; 4]> {
    /// Sixteen bytes, eight integers of 16 bits, or four of 32.
    type I: Copy;

    /// Zeros.
    fn none(self) -> Self::I;
    fn bytes16(self, x: &[i8; 16]) -> Self::I;
    fn ints(self, x: &[i32; 4]) -> Self::I;
    fn store_ints(self, x: Self::I, out: &mut [i32; 4]);
    /// The same integer four times.
    fn splat_int(self, x: i32) -> Self::I;
    fn add_ints(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_ints(self, a: Self::I, b: Self::I) -> Self::I;
    /// The sum of each vector's four integers.
    fn totals(self, x: [Self::I; 4]) -> Self::I;
    fn to_floats(self, x: Self::I) -> Self::F;
    /// To the nearest integer, ties to even.
    fn to_ints(self, x: Self::F) -> Self::I;
    /// The bytes at even places, as integers of 16 bits.
    fn even(self, x: Self::I) -> Self::I;
    /// The bytes at odd places, as integers of 16 bits.
    fn odd(self, x: Self::I) -> Self::I;
    /// Products of integers of 16 bits, added in pairs.
    fn pair_products(self, a: Self::I, b: Self::I) -> Self::I;
}

/// How a level multiplies sixteen bytes.
pub(crate) trait Dot<S: Ints> {
    /// Adds the sixteen products to the four sums, each to any of them. Codes are above -128 on one side.
    fn add(s: S, sums: S::I, a: S::I, b: S::I) -> S::I;
}

/// Tokens per tile of a batch: weights are unpacked once for all of them.
const TOKENS: usize = 4;

/// `out[t][r]` = row `r` of `w` times token `t` of `x`.
#[inline(always)]
pub(crate) fn matmul<S: Ints, D: Dot<S>, B: Block>(s: S, w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    for r in 0..w.rows() {
        let mut t = 0;
        while t < x.tokens() {
            t += match x.tokens() - t {
                1 => tile::<S, D, B, 1>(s, w.row(r), r, x, t, out),
                2 | 3 => tile::<S, D, B, 2>(s, w.row(r), r, x, t, out),
                _ => tile::<S, D, B, TOKENS>(s, w.row(r), r, x, t, out),
            };
        }
    }
}

/// `out[i]` = row `active[i]` of `w` times `x`, one token.
#[inline(always)]
pub(crate) fn rows<S: Ints, D: Dot<S>, B: Block>(
    s: S,
    w: Rows<'_>,
    active: &[u32],
    x: Q8<'_>,
    out: &mut [f32],
) {
    let mut out = MatMut::new(out, active.len().max(1));
    for (i, &r) in active.iter().enumerate() {
        tile::<S, D, B, 1>(s, w.row(r as usize), i, x, 0, &mut out);
    }
}

/// Four groups of a row: value `i` of group `g` is `d[g] * sub[g][i / 16] * code + m[g] * min[g][i / 16]`.
struct Quad {
    codes: [[i8; 32]; 4],
    d: [f32; 4],
    sub: [[i8; 2]; 4],
    m: [f32; 4],
    min: [[i8; 2]; 4],
}

/// A row of weights times tokens `t..t + T`, to column `r` of `out`; returns `T`.
#[inline(always)]
fn tile<S: Ints, D: Dot<S>, B: Block, const T: usize>(
    s: S,
    row: &[u8],
    r: usize,
    x: Q8<'_>,
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    let tokens: [Q8<'_>; T] = core::array::from_fn(|i| x.row(t + i));
    let (mut sums, mut offsets) = ([s.splat(0.0); T], [0.0; T]);
    let blocks: &[B] = bytemuck::cast_slice(row);
    let mut quad = Quad { codes: [[0; 32]; 4], d: [0.0; 4], sub: [[1; 2]; 4], m: [0.0; 4], min: [[0; 2]; 4] };
    if B::LEN < 256 {
        let groups = B::LEN / 32;
        for (i, blocks) in blocks.chunks(4 / groups).enumerate() {
            fill(&mut quad, blocks);
            // A constant for all but the last.
            match blocks.len() * groups {
                4 => add::<S, D, B, T>(s, &quad, &tokens, 4 * i, 4, &mut sums, &mut offsets),
                n => add::<S, D, B, T>(s, &quad, &tokens, 4 * i, n, &mut sums, &mut offsets),
            }
        }
    } else {
        for (b, block) in blocks.iter().enumerate() {
            let scales = block.scales();
            let mut codes = [0; 256];
            block.codes(&mut codes);
            (quad.d, quad.m) = ([scales.d; 4], [scales.m; 4]);
            for half in 0..2 {
                let parts =
                    codes[128 * half..].as_chunks().0.iter().zip(scales.sub[8 * half..].as_chunks().0);
                let parts = parts.zip(scales.min[8 * half..].as_chunks().0).take(4).enumerate();
                for (g, ((codes, sub), min)) in parts {
                    (quad.codes[g], quad.sub[g], quad.min[g]) = (*codes, *sub, *min);
                }
                add::<S, D, B, T>(s, &quad, &tokens, 8 * b + 4 * half, 4, &mut sums, &mut offsets);
            }
        }
    }
    for i in 0..T {
        out.row(t + i)[r] = s.sum(sums[i]) + offsets[i];
    }
    T
}

/// Unpacks blocks that are shorter than a quad.
#[inline(always)]
fn fill<B: Block>(quad: &mut Quad, blocks: &[B]) {
    let groups = B::LEN / 32;
    for (i, block) in blocks.iter().enumerate() {
        let (scales, here) = (block.scales(), i * groups..(i + 1) * groups);
        quad.d[here.clone()].fill(scales.d);
        quad.m[here.clone()].fill(scales.m);
        block.codes(quad.codes[here].as_flattened_mut());
    }
}

/// Adds the products of the first `n` of four groups, which are groups `at..` of the tokens.
#[inline(always)]
fn add<S: Ints, D: Dot<S>, B: Block, const T: usize>(
    s: S,
    quad: &Quad,
    tokens: &[Q8<'_>; T],
    at: usize,
    n: usize,
    sums: &mut [S::F; T],
    offsets: &mut [f32; T],
) {
    for (i, x) in tokens.iter().enumerate() {
        let q = x.q[32 * at..].as_chunks::<32>().0;
        let mut groups = [s.none(); 4];
        // Groups that are not there stay zero, and so do their scales.
        let mut d = [0.0; 4];
        for g in 0..n {
            let halves = |codes: &[i8; 32]| {
                let [a, b] = codes.as_chunks().0 else { return [s.none(); 2] };
                [s.bytes16(a), s.bytes16(b)]
            };
            let ([w0, w1], [x0, x1]) = (halves(&quad.codes[g]), halves(&q[g]));
            groups[g] = if B::LEN < 256 {
                D::add(s, D::add(s, s.none(), w0, x0), w1, x1)
            } else {
                let [sub0, sub1] = quad.sub[g].map(|sub| s.splat_int(sub.into()));
                let first = s.mul_ints(D::add(s, s.none(), w0, x0), sub0);
                s.add_ints(first, s.mul_ints(D::add(s, s.none(), w1, x1), sub1))
            };
            d[g] = quad.d[g] * x.d[at + g];
            if B::HAS_MIN {
                let [min0, min1] = if B::LEN < 256 { [1; 2] } else { quad.min[g].map(i32::from) };
                let [sum0, sum1] = [0, 1].map(|half| i32::from(x.sums[2 * (at + g) + half]));
                offsets[i] += x.d[at + g] * quad.m[g] * (min0 * sum0 + min1 * sum1) as f32;
            }
        }
        sums[i] = s.fma(s.to_floats(s.totals(groups)), s.load(&d), sums[i]);
    }
}

/// What levels of this width share: `narrow_level!(token, features, tokens)`, where the token has [`Ints`].
///
/// Makes a module `floats` with the functions of a table, and `formats::<D>()` with its entries.
macro_rules! narrow_level {
    ($token:ident, $features:literal, $tokens:literal) => {
        mod floats {
            use super::$token;
            use crate::generic::{
                codes, float_functions, product_functions, scan::ScanStep, sums::DecodeStep,
            };
            use crate::int8::BLOCK;
            use crate::panels::Line;
            use crate::tiles::TileLayout;

            float_functions!($token, $features);
            product_functions!($token, $features);

            impl GemmStep for $token {
                type Panel = [[f32; 4]; 2 * gemm::COLS];

                const VECTORS: usize = 2;
                const TOKENS: usize = 4;

                #[inline(always)]
                fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>) {
                    #[allow(unused_unsafe, reason = "where the target has the features, this is safe")]
                    // SAFETY: the token proves that the CPU has the features.
                    unsafe {
                        multiply(job, out)
                    }
                }
            }

            impl Int8Step for $token {
                /// In 16 bits, those of even columns first.
                type Codes = [[u16; 2]; 2];
                type Room = [[[u16; 2]; 2]; $tokens * int8::ROOM];

                const TOKENS: usize = $tokens;

                #[inline(always)]
                fn arrange<'a>(self, x: &'a [[u8; 4]], room: &'a mut [[[u16; 2]; 2]]) -> &'a [[[u16; 2]; 2]] {
                    int8::widen(x, room)
                }

                #[inline(always)]
                fn add_products<const T: usize>(
                    self,
                    panels: [&[Line]; int8::PANELS],
                    x: [&[[[u16; 2]; 2]]; T],
                    sums: &mut [int8::Sums; T],
                ) {
                    codes::add_panels(self, panels, x, sums);
                }

                #[inline(always)]
                fn to_codes(self, x: <Self as Simd>::Wide) -> [u8; BLOCK] {
                    codes::to_codes(self, &x)
                }
            }

            impl ScanStep for $token {
                type Sums = [i32; TileLayout::TILE];

                #[inline(always)]
                fn none(self) -> Self::Sums {
                    [0; TileLayout::TILE]
                }

                #[inline(always)]
                fn nibbles(self, sums: Self::Sums, codes: &[u8; 64], x: [i32; 2]) -> Self::Sums {
                    codes::tile_products::<4, 2>(sums, codes, x)
                }

                #[inline(always)]
                fn pairs(self, sums: Self::Sums, codes: &[u8; 64], x: [i32; 4]) -> Self::Sums {
                    codes::tile_products::<2, 4>(sums, codes, x)
                }

                #[inline(always)]
                fn floats(self, sums: Self::Sums) -> [f32; TileLayout::TILE] {
                    sums.map(|sum| sum as f32)
                }
            }

            impl DecodeStep for $token {}

            /// The entry of a format of floats.
            const fn stored<W: Stored>() -> FormatKernels {
                floats::<W>(float_products::<W>())
            }

            /// The entry of a quantized format.
            const fn quantized<D: codes::Dot<$token>, B: Block>() -> FormatKernels {
                blocks::<B>(products::<D, B>())
            }

            /// The entry of a quantized format that is decoded in plain Rust.
            const fn decoded<D: codes::Dot<$token>, B: Groups>() -> FormatKernels {
                groups::<B>(products::<D, B>())
            }

            const fn products<D: codes::Dot<$token>, B: Block>() -> Int8Products {
                Int8Products {
                    matmul: |w, x, out| codes::matmul::<_, D, B>($token::new(), w, x, out),
                    rows: |w, active, x, out| codes::rows::<_, D, B>($token::new(), w, active, x, out),
                    matmul_each: None,
                    columns: crate::scalar::columns::products::<B>(),
                    matmul_interleaved: crate::scalar::interleaved::matmul(B::FORMAT),
                }
            }

            /// The entries of a table.
            pub(super) const fn formats<D: codes::Dot<$token>>() -> crate::table::ByFormat {
                use crate::layout::*;
                use half::bf16;
                crate::table::by_format([
                    stored::<f32>(),
                    stored::<f16>(),
                    stored::<bf16>(),
                    quantized::<D, BlockQ4_0>(),
                    quantized::<D, BlockQ4_1>(),
                    quantized::<D, BlockQ5_0>(),
                    quantized::<D, BlockQ5_1>(),
                    quantized::<D, BlockQ8_0>(),
                    quantized::<D, BlockQ2K>(),
                    quantized::<D, BlockQ3K>(),
                    quantized::<D, BlockQ4K>(),
                    quantized::<D, BlockQ5K>(),
                    quantized::<D, BlockQ6K>(),
                    quantized::<D, BlockIq4Nl>(),
                    quantized::<D, BlockIq4Xs>(),
                    quantized::<D, BlockMxFp4>(),
                    decoded::<D, BlockTq1_0>(),
                    quantized::<D, BlockTq2_0>(),
                    decoded::<D, BlockQ1_0>(),
                    decoded::<D, BlockQ2_0>(),
                    decoded::<D, BlockIq1S>(),
                    decoded::<D, BlockIq1M>(),
                    decoded::<D, BlockIq2Xxs>(),
                    decoded::<D, BlockIq2Xs>(),
                    decoded::<D, BlockIq2S>(),
                    decoded::<D, BlockIq3Xxs>(),
                    decoded::<D, BlockIq3S>(),
                    quantized::<D, BlockBit3>(),
                    quantized::<D, BlockBit7>(),
                ])
            }
        }
    };
}
pub(crate) use narrow_level;

/// See [`Int8Step::add_products`](super::int8::Int8Step::add_products).
#[inline(always)]
pub(crate) fn add_panels<S: Ints, const T: usize>(
    s: S,
    panels: [&[crate::panels::Line]; super::int8::PANELS],
    x: [&[[[u16; 2]; 2]]; T],
    sums: &mut [super::int8::Sums; T],
) {
    for (p, panel) in panels.into_iter().enumerate() {
        let mut totals = [[s.none(); 4]; T];
        for (totals, sums) in totals.iter_mut().zip(&*sums) {
            for (total, sums) in totals.iter_mut().zip(sums[p].as_chunks().0) {
                *total = s.ints(sums);
            }
        }
        for (i, line) in panel.iter().enumerate() {
            let codes: &[[i8; 16]; 4] = bytemuck::cast_ref(line.codes());
            for (r, codes) in codes.iter().enumerate() {
                let codes = s.bytes16(codes);
                let (even, odd) = (s.even(codes), s.odd(codes));
                for (totals, x) in totals.iter_mut().zip(&x) {
                    let [x0, x1] = x[i].map(|pair| s.splat_int(bytemuck::cast(pair)));
                    let products = s.add_ints(s.pair_products(even, x0), s.pair_products(odd, x1));
                    totals[r] = s.add_ints(totals[r], products);
                }
            }
        }
        for (totals, sums) in totals.iter().zip(&mut *sums) {
            for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut().0) {
                s.store_ints(*total, sums);
            }
        }
    }
}

/// See [`Int8Step::to_codes`](super::int8::Int8Step::to_codes).
#[inline(always)]
pub(crate) fn to_codes<S: Ints>(s: S, x: &S::Wide) -> [u8; crate::int8::BLOCK] {
    let mut codes = [0; crate::int8::BLOCK];
    for (x, codes) in x.as_ref().iter().zip(codes.as_chunks_mut::<4>().0) {
        let mut ints = [0; 4];
        s.store_ints(s.to_ints(*x), &mut ints);
        *codes = ints.map(|x| (x + 128) as u8);
    }
    codes
}

/// Adds products of `N` codes of `BITS` in every byte: byte `k` of a row's four with byte `k` of each of `x`.
#[inline(always)]
pub(crate) fn tile_products<const BITS: u32, const N: usize>(
    mut sums: [i32; crate::tiles::TileLayout::TILE],
    codes: &[u8; 64],
    x: [i32; N],
) -> [i32; crate::tiles::TileLayout::TILE] {
    let x = x.map(i32::to_le_bytes);
    for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<4>().0) {
        for (n, x) in x.iter().enumerate() {
            for (code, x) in codes.iter().zip(x) {
                let code = code >> (BITS * n as u32) & ((1 << BITS) - 1);
                *sum += i32::from(code) * i32::from(*x as i8);
            }
        }
    }
    sums
}
