//! Kernels for WebAssembly's 128-bit vectors, and the generic kernels on them. `relaxed` has what engines with relaxed
//! SIMD add.
#![allow(unused_unsafe, reason = "a module that is built with vectors needs no proof of them")]
#![cfg_attr(feature = "relaxed-simd", allow(dead_code, reason = "`relaxed` takes the place of all products"))]

#[cfg(feature = "relaxed-simd")]
mod relaxed;

use crate::generic::bits128::{Bits128, int8::InWords, level, quantized::SubScales};
use core::arch::wasm32::*;
use core::marker::PhantomData;

/// Proof of simd128 and of the instructions of `D`, which a module has or has not when it is compiled.
#[derive(Clone, Copy)]
struct Simd128<D>(PhantomData<D>);

impl Simd128<Words> {
    #[inline]
    #[target_feature(enable = "simd128")]
    fn new() -> Self {
        Self(PhantomData)
    }
}

level!(Simd128<Words>, "simd128", Level::Simd128);

/// The kernels of this module: an engine that lacks an instruction of a module refuses all of it.
pub(crate) fn kernels() -> &'static Kernels {
    #[cfg(feature = "relaxed-simd")]
    return &relaxed::KERNELS;
    #[cfg(not(feature = "relaxed-simd"))]
    return &KERNELS;
}

/// How bytes are multiplied.
trait Dot: Copy {
    /// See [`Bits128::WIDE`].
    const WIDE: bool;

    /// See [`Bits128::look_up`].
    ///
    /// # Safety
    /// - The module has the instructions, as for the other functions.
    unsafe fn look_up(table: v128, index: v128) -> v128;
    /// See [`Bits128::add_products`].
    ///
    /// # Safety
    /// - The module has the instructions.
    unsafe fn add_products<const SIGNED: bool>(words: v128, codes: v128, x: v128) -> v128;
    /// See [`Bits128::add_words`].
    ///
    /// # Safety
    /// - The module has the instructions.
    unsafe fn add_words(sums: v128, words: v128) -> v128;
    /// See [`Bits128::group`].
    ///
    /// # Safety
    /// - The module has the instructions.
    unsafe fn group<S: Step>(codes: [v128; 2], x: [v128; 2], sub: v128, g: usize) -> v128;
}

/// Products in 16 bits each, which are added in 32.
#[derive(Clone, Copy)]
struct Words;

impl Dot for Words {
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn look_up(table: v128, index: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { i8x16_swizzle(table, index) }
    }

    /// Bytes at even places and those at odd ones, as integers of 16 bits.
    #[inline(always)]
    unsafe fn add_products<const SIGNED: bool>(words: v128, codes: v128, x: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe {
            let [even, odd] = match SIGNED {
                true => [even_i8(codes), odd_i8(codes)],
                false => [v128_and(codes, i16x8_splat(255)), u16x8_shr(codes, 8)],
            };
            let products = i32x4_add(i32x4_dot_i16x8(even, even_i8(x)), i32x4_dot_i16x8(odd, odd_i8(x)));
            i32x4_add(words, products)
        }
    }

    #[inline(always)]
    unsafe fn add_words(sums: v128, words: v128) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { i32x4_add(sums, words) }
    }

    #[inline(always)]
    unsafe fn group<S: Step>(codes: [v128; 2], x: [v128; 2], sub: v128, g: usize) -> v128 {
        // SAFETY: the caller's promise.
        unsafe {
            let products = |sums, i: usize| match S::SIGNED {
                true => Self::add_products::<true>(sums, codes[i], x[i]),
                false => Self::add_products::<false>(sums, codes[i], x[i]),
            };
            let none = i32x4_splat(0);
            match S::SUB_SCALES {
                SubScales::None => products(products(none, 0), 1),
                SubScales::Group => {
                    let both = products(products(none, 0), 1);
                    i32x4_mul(both, everywhere(sub, 2 * g))
                }
                SubScales::Half => i32x4_add(
                    i32x4_mul(products(none, 0), everywhere(sub, 2 * g)),
                    i32x4_mul(products(none, 1), everywhere(sub, 2 * g + 1)),
                ),
            }
        }
    }
}

/// Calls a function with target features; loads and stores are as long as the reference.
macro_rules! with_simd128 {
    ($code:expr) => {
        // SAFETY: `self` proves that the module has the features.
        unsafe { $code }
    };
}

