//! The formats with blocks of 32: eight blocks are a step.

use super::load::{bytes8, bytes16, bytes32, floats, words16};
use super::quantized::{Factors, Step};
use crate::generic::lanes::{BIT3, BIT7, LanePlaces, part};
use crate::layout::*;
use core::arch::x86_64::*;

impl Step for [BlockQ4_0; 8] {
    const CENTRE: i8 = 8;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        nibbles(&self[g].qs)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales(halves(self.each_ref().map(|b| b.d)))
    }
}

impl Step for [BlockQ4_1; 8] {
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        nibbles(&self[g].qs)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales_and_mins(halves(self.each_ref().map(|b| b.d)), halves(self.each_ref().map(|b| b.m)))
    }
}

impl Step for [BlockQ5_0; 8] {
    const CENTRE: i8 = 16;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        _mm256_or_si256(nibbles(&self[g].qs), fifth_bits(self[g].qh))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales(halves(self.each_ref().map(|b| b.d)))
    }
}

impl Step for [BlockQ5_1; 8] {
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        _mm256_or_si256(nibbles(&self[g].qs), fifth_bits(self[g].qh))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales_and_mins(halves(self.each_ref().map(|b| b.d)), halves(self.each_ref().map(|b| b.m)))
    }
}

impl Step for [BlockQ8_0; 8] {
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        bytes32(&self[g].qs)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales(halves(self.each_ref().map(|b| b.d)))
    }
}

impl Step for [BlockIq4Nl; 8] {
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        let values = _mm256_broadcastsi128_si256(bytes16(&IQ4_NL_VALUES));
        _mm256_shuffle_epi8(values, nibbles(&self[g].qs))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales(halves(self.each_ref().map(|b| b.d)))
    }
}

impl Step for [BlockMxFp4; 8] {
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes16(&FP4_VALUES)), nibbles(&self[g].qs))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let mut d = [0.0; 8];
        for (d, block) in d.iter_mut().zip(self) {
            *d = block.scale();
        }
        scales(floats(&d))
    }
}

impl Step for [BlockBit3; 8] {
    const CENTRE: i8 = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        bit3(bytemuck::bytes_of(&self[g]))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales(halves(self.each_ref().map(|b| b.d)))
    }
}

impl Step for [BlockBit7; 8] {
    const CENTRE: i8 = 64;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        bit7(bytemuck::bytes_of(&self[g]))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        scales(halves(self.each_ref().map(|b| b.d)))
    }
}

/// The signed codes of a block of a precision lane of `bits` bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn lane(bits: u32, block: &[u8]) -> __m256i {
    let codes = match bits {
        3 => bit3(block),
        5 => _mm256_or_si256(nibbles(part(block, 6)), fifth_bits(*part(block, 2))),
        _ => bit7(block),
    };
    _mm256_sub_epi8(codes, _mm256_set1_epi8(1 << (bits - 1)))
}

/// The codes of a block of 3 bits, unsigned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bit3(block: &[u8]) -> __m256i {
    let [low, high] = [part(block, BIT3.starts[0]), part(block, BIT3.starts[1])];
    lane_codes::<13>(_mm256_set_m128i(bytes8(high), bytes8(low)), &BIT3)
}

/// The codes of a block of 7 bits, unsigned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bit7(block: &[u8]) -> __m256i {
    let [low, high] = [part(block, BIT7.starts[0]), part(block, BIT7.starts[1])];
    lane_codes::<9>(_mm256_set_m128i(bytes16(high), bytes16(low)), &BIT7)
}

/// The 32 codes of `16 - DOWN` bits of a block whose halves are in the lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lane_codes<const DOWN: i32>(halves: __m256i, places: &LanePlaces) -> __m256i {
    let mut words = [halves; 2];
    for (e, words) in words.iter_mut().enumerate() {
        let pairs = _mm256_shuffle_epi8(halves, bytes32(&places.index[e]));
        *words = _mm256_srli_epi16::<DOWN>(_mm256_mullo_epi16(pairs, words16(&places.up[e])));
    }
    _mm256_packus_epi16(words[0], words[1])
}

/// The 32 nibbles of 16 bytes: low ones first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn nibbles(qs: &[u8; 16]) -> __m256i {
    let qs = bytes16(qs);
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(qs), qs), _mm256_set1_epi8(15))
}

/// Bit `i` of `qh` as bit 4 of byte `i`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fifth_bits(qh: [u8; 4]) -> __m256i {
    _mm256_and_si256(spread_bits(qh), _mm256_set1_epi8(16))
}

/// Bit `i` of `bits` as all bits of byte `i`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn spread_bits(bits: [u8; 4]) -> __m256i {
    const OWN_BYTE: [u8; 32] = {
        let mut bytes = [0; 32];
        let mut i = 0;
        while i < 32 {
            bytes[i] = i as u8 / 8;
            i += 1;
        }
        bytes
    };
    let own_byte = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(bits)), bytes32(&OWN_BYTE));
    let own_bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    _mm256_cmpeq_epi8(_mm256_and_si256(own_byte, own_bit), own_bit)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(x: [Half; 8]) -> __m256 {
    _mm256_cvtph_ps(bytes16(&bytemuck::cast::<[Half; 8], [u8; 16]>(x)))
}

/// A scale per group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales(d: __m256) -> Factors {
    scales_and_mins(d, _mm256_setzero_ps())
}

/// A scale and a minimum per group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales_and_mins(d: __m256, m: __m256) -> Factors {
    let ones = _mm256_set1_epi16(1);
    Factors { d, sub: ones, m, mins: ones }
}
