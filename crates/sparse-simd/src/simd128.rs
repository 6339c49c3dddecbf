//! Kernels for WebAssembly with vectors of 128 bits, which a build has or has not: there is no detection.

use crate::generic::codes::{Dot, Ints, narrow_level};
use crate::simd::Simd;
use crate::table::Table;
use crate::{Kernels, Level, scalar};
use core::arch::wasm32::*;

narrow_level!(Simd128, "simd128", 2);

pub(crate) static KERNELS: Kernels = Kernels(TABLE);

const TABLE: Table = Table {
    level: Level::Simd128,
    formats: floats::formats::<Widening>(),
    prefers_interleaved: false,
    quantize: scalar::TABLE.quantize,
    quantize_rows: floats::quantize_rows,
    panels_f32: floats::panels_f32,
    panels_int8: floats::panels_int8,
    scan: floats::scan,
    dot_f32: floats::dot_f32,
    axpy_f32: floats::axpy_f32,
    to_f16: floats::to_f16,
    rms_norm: floats::rms_norm,
    hadamard: floats::hadamard,
    layer_norm: floats::layer_norm,
    softmax: floats::softmax,
    activate: floats::activate,
    activate_mul: floats::activate_mul,
    add: floats::add,
    // A plain loop, which compilers make vectors already.
    rope: scalar::TABLE.rope,
    rope_halves: floats::rope_halves,
};

/// Vectors of 128 bits.
#[derive(Clone, Copy)]
pub(crate) struct Simd128;

impl Simd128 {
    #[inline(always)]
    fn new() -> Self {
        Self
    }
}