impl<D: Dot> Simd for Simd128<D> {
    type F = v128;
    type Floats = [f32; 4];
    type Halves = [u16; 4];
    type Square = [v128; 4];
    type Wide = [v128; 8];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [self.splat(0.0); 4]
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        [self.splat(x); 8]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> v128 {
        with_simd128!(f32x4_splat(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> v128 {
        with_simd128!(v128_load(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn store(self, x: v128, out: &mut [f32; 4]) {
        with_simd128!(v128_store(out.as_mut_ptr().cast(), x))
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 4]) -> v128 {
        with_simd128!(half_to_float(upper_halves(x)))
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 4]) -> v128 {
        with_simd128!(upper_halves(x))
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> v128 {
        let &[a, b, c, d] = x else { panic!("four integers") };
        with_simd128!(f32x4_convert_i32x4(i32x4(a.into(), b.into(), c.into(), d.into())))
    }

    #[inline(always)]
    fn to_f16s(self, x: v128) -> [u16; 4] {
        let mut out = [0; 4];
        with_simd128!({
            let x = float_to_half(x);
            v128_store64_lane::<0>(u16x8_narrow_i32x4(x, x), out.as_mut_ptr().cast());
        });
        out
    }

    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        with_simd128!(f32x4_add(a, b))
    }

    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        with_simd128!(f32x4_sub(a, b))
    }

    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        with_simd128!(f32x4_mul(a, b))
    }

    #[inline(always)]
    fn div(self, a: v128, b: v128) -> v128 {
        with_simd128!(f32x4_div(a, b))
    }

    /// Rounds twice: this level has no fused operation.
    #[inline(always)]
    fn fma(self, a: v128, b: v128, c: v128) -> v128 {
        with_simd128!(f32x4_add(f32x4_mul(a, b), c))
    }

    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        with_simd128!(f32x4_pmin(b, a))
    }

    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        with_simd128!(f32x4_pmax(b, a))
    }

    #[inline(always)]
    fn abs(self, x: v128) -> v128 {
        with_simd128!(f32x4_abs(x))
    }

    #[inline(always)]
    fn copysign(self, x: v128, sign: v128) -> v128 {
        with_simd128!(v128_bitselect(sign, x, i32x4_splat(i32::MIN)))
    }

    #[inline(always)]
    fn round(self, x: v128) -> v128 {
        with_simd128!(f32x4_nearest(x))
    }

    #[inline(always)]
    fn scale(self, x: v128, n: v128) -> v128 {
        with_simd128!({
            let n = small_integers(n);
            let half = i32x4_shr(n, 1);
            f32x4_mul(f32x4_mul(x, power_of_2(half)), power_of_2(i32x4_sub(n, half)))
        })
    }

    #[inline(always)]
    fn select_less(self, a: v128, b: v128, yes: v128, no: v128) -> v128 {
        with_simd128!(v128_bitselect(yes, no, f32x4_lt(a, b)))
    }

    #[inline(always)]
    fn sums(self, rows: [v128; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        with_simd128!({
            let [a, b, c, d] = transpose(rows);
            let sum = f32x4_add(f32x4_add(a, b), f32x4_add(c, d));
            v128_store(sums.as_mut_ptr().cast(), sum);
        });
        sums
    }

    #[inline(always)]
    fn transpose(self, rows: [v128; 4]) -> [v128; 4] {
        with_simd128!(transpose(rows))
    }

    /// There is no such hint.
    #[inline(always)]
    fn prefetch(self, _: &[u8]) {}
}

impl GemmStep for Simd128<Words> {
    type Panel = [[f32; 4]; 2 * gemm::COLS];

    // As SSE4.1, which is what many engines translate to.
    const VECTORS: usize = 2;
    const TOKENS: usize = 4;

    #[inline(always)]
    fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>) {
        with_simd128!(multiply(job, out))
    }
}

impl InWords for Simd128<Words> {}

impl<D: Dot> Bits128 for Simd128<D> {
    type I = v128;

    const WIDE: bool = D::WIDE;

