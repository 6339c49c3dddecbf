//! The K formats: one block of 256 is a step.

use super::load::{bytes8, bytes32, half_to_float};
use super::quantized::{Factors, Step, SubScales};
use crate::layout::*;
use crate::x86::shared::{k_scales, q3_k_scales};
use core::arch::x86_64::*;

impl Step for BlockQ2K {
    const QUADS: usize = 2;
    const SUB_SCALES: SubScales = SubScales::Half;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn codes(&self, g: usize) -> [__m128i; 2] {
        two_bits(&self.qs, g)
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn factors(&self, quad: usize) -> Factors {
        let both = _mm_cvtepu8_epi16(bytes8(&self.scales.as_chunks().0[quad]));
        let sub = _mm_and_si128(both, _mm_set1_epi16(15));
        Factors { d: half(self.d), sub, m: minus(half(self.dmin)), mins: _mm_srli_epi16::<4>(both) }
    }
}

impl Step for BlockQ3K {
    const QUADS: usize = 2;
    const SUB_SCALES: SubScales = SubScales::Half;
    const CENTRE: i16 = 4;

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn codes(&self, g: usize) -> [__m128i; 2] {
        or(two_bits(&self.qs, g), masked(bytes32(&self.hmask), g as i32 - 2, 4))
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn factors(&self, quad: usize) -> Factors {
        let sub = bytemuck::cast::<[u32; 4], [[u8; 8]; 2]>(q3_k_scales(self.scales))[quad];
        let sub = _mm_sub_epi16(_mm_cvtepu8_epi16(bytes8(&sub)), _mm_set1_epi16(32));
        Factors { d: half(self.d), sub, m: _mm_setzero_ps(), mins: sub }
    }
}

impl Step for BlockQ4K {
    const QUADS: usize = 2;
    const SUB_SCALES: SubScales = SubScales::Group;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn codes(&self, g: usize) -> [__m128i; 2] {
        k_nibbles(&self.qs, g)
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn factors(&self, quad: usize) -> Factors {
        k_factors(self.d, self.dmin, self.scales, quad)
    }
}

impl Step for BlockQ5K {
    const QUADS: usize = 2;
    const SUB_SCALES: SubScales = SubScales::Group;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn codes(&self, g: usize) -> [__m128i; 2] {
        or(k_nibbles(&self.qs, g), masked(bytes32(&self.qh), g as i32 - 4, 16))
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn factors(&self, quad: usize) -> Factors {
        k_factors(self.d, self.dmin, self.scales, quad)
    }
}

impl Step for BlockQ6K {
    const QUADS: usize = 2;
    const SUB_SCALES: SubScales = SubScales::Half;
    const CENTRE: i16 = 32;

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn codes(&self, g: usize) -> [__m128i; 2] {
        let (half, j) = (g / 4, g % 4);
        let low = bytes32(&self.ql.as_chunks().0[half * 2 + j % 2]);
        let high = bytes32(&self.qh.as_chunks().0[half]);
        or(masked(low, (j / 2 * 4) as i32, 15), masked(high, 2 * j as i32 - 4, 48))
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn factors(&self, quad: usize) -> Factors {
        let sub = _mm_cvtepi8_epi16(bytes8(&self.scales.as_chunks().0[quad]));
        Factors { d: half(self.d), sub, m: _mm_setzero_ps(), mins: sub }
    }
}

/// Each byte shifted right, or left for negative `by`, and masked; the mask must hide what crosses bytes.
#[inline]
#[target_feature(enable = "sse4.1")]
fn masked(x: [__m128i; 2], by: i32, mask: i8) -> [__m128i; 2] {
    let (mask, left, right) = (_mm_set1_epi8(mask), _mm_cvtsi32_si128(-by), _mm_cvtsi32_si128(by));
    let [a, b] = x;
    if by < 0 {
        [_mm_and_si128(_mm_sll_epi16(a, left), mask), _mm_and_si128(_mm_sll_epi16(b, left), mask)]
    } else {
        [_mm_and_si128(_mm_srl_epi16(a, right), mask), _mm_and_si128(_mm_srl_epi16(b, right), mask)]
    }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn or(a: [__m128i; 2], b: [__m128i; 2]) -> [__m128i; 2] {
    [_mm_or_si128(a[0], b[0]), _mm_or_si128(a[1], b[1])]
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn two_bits(qs: &[u8; 64], g: usize) -> [__m128i; 2] {
    masked(bytes32(&qs.as_chunks().0[g / 4]), (g % 4 * 2) as i32, 3)
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn k_nibbles(qs: &[u8; 128], g: usize) -> [__m128i; 2] {
    masked(bytes32(&qs.as_chunks().0[g / 2]), (g % 2 * 4) as i32, 15)
}

/// The factors of Q4_K and Q5_K: 6-bit scales and minima for each group, here twice per group.
#[inline]
#[target_feature(enable = "sse4.1")]
fn k_factors(d: Half, dmin: Half, scales: [u8; 12], quad: usize) -> Factors {
    let [sub, mins] = k_scales(scales);
    let twice = |x: u32| {
        let x = _mm_cvtsi32_si128(x as i32);
        _mm_cvtepu8_epi16(_mm_unpacklo_epi8(x, x))
    };
    Factors { d: half(d), sub: twice(sub[quad]), m: minus(half(dmin)), mins: twice(mins[quad]) }
}

/// A half-precision number, everywhere.
#[inline]
#[target_feature(enable = "sse4.1")]
fn half(x: Half) -> __m128 {
    half_to_float(_mm_set1_epi32(i32::from(x.to_bits()) << 16))
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn minus(x: __m128) -> __m128 {
    _mm_xor_ps(x, _mm_set1_ps(-0.0))
}
