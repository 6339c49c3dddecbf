//! The formats with blocks of 32: four blocks are a step.

use super::Bits128;
use super::quantized::{Factors, Step};
use crate::generic::lanes::{BIT3, BIT7, LanePlaces, part};
use crate::layout::*;

macro_rules! step {
    (
        $block:ty { $($constant:ident: $ty:ty = $value:expr),* }
        |$v:ident, $b:ident| $codes:expr; d: $d:expr; m: $m:expr;
    ) => {
        impl Step for [$block; 4] {
            const QUADS: usize = 1;
            $(const $constant: $ty = $value;)*

            #[inline(always)]
            fn codes<V: Bits128>(&self, $v: V, g: usize) -> [V::I; 2] {
                let $b = &self[g];
                $codes
            }

            #[inline(always)]
            fn factors<V: Bits128>(&self, $v: V, _: usize) -> Factors<V> {
                let ones = $v.splat16(1);
                let $b = self.each_ref();
                Factors { d: $d, sub: ones, m: $m, mins: ones }
            }
        }
    };
    ($block:ty { $($constants:tt)* } |$v:ident, $b:ident| $codes:expr) => {
        step! {
            $block { $($constants)* } |$v, $b| $codes;
            d: $v.f16s(&$b.map(|b| b.d.to_bits()));
            m: $v.splat(0.0);
        }
    };
    ($block:ty { $($constants:tt)* } |$v:ident, $b:ident| $codes:expr, m) => {
        step! {
            $block { $($constants)* } |$v, $b| $codes;
            d: $v.f16s(&$b.map(|b| b.d.to_bits()));
            m: $v.f16s(&$b.map(|b| b.m.to_bits()));
        }
    };
}

step!(BlockQ4_0 { CENTRE: i16 = 8 } | v, b | nibbles(v, &b.qs));
step!(BlockQ4_1 { MINS: bool = true } | v, b | nibbles(v, &b.qs), m);
step!(BlockQ5_0 { CENTRE: i16 = 16 } | v, b | five_bits(v, &b.qs, b.qh));
step!(BlockQ5_1 { MINS: bool = true } | v, b | five_bits(v, &b.qs, b.qh), m);
step!(BlockQ8_0 { SIGNED: bool = true } | v, b | v.load32(bytemuck::cast_ref(&b.qs)));
step!(BlockBit3 { CENTRE: i16 = 4 } | v, b | bit3(v, bytemuck::bytes_of(b)));
// Signed: the driver has no room for unsigned codes of 7 bits.
step!(BlockBit7 { SIGNED: bool = true } | v, b | lane(v, 7, bytemuck::bytes_of(b)));
step!(BlockIq4Nl { SIGNED: bool = true } | v, b | from_table(v, &IQ4_NL_VALUES, nibbles(v, &b.qs)));
step! {
    BlockMxFp4 { SIGNED: bool = true } |v, b| from_table(v, &FP4_VALUES, nibbles(v, &b.qs));
    d: v.load(&b.map(|b| b.scale()));
    m: v.splat(0.0);
}

/// The 32 nibbles of 16 bytes: low ones first.
#[inline(always)]
pub(super) fn nibbles<V: Bits128>(v: V, qs: &[u8; 16]) -> [V::I; 2] {
    let (qs, mask) = (v.load16(qs), v.splat8(15));
    [v.and(qs, mask), v.upper_nibbles(qs)]
}

/// Nibbles with bit `i` of `qh` as bit 4 of byte `i`.
#[inline(always)]
fn five_bits<V: Bits128>(v: V, qs: &[u8; 16], qh: [u8; 4]) -> [V::I; 2] {
    let (qh, fifth) = (v.splat32(i32::from_le_bytes(qh)), v.splat8(16));
    let [low, high] = nibbles(v, qs);
    [v.or(low, v.and(spread_bits(v, qh, 0), fifth)), v.or(high, v.and(spread_bits(v, qh, 2), fifth))]
}

/// Bit `i` of the bytes from number `first` on as all bits of byte `i`.
#[inline(always)]
pub(super) fn spread_bits<V: Bits128>(v: V, bytes: V::I, first: i8) -> V::I {
    let own_byte = v.load16(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
    let own_byte = v.add8(own_byte, v.splat8(first));
    let own_bit = v.load16(&[1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);
    v.eq8(v.and(v.look_up(bytes, own_byte), own_bit), own_bit)
}

/// The codes of a block of 3 bits, unsigned.
#[inline(always)]
fn bit3<V: Bits128>(v: V, block: &[u8]) -> [V::I; 2] {
    let [low, high]: [&[u8; 8]; 2] = [part(block, BIT3.starts[0]), part(block, BIT3.starts[1])];
    [lane_codes(v, v.load8(low), 13, &BIT3, 0), lane_codes(v, v.load8(high), 13, &BIT3, 1)]
}

/// The codes of a block of 7 bits, unsigned.
#[inline(always)]
fn bit7<V: Bits128>(v: V, block: &[u8]) -> [V::I; 2] {
    let [low, high]: [&[u8; 16]; 2] = [part(block, BIT7.starts[0]), part(block, BIT7.starts[1])];
    [lane_codes(v, v.load16(low), 9, &BIT7, 0), lane_codes(v, v.load16(high), 9, &BIT7, 1)]
}

/// The signed codes of a block of a precision lane of `bits` bits.
#[inline(always)]
pub(super) fn lane<V: Bits128>(v: V, bits: u32, block: &[u8]) -> [V::I; 2] {
    let [low, high] = match bits {
        3 => bit3(v, block),
        5 => five_bits(v, part(block, 6), *part(block, 2)),
        _ => bit7(v, block),
    };
    let center = v.splat8(1 << (bits - 1));
    [v.sub8(low, center), v.sub8(high, center)]
}

/// Sixteen codes of `16 - down` bits of half `half` of a block.
#[inline(always)]
fn lane_codes<V: Bits128>(v: V, bytes: V::I, down: u32, places: &LanePlaces, half: usize) -> V::I {
    let mut words = [bytes; 2];
    for (e, words) in words.iter_mut().enumerate() {
        let pairs = v.look_up(bytes, v.load16(&places.index[e].as_chunks().0[half]));
        let up: &[i16; 8] = &places.up[e].as_chunks().0[half];
        *words = v.shr16(v.mul16(pairs, v.load16(bytemuck::cast_ref(up))), down);
    }
    v.narrow_u16(words[0], words[1])
}

/// The values that codes of four bits stand for.
#[inline(always)]
pub(super) fn from_table<V: Bits128>(v: V, values: &[i8; 16], [low, high]: [V::I; 2]) -> [V::I; 2] {
    let values = v.load16(bytemuck::cast_ref(values));
    [v.look_up(values, low), v.look_up(values, high)]
}