    #[inline(always)]
    fn load16(self, x: &[u8; 16]) -> v128 {
        with_simd128!(v128_load(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn load8(self, x: &[u8; 8]) -> v128 {
        with_simd128!(v128_load64_zero(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn store16(self, x: v128, out: &mut [u8; 16]) {
        with_simd128!(v128_store(out.as_mut_ptr().cast(), x))
    }

    #[inline(always)]
    fn splat8(self, x: i8) -> v128 {
        with_simd128!(i8x16_splat(x))
    }

    #[inline(always)]
    fn splat16(self, x: i16) -> v128 {
        with_simd128!(i16x8_splat(x))
    }

    #[inline(always)]
    fn splat32(self, x: i32) -> v128 {
        with_simd128!(i32x4_splat(x))
    }

    #[inline(always)]
    fn and(self, a: v128, b: v128) -> v128 {
        with_simd128!(v128_and(a, b))
    }

    #[inline(always)]
    fn or(self, a: v128, b: v128) -> v128 {
        with_simd128!(v128_or(a, b))
    }

    #[inline(always)]
    fn shl16(self, x: v128, by: u32) -> v128 {
        with_simd128!(i16x8_shl(x, by))
    }

    #[inline(always)]
    fn shr16(self, x: v128, by: u32) -> v128 {
        with_simd128!(u16x8_shr(x, by))
    }

    #[inline(always)]
    fn eq8(self, a: v128, b: v128) -> v128 {
        with_simd128!(i8x16_eq(a, b))
    }

    #[inline(always)]
    fn add8(self, a: v128, b: v128) -> v128 {
        with_simd128!(i8x16_add(a, b))
    }

    #[inline(always)]
    fn sub8(self, a: v128, b: v128) -> v128 {
        with_simd128!(i8x16_sub(a, b))
    }

    #[inline(always)]
    fn sub16(self, a: v128, b: v128) -> v128 {
        with_simd128!(i16x8_sub(a, b))
    }

    #[inline(always)]
    fn mul16(self, a: v128, b: v128) -> v128 {
        with_simd128!(i16x8_mul(a, b))
    }

    #[inline(always)]
    fn add32(self, a: v128, b: v128) -> v128 {
        with_simd128!(i32x4_add(a, b))
    }

    #[inline(always)]
    fn sub32(self, a: v128, b: v128) -> v128 {
        with_simd128!(i32x4_sub(a, b))
    }

    #[inline(always)]
    fn max32(self, a: v128, b: v128) -> v128 {
        with_simd128!(i32x4_max(a, b))
    }

    #[inline(always)]
    fn look_up(self, table: v128, index: v128) -> v128 {
        with_simd128!(D::look_up(table, index))
    }

    #[inline(always)]
    fn zip_low16(self, a: v128, b: v128) -> v128 {
        with_simd128!(i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b))
    }

    #[inline(always)]
    fn interleave4(self, [a, b, c, d]: [v128; 4]) -> [v128; 4] {
        with_simd128!({
            let low_ab = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
            let high_ab = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b);
            let low_cd = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(c, d);
            let high_cd = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(c, d);
            [
                i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(low_ab, low_cd),
                i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(low_ab, low_cd),
                i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(high_ab, high_cd),
                i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(high_ab, high_cd),
            ]
        })
    }

    #[inline(always)]
    fn widen_u8(self, x: v128) -> v128 {
        with_simd128!(u16x8_extend_low_u8x16(x))
    }

    #[inline(always)]
    fn widen_i8(self, x: v128) -> v128 {
        with_simd128!(i16x8_extend_low_i8x16(x))
    }

    #[inline(always)]
    fn even_i8(self, x: v128) -> v128 {
        with_simd128!(even_i8(x))
    }

    #[inline(always)]
    fn odd_i8(self, x: v128) -> v128 {
        with_simd128!(odd_i8(x))
    }

    #[inline(always)]
    fn narrow_u16(self, a: v128, b: v128) -> v128 {
        with_simd128!(u8x16_narrow_i16x8(a, b))
    }

    #[inline(always)]
    fn add_products<const SIGNED: bool>(self, words: v128, codes: v128, x: v128) -> v128 {
        with_simd128!(D::add_products::<SIGNED>(words, codes, x))
    }

    #[inline(always)]
    fn add_words(self, sums: v128, words: v128) -> v128 {
        with_simd128!(D::add_words(sums, words))
    }

    #[inline(always)]
    fn group<S: Step>(self, codes: [v128; 2], x: [v128; 2], sub: v128, g: usize) -> v128 {
        with_simd128!(D::group::<S>(codes, x, sub, g))
    }

    #[inline(always)]
    fn upper_nibbles(self, x: v128) -> v128 {
        self.and(self.shr16(x, 4), self.splat8(15))
    }

    #[inline(always)]
    fn madd(self, a: v128, b: v128) -> v128 {
        with_simd128!(i32x4_dot_i16x8(a, b))
    }

    #[inline(always)]
    fn lane_sums(self, x: [v128; 4]) -> v128 {
        with_simd128!({
            let [a, b, c, d] = transpose(x);
            i32x4_add(i32x4_add(a, b), i32x4_add(c, d))
        })
    }

    #[inline(always)]
    fn to_floats(self, x: v128) -> v128 {
        with_simd128!(f32x4_convert_i32x4(x))
    }

    #[inline(always)]
    fn bits(self, x: v128) -> v128 {
        x
    }

    #[inline(always)]
    fn to_bytes(self, x: [v128; 4]) -> v128 {
        with_simd128!({
            let [a, b, c, d] = x.map(|x| small_integers(x));
            i8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d))
        })
    }
}

/// Values below 2^22 in magnitude to the nearest integers, ties to even: conversions that saturate take longer.
#[inline]
#[target_feature(enable = "simd128")]
fn small_integers(x: v128) -> v128 {
    // Next to this, floats are one apart.
    let round = f32x4_splat(12_582_912.0);
    i32x4_sub(f32x4_add(x, round), round)
}

/// The lower bytes of lanes of 16 bits, signed.
#[inline]
#[target_feature(enable = "simd128")]
fn even_i8(x: v128) -> v128 {
    i16x8_shr(i16x8_shl(x, 8), 8)
}

/// The upper bytes of lanes of 16 bits, signed.
#[inline]
#[target_feature(enable = "simd128")]
fn odd_i8(x: v128) -> v128 {
    i16x8_shr(x, 8)
}

/// Number `i` of eight integers of 16 bits in all places, in 32 bits.
#[inline]
#[target_feature(enable = "simd128")]
fn everywhere(x: v128, i: usize) -> v128 {
    let half = if i < 4 { i32x4_extend_low_i16x8(x) } else { i32x4_extend_high_i16x8(x) };
    match i % 4 {
        0 => i32x4_shuffle::<0, 0, 0, 0>(half, half),
        1 => i32x4_shuffle::<1, 1, 1, 1>(half, half),
        2 => i32x4_shuffle::<2, 2, 2, 2>(half, half),
        _ => i32x4_shuffle::<3, 3, 3, 3>(half, half),
    }
}

/// Four values of 16 bits as the upper halves of 32.
#[inline]
#[target_feature(enable = "simd128")]
fn upper_halves(x: &[u16; 4]) -> v128 {
    // SAFETY: 8 bytes can be read behind the reference.
    let x = unsafe { v128_load64_zero(x.as_ptr().cast()) };
    i32x4_shl(u32x4_extend_low_u16x8(x), 16)
}

/// `2^n` for `n` in -126..=127.
#[inline]
#[target_feature(enable = "simd128")]
fn power_of_2(n: v128) -> v128 {
    i32x4_shl(i32x4_add(n, i32x4_splat(127)), 23)
}

/// Rows of four lanes of 32 bits become columns.
#[inline]
#[target_feature(enable = "simd128")]
fn transpose([a, b, c, d]: [v128; 4]) -> [v128; 4] {
    let (low, high) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
    let (low2, high2) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    [
        i32x4_shuffle::<0, 1, 4, 5>(low, low2),
        i32x4_shuffle::<2, 3, 6, 7>(low, low2),
        i32x4_shuffle::<0, 1, 4, 5>(high, high2),
        i32x4_shuffle::<2, 3, 6, 7>(high, high2),
    ]
}

/// Half-precision numbers in the upper 16 bits of each lane, the lower ones zero, as floats. As on SSE4.1.
#[inline]
#[target_feature(enable = "simd128")]
fn half_to_float(x: v128) -> v128 {
    const EXPONENT: i32 = 0x1F << 23;
    let x = v128_and(i32x4_shr(x, 3), i32x4_splat(0x8FFF_E000_u32 as i32));
    let scaled = f32x4_mul(x, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    // Infinity and NaN have all bits of the exponent set, before and after.
    let exponent = i32x4_splat(EXPONENT);
    let special = i32x4_eq(v128_and(x, exponent), exponent);
    v128_or(scaled, v128_and(special, i32x4_splat(0xFF << 23)))
}

/// Floats as half-precision numbers in the lower 16 bits of each lane, rounded to nearest, ties to even. As on SSE4.1.
#[inline]
#[target_feature(enable = "simd128")]
fn float_to_half(x: v128) -> v128 {
    const NORMAL: i32 = (127 - 14) << 23;
    const TOO_LARGE: i32 = (127 + 16) << 23;
    let size = v128_and(x, i32x4_splat(0x7FFF_FFFF));
    let odd = v128_and(u32x4_shr(size, 13), i32x4_splat(1));
    let rebias_and_round = i32x4_splat(0xFFF - (112 << 23));
    let normal = u32x4_shr(i32x4_add(i32x4_add(size, rebias_and_round), odd), 13);
    // Next to one half floats are as far apart as subnormal halves: the addition rounds.
    let one_half = f32x4_splat(0.5);
    let subnormal = i32x4_sub(f32x4_add(size, one_half), one_half);
    let is_nan = i32x4_gt(size, i32x4_splat(0xFF << 23));
    let special = v128_or(i32x4_splat(0x7C00), v128_and(is_nan, i32x4_splat(0x200)));
    let half = v128_bitselect(subnormal, normal, i32x4_lt(size, i32x4_splat(NORMAL)));
    let half = v128_bitselect(special, half, i32x4_gt(size, i32x4_splat(TOO_LARGE - 1)));
    v128_or(half, v128_and(u32x4_shr(x, 16), i32x4_splat(0x8000)))
}
