//! Formats with blocks of 256: one block is a step.

use super::load::{bytes16, bytes32, half};
use super::quantized::{Factors, Step};
use super::small::nibbles;
use crate::generic::scales::{k_scales, q3_k_scales};
use crate::layout::*;
use core::arch::x86_64::*;

impl Step for BlockQ2K {
    const SUB_SCALES: bool = true;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        two_bits(&self.qs, g)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let both = _mm256_cvtepu8_epi16(bytes16(&self.scales));
        let sub = _mm256_and_si256(both, _mm256_set1_epi16(15));
        factors(half(self.d), sub, -half(self.dmin), _mm256_srli_epi16::<4>(both))
    }
}

impl Step for BlockQ3K {
    const SUB_SCALES: bool = true;
    const CENTRE: i8 = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        _mm256_or_si256(two_bits(&self.qs, g), masked(bytes32(&self.hmask), g as i32 - 2, 4))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let sub =
            _mm256_cvtepi8_epi16(bytes16(&bytemuck::cast::<[u32; 4], [u8; 16]>(q3_k_scales(self.scales))));
        let sub = _mm256_sub_epi16(sub, _mm256_set1_epi16(32));
        factors(half(self.d), sub, 0.0, sub)
    }
}

impl Step for BlockQ4K {
    const SUB_SCALES: bool = true;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        k_nibbles(&self.qs, g)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        k_factors(self.d, self.dmin, self.scales)
    }
}

impl Step for BlockQ5K {
    const SUB_SCALES: bool = true;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        _mm256_or_si256(k_nibbles(&self.qs, g), masked(bytes32(&self.qh), g as i32 - 4, 16))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        k_factors(self.d, self.dmin, self.scales)
    }
}

impl Step for BlockQ6K {
    const SUB_SCALES: bool = true;
    const CENTRE: i8 = 32;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        let (half, j) = (g / 4, g % 4);
        let low = bytes32(&self.ql.as_chunks().0[half * 2 + j % 2]);
        let high = bytes32(&self.qh.as_chunks().0[half]);
        _mm256_or_si256(masked(low, (j / 2 * 4) as i32, 15), masked(high, 2 * j as i32 - 4, 48))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let sub = _mm256_cvtepi8_epi16(bytes16(&self.scales));
        factors(half(self.d), sub, 0.0, sub)
    }
}

impl Step for BlockIq4Xs {
    const SIGNED: bool = true;
    const SUB_SCALES: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes16(&IQ4_NL_VALUES)), nibbles(&self.qs[g]))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let sub = iq4_xs_scales(self);
        let twice = _mm256_set_m128i(_mm_unpackhi_epi16(sub, sub), _mm_unpacklo_epi16(sub, sub));
        factors(half(self.d), twice, 0.0, twice)
    }
}

impl Step for BlockTq2_0 {
    const CENTRE: i8 = 1;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, g: usize) -> __m256i {
        two_bits(&self.qs, g)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn factors(&self) -> Factors {
        let none = _mm256_setzero_si256();
        factors(half(self.d), none, 0.0, none)
    }
}

/// The eight scales of IQ4_XS in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn iq4_xs_scales(block: &BlockIq4Xs) -> __m128i {
    let both = _mm_cvtsi32_si128(i32::from_le_bytes(block.scales_l));
    let nibbles = _mm_unpacklo_epi8(both, _mm_srli_epi16::<4>(both));
    let low = _mm_cvtepu8_epi16(_mm_and_si128(nibbles, _mm_set1_epi8(15)));
    // The two bits of each scale go to the top of its word, then down.
    let up = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
    let high = _mm_mullo_epi16(_mm_set1_epi16(i16::from_le_bytes(block.scales_h)), up);
    let high = _mm_slli_epi16::<4>(_mm_srli_epi16::<14>(high));
    _mm_sub_epi16(_mm_or_si128(low, high), _mm_set1_epi16(32))
}

/// Each byte shifted right, or left for negative `by`, and masked; the mask must hide what crosses bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn masked(x: __m256i, by: i32, mask: i8) -> __m256i {
    let shifted = if by < 0 {
        _mm256_sll_epi16(x, _mm_cvtsi32_si128(-by))
    } else {
        _mm256_srl_epi16(x, _mm_cvtsi32_si128(by))
    };
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two_bits(qs: &[u8; 64], g: usize) -> __m256i {
    masked(bytes32(&qs.as_chunks().0[g / 4]), (g % 4 * 2) as i32, 3)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn k_nibbles(qs: &[u8; 128], g: usize) -> __m256i {
    masked(bytes32(&qs.as_chunks().0[g / 2]), (g % 2 * 4) as i32, 15)
}

/// The factors of Q4_K and Q5_K: 6-bit scales and minima for each group, here twice per group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn k_factors(d: Half, dmin: Half, scales: [u8; 12]) -> Factors {
    let both = bytes16(&bytemuck::cast::<[[u32; 2]; 2], [u8; 16]>(k_scales(scales)));
    let twice = |x: __m128i| _mm256_cvtepu8_epi16(x);
    factors(half(d), twice(_mm_unpacklo_epi8(both, both)), -half(dmin), twice(_mm_unpackhi_epi8(both, both)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn factors(d: f32, sub: __m256i, m: f32, mins: __m256i) -> Factors {
    Factors { d: _mm256_set1_ps(d), sub, m: _mm256_set1_ps(m), mins }
}