impl Simd for Simd128 {
    type F = v128;
    type Floats = [f32; 4];
    type Halves = [u16; 4];
    type Square = [v128; 4];
    type Wide = [v128; 8];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [f32x4_splat(0.0); 4]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> v128 {
        f32x4_splat(x)
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        [f32x4_splat(x); 8]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> v128 {
        // SAFETY: 4 floats can be read behind the reference.
        unsafe { v128_load(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, x: v128, out: &mut [f32; 4]) {
        // SAFETY: 4 floats can be written behind the reference.
        unsafe { v128_store(out.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 4]) -> v128 {
        half_to_float(upper_halves(x))
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 4]) -> v128 {
        upper_halves(x)
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> v128 {
        assert!(x.len() == 4);
        f32x4(x[0].into(), x[1].into(), x[2].into(), x[3].into())
    }

    #[inline(always)]
    fn to_f16s(self, x: v128) -> [u16; 4] {
        let x = float_to_half(x);
        [
            u32x4_extract_lane::<0>(x),
            u32x4_extract_lane::<1>(x),
            u32x4_extract_lane::<2>(x),
            u32x4_extract_lane::<3>(x),
        ]
        .map(|x| x as u16)
    }

    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }

    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }

    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    fn div(self, a: v128, b: v128) -> v128 {
        f32x4_div(a, b)
    }

    /// Rounds twice: this level has no fused operation.
    #[inline(always)]
    fn fma(self, a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }

    #[inline(always)]
    fn min(self, a: v128, b: v128) -> v128 {
        // `b < a ? b : a` with the operands exchanged.
        f32x4_pmin(b, a)
    }

    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        f32x4_pmax(b, a)
    }

    #[inline(always)]
    fn abs(self, x: v128) -> v128 {
        f32x4_abs(x)
    }

    #[inline(always)]
    fn copysign(self, x: v128, sign: v128) -> v128 {
        v128_bitselect(sign, x, i32x4_splat(i32::MIN))
    }

    #[inline(always)]
    fn round(self, x: v128) -> v128 {
        f32x4_nearest(x)
    }

    #[inline(always)]
    fn scale(self, x: v128, n: v128) -> v128 {
        let n = i32x4_trunc_sat_f32x4(f32x4_nearest(n));
        let half = i32x4_shr(n, 1);
        f32x4_mul(f32x4_mul(x, power_of_2(half)), power_of_2(i32x4_sub(n, half)))
    }

    #[inline(always)]
    fn select_less(self, a: v128, b: v128, yes: v128, no: v128) -> v128 {
        v128_bitselect(yes, no, f32x4_lt(a, b))
    }

    #[inline(always)]
    fn sums(self, rows: [v128; 4]) -> [f32; 4] {
        let [a, b, c, d] = transpose(rows);
        let mut out = [0.0; 4];
        self.store(f32x4_add(f32x4_add(a, b), f32x4_add(c, d)), &mut out);
        out
    }

    #[inline(always)]
    fn transpose(self, rows: [v128; 4]) -> [v128; 4] {
        transpose(rows)
    }

    /// There is no such instruction.
    #[inline(always)]
    fn prefetch(self, _: &[u8]) {}
}

#[inline(always)]
fn transpose([a, b, c, d]: [v128; 4]) -> [v128; 4] {
    let (low, high) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
    let (low2, high2) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    [
        i64x2_shuffle::<0, 2>(low, low2),
        i64x2_shuffle::<1, 3>(low, low2),
        i64x2_shuffle::<0, 2>(high, high2),
        i64x2_shuffle::<1, 3>(high, high2),
    ]
}

/// Four values of 16 bits as the upper halves of 32.
#[inline(always)]
fn upper_halves(x: &[u16; 4]) -> v128 {
    // SAFETY: 8 bytes can be read behind the reference.
    u32x4_shl(unsafe { u32x4_load_extend_u16x4(x.as_ptr()) }, 16)
}

/// `2^n` for `n` in -126..=127.
#[inline(always)]
fn power_of_2(n: v128) -> v128 {
    i32x4_shl(i32x4_add(n, i32x4_splat(127)), 23)
}

/// Half-precision numbers in the upper 16 bits of each lane, the lower ones zero, as floats.
#[inline(always)]
fn half_to_float(x: v128) -> v128 {
    // Sign and fraction where floats have them; the exponent is five bits and its bias is short by 112. Scaling by
    // 2^112 mends the bias, of subnormal numbers too.
    let x = v128_and(i32x4_shr(x, 3), u32x4_splat(0x8FFF_E000));
    let scaled = f32x4_mul(x, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    // Infinity and NaN have all bits of the exponent set, before and after.
    let exponent = u32x4_splat(0x1F << 23);
    let special = i32x4_eq(v128_and(x, exponent), exponent);
    v128_or(scaled, v128_and(special, u32x4_splat(0xFF << 23)))
}

/// Floats as half-precision numbers in the lower 16 bits of each lane, rounded to nearest, ties to even.
#[inline(always)]
fn float_to_half(x: v128) -> v128 {
    const NORMAL: i32 = (127 - 14) << 23;
    const TOO_LARGE: i32 = (127 + 16) << 23;
    let size = v128_and(x, i32x4_splat(0x7FFF_FFFF));
    // 13 bits of the fraction go: just less than half of what is kept last rounds up, half does if that is odd.
    let odd = v128_and(u32x4_shr(size, 13), i32x4_splat(1));
    let rebias_and_round = i32x4_splat(0xFFF - (112 << 23));
    let normal = u32x4_shr(i32x4_add(i32x4_add(size, rebias_and_round), odd), 13);
    // Next to one half floats are as far apart as subnormal halves: the addition rounds.
    let one_half = f32x4_splat(0.5);
    let subnormal = i32x4_sub(f32x4_add(size, one_half), one_half);
    let is_nan = i32x4_gt(size, i32x4_splat(0xFF << 23));
    let special = v128_or(i32x4_splat(0x7C00), v128_and(is_nan, i32x4_splat(0x200)));
    let half = v128_bitselect(subnormal, normal, i32x4_lt(size, i32x4_splat(NORMAL)));
    let half = v128_bitselect(special, half, i32x4_ge(size, i32x4_splat(TOO_LARGE)));
    v128_or(half, v128_and(u32x4_shr(x, 16), i32x4_splat(0x8000)))
}

impl Ints for Simd128 {
    type I = v128;

    #[inline(always)]
    fn none(self) -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn bytes16(self, x: &[i8; 16]) -> v128 {
        // SAFETY: 16 bytes can be read behind the reference.
        unsafe { v128_load(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn ints(self, x: &[i32; 4]) -> v128 {
        // SAFETY: 4 integers can be read behind the reference.
        unsafe { v128_load(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_ints(self, x: v128, out: &mut [i32; 4]) {
        // SAFETY: 4 integers can be written behind the reference.
        unsafe { v128_store(out.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> v128 {
        i32x4_splat(x)
    }

    #[inline(always)]
    fn add_ints(self, a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }

    #[inline(always)]
    fn mul_ints(self, a: v128, b: v128) -> v128 {
        i32x4_mul(a, b)
    }

    #[inline(always)]
    fn totals(self, rows: [v128; 4]) -> v128 {
        let [a, b, c, d] = transpose(rows);
        i32x4_add(i32x4_add(a, b), i32x4_add(c, d))
    }

    #[inline(always)]
    fn to_floats(self, x: v128) -> v128 {
        f32x4_convert_i32x4(x)
    }

    #[inline(always)]
    fn to_ints(self, x: v128) -> v128 {
        i32x4_trunc_sat_f32x4(f32x4_nearest(x))
    }

    #[inline(always)]
    fn even(self, x: v128) -> v128 {
        i16x8_shr(i16x8_shl(x, 8), 8)
    }

    #[inline(always)]
    fn odd(self, x: v128) -> v128 {
        i16x8_shr(x, 8)
    }

    #[inline(always)]
    fn pair_products(self, a: v128, b: v128) -> v128 {
        i32x4_dot_i16x8(a, b)
    }
}

/// Bytes as integers of 16 bits, whose products are added in pairs.
enum Widening {}

impl Dot<Simd128> for Widening {
    #[inline(always)]
    fn add(_: Simd128, sums: v128, a: v128, b: v128) -> v128 {
        let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(a), i16x8_extend_low_i8x16(b));
        let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(a), i16x8_extend_high_i8x16(b));
        i32x4_add(sums, i32x4_add(low, high))
    }
}
