//! The formats with blocks of 32: four blocks are a step.

use super::load::{bytes8, bytes16, bytes32, half_to_float, words8};
use super::quantized::{Factors, Step};
use crate::layout::*;
use crate::x86::shared::{BIT3, BIT7, LanePlaces, part};
use core::arch::x86_64::*;

macro_rules! step {
    ($block:ty { $($constant:ident: $ty:ty = $value:expr),* } $b:ident => $codes:expr, $m:expr) => {
        impl Step for [$block; 4] {
            const QUADS: usize = 1;
            $(const $constant: $ty = $value;)*

            #[inline]
            #[target_feature(enable = "sse4.1")]
            unsafe fn codes(&self, g: usize) -> [__m128i; 2] {
                let $b = &self[g];
                $codes
            }

            #[inline]
            #[target_feature(enable = "sse4.1")]
            unsafe fn factors(&self, _: usize) -> Factors {
                let ones = _mm_set1_epi16(1);
                let $b = self.each_ref();
                Factors { d: halves($b.map(|b| b.d)), sub: ones, m: $m, mins: ones }
            }
        }
    };
}

step!(BlockQ4_0 { CENTRE: i16 = 8 } b => nibbles(&b.qs), _mm_setzero_ps());
step!(BlockQ4_1 { MINS: bool = true } b => nibbles(&b.qs), halves(b.map(|b| b.m)));
step!(BlockQ5_0 { CENTRE: i16 = 16 } b => five_bits(&b.qs, b.qh), _mm_setzero_ps());
step!(BlockQ5_1 { MINS: bool = true } b => five_bits(&b.qs, b.qh), halves(b.map(|b| b.m)));
step!(BlockQ8_0 { SIGNED: bool = true } b => bytes32(&b.qs), _mm_setzero_ps());
step!(BlockBit3 { CENTRE: i16 = 4 } b => bit3(bytemuck::bytes_of(b)), _mm_setzero_ps());
// Signed: the driver has no room for unsigned codes of 7 bits.
step!(BlockBit7 { SIGNED: bool = true } b => lane(7, bytemuck::bytes_of(b)), _mm_setzero_ps());
step!(BlockIq4Nl { SIGNED: bool = true } b => from_table(nibbles(&b.qs)), _mm_setzero_ps());

/// The 32 nibbles of 16 bytes: low ones first.
#[inline]
#[target_feature(enable = "sse4.1")]
fn nibbles(qs: &[u8; 16]) -> [__m128i; 2] {
    let (qs, mask) = (bytes16(qs), _mm_set1_epi8(15));
    [_mm_and_si128(qs, mask), _mm_and_si128(_mm_srli_epi16::<4>(qs), mask)]
}

/// Nibbles with bit `i` of `qh` as bit 4 of byte `i`.
#[inline]
#[target_feature(enable = "sse4.1")]
fn five_bits(qs: &[u8; 16], qh: [u8; 4]) -> [__m128i; 2] {
    let (qh, fifth) = (_mm_cvtsi32_si128(i32::from_le_bytes(qh)), _mm_set1_epi8(16));
    let [low, high] = nibbles(qs);
    [
        _mm_or_si128(low, _mm_and_si128(spread_bits(qh, 0), fifth)),
        _mm_or_si128(high, _mm_and_si128(spread_bits(qh, 2), fifth)),
    ]
}

/// Bit `i` of the bytes from number `first` on as all bits of byte `i`.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn spread_bits(bytes: __m128i, first: i8) -> __m128i {
    let own_byte = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let own_byte = _mm_add_epi8(own_byte, _mm_set1_epi8(first));
    let own_bit = _mm_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    _mm_cmpeq_epi8(_mm_and_si128(_mm_shuffle_epi8(bytes, own_byte), own_bit), own_bit)
}

/// The codes of a block of 3 bits, unsigned.
#[inline]
#[target_feature(enable = "sse4.1")]
fn bit3(block: &[u8]) -> [__m128i; 2] {
    let [low, high]: [&[u8; 8]; 2] = [part(block, BIT3.starts[0]), part(block, BIT3.starts[1])];
    [lane_codes::<13>(bytes8(low), &BIT3, 0), lane_codes::<13>(bytes8(high), &BIT3, 1)]
}

/// The codes of a block of 7 bits, unsigned.
#[inline]
#[target_feature(enable = "sse4.1")]
fn bit7(block: &[u8]) -> [__m128i; 2] {
    let [low, high]: [&[u8; 16]; 2] = [part(block, BIT7.starts[0]), part(block, BIT7.starts[1])];
    [lane_codes::<9>(bytes16(low), &BIT7, 0), lane_codes::<9>(bytes16(high), &BIT7, 1)]
}

/// The signed codes of a block of a precision lane of `bits` bits.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn lane(bits: u32, block: &[u8]) -> [__m128i; 2] {
    let [low, high] = match bits {
        3 => bit3(block),
        5 => five_bits(part(block, 6), *part(block, 2)),
        _ => bit7(block),
    };
    let center = _mm_set1_epi8(1 << (bits - 1));
    [_mm_sub_epi8(low, center), _mm_sub_epi8(high, center)]
}

/// Sixteen codes of `16 - DOWN` bits of half `half` of a block.
#[inline]
#[target_feature(enable = "sse4.1")]
fn lane_codes<const DOWN: i32>(bytes: __m128i, places: &LanePlaces, half: usize) -> __m128i {
    let mut words = [bytes; 2];
    for (e, words) in words.iter_mut().enumerate() {
        let pairs = _mm_shuffle_epi8(bytes, bytes16(&places.index[e].as_chunks().0[half]));
        let up = words8(&places.up[e].as_chunks().0[half]);
        *words = _mm_srli_epi16::<DOWN>(_mm_mullo_epi16(pairs, up));
    }
    _mm_packus_epi16(words[0], words[1])
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn from_table([low, high]: [__m128i; 2]) -> [__m128i; 2] {
    let values = bytes16(&IQ4_NL_VALUES);
    [_mm_shuffle_epi8(values, low), _mm_shuffle_epi8(values, high)]
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn halves(x: [Half; 4]) -> __m128 {
    let [a, b, c, d] = x.map(|x| x.to_bits() as i16);
    half_to_float(_mm_setr_epi16(0, a, 0, b, 0, c, 0, d))
}
