//! Formats with blocks of 256: one block is a step.

use super::Bits128;
use super::quantized::{Factors, Step, SubScales};
use super::small::{from_table, nibbles};
use crate::generic::scales::{k_scales, q3_k_scales};
use crate::layout::*;

macro_rules! step {
    (
        $block:ty { $($constant:ident: $ty:ty = $value:expr),* }
        |$v:ident, $b:ident, $g:ident| $codes:expr;
        |$quad:ident| $factors:expr
    ) => {
        impl Step for $block {
            const QUADS: usize = 2;
            $(const $constant: $ty = $value;)*

            #[inline(always)]
            fn codes<V: Bits128>(&self, $v: V, $g: usize) -> [V::I; 2] {
                let $b = self;
                $codes
            }

            #[inline(always)]
            fn factors<V: Bits128>(&self, $v: V, $quad: usize) -> Factors<V> {
                let $b = self;
                $factors
            }
        }
    };
}

step! {
    BlockQ2K { SUB_SCALES: SubScales = SubScales::Half, MINS: bool = true }
    |v, b, g| two_bits(v, &b.qs, g);
    |quad| {
        let both = v.widen_u8(v.load8(&b.scales.as_chunks().0[quad]));
        let sub = v.and(both, v.splat16(15));
        Factors { d: half(v, b.d), sub, m: minus(v, b.dmin), mins: v.shr16(both, 4) }
    }
}

step! {
    BlockQ3K { SUB_SCALES: SubScales = SubScales::Half, CENTRE: i16 = 4 }
    |v, b, g| or(v, two_bits(v, &b.qs, g), masked(v, v.load32(&b.hmask), g as i32 - 2, 4));
    |quad| {
        let sub = bytemuck::cast::<[u32; 4], [[u8; 8]; 2]>(q3_k_scales(b.scales))[quad];
        scaled(v, b.d, v.sub16(v.widen_u8(v.load8(&sub)), v.splat16(32)))
    }
}

step! {
    BlockQ4K { SUB_SCALES: SubScales = SubScales::Group, MINS: bool = true }
    |v, b, g| k_nibbles(v, &b.qs, g);
    |quad| k_factors(v, b.d, b.dmin, b.scales, quad)
}

step! {
    BlockQ5K { SUB_SCALES: SubScales = SubScales::Group, MINS: bool = true }
    |v, b, g| or(v, k_nibbles(v, &b.qs, g), masked(v, v.load32(&b.qh), g as i32 - 4, 16));
    |quad| k_factors(v, b.d, b.dmin, b.scales, quad)
}

step! {
    BlockQ6K { SUB_SCALES: SubScales = SubScales::Half, CENTRE: i16 = 32 }
    |v, b, g| {
        let (half, j) = (g / 4, g % 4);
        let low = v.load32(&b.ql.as_chunks().0[half * 2 + j % 2]);
        let high = v.load32(&b.qh.as_chunks().0[half]);
        or(v, masked(v, low, (j / 2 * 4) as i32, 15), masked(v, high, 2 * j as i32 - 4, 48))
    };
    |quad| scaled(v, b.d, v.widen_i8(v.load8(bytemuck::cast_ref(&b.scales.as_chunks::<8>().0[quad]))))
}

// Per half: sums of both halves of such codes do not fit 16 bits.
step! {
    BlockIq4Xs { SUB_SCALES: SubScales = SubScales::Half, SIGNED: bool = true }
    |v, b, g| from_table(v, &IQ4_NL_VALUES, nibbles(v, &b.qs[g]));
    |quad| {
        let sub = b.scales().sub.map(|sub| sub as i8);
        let sub = v.load8(bytemuck::cast_ref(&sub.as_chunks::<8>().0[quad]));
        scaled(v, b.d, v.widen_i8(sub))
    }
}

step! {
    BlockTq2_0 { CENTRE: i16 = 1 }
    |v, b, g| two_bits(v, &b.qs, g);
    |_quad| scaled(v, b.d, v.splat16(1))
}

/// Each byte shifted right, or left for negative `by`, and masked; the mask must hide what crosses bytes.
#[inline(always)]
fn masked<V: Bits128>(v: V, [a, b]: [V::I; 2], by: i32, mask: i8) -> [V::I; 2] {
    let mask = v.splat8(mask);
    if by < 0 {
        let by = by.unsigned_abs();
        [v.and(v.shl16(a, by), mask), v.and(v.shl16(b, by), mask)]
    } else {
        let by = by as u32;
        [v.and(v.shr16(a, by), mask), v.and(v.shr16(b, by), mask)]
    }
}

#[inline(always)]
fn or<V: Bits128>(v: V, a: [V::I; 2], b: [V::I; 2]) -> [V::I; 2] {
    [v.or(a[0], b[0]), v.or(a[1], b[1])]
}

#[inline(always)]
fn two_bits<V: Bits128>(v: V, qs: &[u8; 64], g: usize) -> [V::I; 2] {
    masked(v, v.load32(&qs.as_chunks().0[g / 4]), (g % 4 * 2) as i32, 3)
}

#[inline(always)]
fn k_nibbles<V: Bits128>(v: V, qs: &[u8; 128], g: usize) -> [V::I; 2] {
    masked(v, v.load32(&qs.as_chunks().0[g / 2]), (g % 2 * 4) as i32, 15)
}

/// The factors of Q4_K and Q5_K: 6-bit scales and minima for each group, here twice per group.
#[inline(always)]
fn k_factors<V: Bits128>(v: V, d: Half, dmin: Half, scales: [u8; 12], quad: usize) -> Factors<V> {
    let [sub, mins] = k_scales(scales);
    Factors { d: half(v, d), sub: twice(v, sub[quad]), m: minus(v, dmin), mins: twice(v, mins[quad]) }
}

/// Each of four bytes twice, in 16 bits.
#[inline(always)]
fn twice<V: Bits128>(v: V, x: u32) -> V::I {
    let x = v.widen_u8(v.splat32(x as i32));
    v.zip_low16(x, x)
}

/// No minima.
#[inline(always)]
fn scaled<V: Bits128>(v: V, d: Half, sub: V::I) -> Factors<V> {
    Factors { d: half(v, d), sub, m: v.splat(0.0), mins: sub }
}

/// A half-precision number, everywhere.
#[inline(always)]
fn half<V: Bits128>(v: V, x: Half) -> V::F {
    v.f16s(&[x.to_bits(); 4])
}

/// Minus a half-precision number, everywhere.
#[inline(always)]
fn minus<V: Bits128>(v: V, x: Half) -> V::F {
    v.f16s(&[x.to_bits() ^ 0x8000; 4])
}
