//! Products of bytes by relaxed SIMD, for modules that are built with it.
//!
//! Engines may differ in what a relaxed instruction returns. Here it is only given what all must agree on:
//!
//! - `i16x8.relaxed_dot_i8x16_i7x16` gets a second operand of 0 to 127. Its sums of two products then are at most
//!   `2 * 128 * 127` in magnitude, so that it does not matter whether they saturate.
//! - `i8x16.relaxed_swizzle` gets indices below 16.
//!
//! Products with signed codes `w` follow from `w * x = (w ^ m) * |x| + |x|` where `x` is negative, with `m` of all
//! ones, and `w * x = (w ^ m) * |x|` elsewhere, with `m` zero. The last term does not depend on `w`.
//!
//! Floats are left to the level without relaxed SIMD: with it compilers take minima and maxima whose result for NaN
//! differs between engines. That is why a whole program must not be built with `-Ctarget-feature=+relaxed-simd`.

use super::*;
use crate::generic::bits128::int8::to_codes;
use crate::generic::int8::{Int8Step, PANELS, ROOM, Sums};
use crate::int8::BLOCK;
use crate::layout::Float;
use crate::panels::Line;

pub(super) static KERNELS: Kernels = Kernels(TABLE);

const TABLE: Table = Table { formats: formats!(stored, steps, decoded), panels_int8, scan, ..super::TABLE };

int8_products!(Simd128<Relaxed>, "relaxed-simd");

const fn stored<W: Float>() -> FormatKernels {
    super::TABLE.formats[W::FORMAT as usize]
}

const fn steps<S: Step, B: Block>() -> FormatKernels {
    with_products(B::FORMAT, products::<S, B>())
}

const fn decoded<B: Groups>() -> FormatKernels {
    with_products(B::FORMAT, decoded_products::<B>())
}

const fn with_products(format: crate::BlockFormat, products: Int8Products) -> FormatKernels {
    FormatKernels { products: Products::Int8(products), ..super::TABLE.formats[format as usize] }
}

#[target_feature(enable = "relaxed-simd")]
fn scan(w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]) {
    tiles::scan(Simd128::<Relaxed>::new(), w, x, out);
}

#[target_feature(enable = "relaxed-simd")]
fn panels_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
    int8::multiply::<_, { <Simd128<Relaxed> as Int8Step>::TOKENS }>(Simd128::<Relaxed>::new(), w, x, out);
}

/// Two products per sum of 16 bits and instruction.
#[derive(Clone, Copy)]
struct Relaxed;

impl Simd128<Relaxed> {
    #[inline]
    #[target_feature(enable = "relaxed-simd")]
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl Dot for Relaxed {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn look_up(table: v128, index: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { i8x16_relaxed_swizzle(table, index) }
    }

    #[inline(always)]
    unsafe fn add_products<const SIGNED: bool>(words: v128, codes: v128, x: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { i16x8_add(words, pairs::<SIGNED>(codes, x)) }
    }

    #[inline(always)]
    unsafe fn add_words(sums: v128, words: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { i32x4_add(sums, in_32_bits(words)) }
    }

    #[inline(always)]
    unsafe fn group<S: Step>(codes: [v128; 2], x: [v128; 2], sub: v128, g: usize) -> v128 {
        // SAFETY: the caller's promise.
        unsafe {
            let [first, second] = match S::SIGNED {
                true => [pairs::<true>(codes[0], x[0]), pairs::<true>(codes[1], x[1])],
                false => [pairs::<false>(codes[0], x[0]), pairs::<false>(codes[1], x[1])],
            };
            match S::SUB_SCALES {
                SubScales::None if S::SIGNED => i32x4_add(in_32_bits(first), in_32_bits(second)),
                // Small codes leave room for all four products in 16 bits.
                SubScales::None => in_32_bits(i16x8_add(first, second)),
                SubScales::Group => i32x4_dot_i16x8(i16x8_add(first, second), everywhere(sub, 2 * g)),
                SubScales::Half => i32x4_add(
                    i32x4_dot_i16x8(first, everywhere(sub, 2 * g)),
                    i32x4_dot_i16x8(second, everywhere(sub, 2 * g + 1)),
                ),
            }
        }
    }
}

/// Adjacent sums of 16 bits added in 32. As a product with ones: compilers put the sum of such pairs and relaxed products
/// together to an instruction that takes longer where the CPU has none of its kind.
#[inline]
#[target_feature(enable = "simd128")]
fn in_32_bits(pairs: v128) -> v128 {
    i32x4_dot_i16x8(pairs, i16x8_splat(1))
}

/// In 16 bits, sums of two adjacent products. Unsigned codes are below 128, and no `x` is -128.
#[inline]
#[target_feature(enable = "relaxed-simd")]
fn pairs<const SIGNED: bool>(codes: v128, x: v128) -> v128 {
    if !SIGNED {
        return i16x8_relaxed_dot_i8x16_i7x16(x, codes);
    }
    let (negative, size) = (i8x16_lt(x, i8x16_splat(0)), i8x16_abs(x));
    // The same for all codes that meet `x`; all ones are -1.
    let rest = i16x8_relaxed_dot_i8x16_i7x16(negative, size);
    i16x8_sub(i16x8_relaxed_dot_i8x16_i7x16(v128_xor(codes, negative), size), rest)
}

/// Number `i` of eight integers of 16 bits in all places.
#[inline]
#[target_feature(enable = "simd128")]
fn everywhere(x: v128, i: usize) -> v128 {
    match i {
        0 => i16x8_shuffle::<0, 0, 0, 0, 0, 0, 0, 0>(x, x),
        1 => i16x8_shuffle::<1, 1, 1, 1, 1, 1, 1, 1>(x, x),
        2 => i16x8_shuffle::<2, 2, 2, 2, 2, 2, 2, 2>(x, x),
        3 => i16x8_shuffle::<3, 3, 3, 3, 3, 3, 3, 3>(x, x),
        4 => i16x8_shuffle::<4, 4, 4, 4, 4, 4, 4, 4>(x, x),
        5 => i16x8_shuffle::<5, 5, 5, 5, 5, 5, 5, 5>(x, x),
        6 => i16x8_shuffle::<6, 6, 6, 6, 6, 6, 6, 6>(x, x),
        _ => i16x8_shuffle::<7, 7, 7, 7, 7, 7, 7, 7>(x, x),
    }
}

impl Int8Step for Simd128<Relaxed> {
    /// Where activations are negative, as bytes of all ones, and their magnitudes. After the last ones, as a sum, the
    /// magnitudes of the negative ones.
    type Codes = [[u8; 4]; 2];
    type Room = [[[u8; 4]; 2]; 2 * ROOM];

    const TOKENS: usize = 2;
    const CENTERED: bool = true;

    #[inline(always)]
    fn arrange<'a>(self, x: &'a [[u8; 4]], room: &'a mut [[[u8; 4]; 2]]) -> &'a [[[u8; 4]; 2]] {
        let room = &mut room[..x.len() + 1];
        let mut rest = 0;
        for (to, x) in room.iter_mut().zip(x) {
            let x = x.map(|x| (x ^ 128) as i8);
            let (negative, size) = (x.map(|x| (x >> 7) as u8), x.map(i8::unsigned_abs));
            *to = [negative, size];
            for i in 0..4 {
                rest += u32::from(negative[i] & size[i]);
            }
        }
        room[x.len()] = [rest.to_le_bytes(), [0; 4]];
        room
    }

    #[inline(always)]
    fn add_products<const T: usize>(
        self,
        panels: [&[Line]; PANELS],
        x: [&[[[u8; 4]; 2]]; T],
        sums: &mut [Sums; T],
    ) {
        for (p, panel) in panels.into_iter().enumerate() {
            // SAFETY: `self` proves that the module has the features.
            unsafe { add_panel(panel, x, p, sums) };
        }
    }

    #[inline(always)]
    fn to_codes(self, x: Self::Wide) -> [u8; BLOCK] {
        to_codes(self, x)
    }
}

/// Adds the products with panel `p` of the tile.
#[inline]
#[target_feature(enable = "relaxed-simd")]
fn add_panel<const T: usize>(panel: &[Line], x: [&[[[u8; 4]; 2]]; T], p: usize, sums: &mut [Sums; T]) {
    let mut totals = [[i32x4_splat(0); 4]; T];
    for t in 0..T {
        let rest = i32x4_splat(i32::from_le_bytes(x[t][panel.len()][0]));
        for (total, sums) in totals[t].iter_mut().zip(sums[t][p].as_chunks::<4>().0) {
            // SAFETY: the load is as long as the reference.
            *total = i32x4_add(unsafe { v128_load(sums.as_ptr().cast()) }, rest);
        }
    }
    for (i, line) in panel.iter().enumerate() {
        let mut two = [[i32x4_splat(0); 2]; T];
        for (two, x) in two.iter_mut().zip(&x) {
            // SAFETY: `i` is below the length of both.
            let codes = unsafe { x.get_unchecked(i) };
            *two = codes.map(|codes| i32x4_splat(i32::from_le_bytes(codes)));
        }
        for (r, codes) in line.codes().as_chunks::<4>().0.iter().enumerate() {
            // SAFETY: the load is as long as the reference.
            let codes = unsafe { v128_load(codes.as_ptr().cast()) };
            for (totals, [negative, size]) in totals.iter_mut().zip(two) {
                let pairs = i16x8_relaxed_dot_i8x16_i7x16(v128_xor(codes, negative), size);
                totals[r] = i32x4_add(totals[r], in_32_bits(pairs));
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut::<4>().0) {
            // SAFETY: the store is as long as the reference.
            unsafe { v128_store(sums.as_mut_ptr().cast(), *total) };
        }
    }
}
