//! The i-quants: blocks of 256 values whose codes are vectors of a codebook.

use super::block::{Block, Groups, Half, Scales, blocks, codes_of_groups};
use super::codebook_tables as tables;
use crate::BlockFormat;
use half::f16;

blocks! {
    /// 256 values `d * (2 scale + 1) / 8 * code`, scale of 4 bits per 32 values. Codes are vectors of eight values out of
    /// a codebook of 256, with signs.
    BlockIq2Xxs: 66 {
        /// Scale of the scales.
        d: Half,
        /// For each 32 values four numbers of vectors, then as a little-endian u32 seven signs of each vector and the
        /// scale. The eighth sign makes the number of negative ones even.
        qs: [[u8; 8]; 8],
    }
    /// 256 values `d * (2 scale + 1) / 8 * code`, scale of 4 bits per 16 values. Codes are vectors of eight values out of
    /// a codebook of 512, with signs.
    BlockIq2Xs: 74 {
        /// Scale of the scales.
        d: Half,
        /// Little-endian: 9 bits are a vector's number, the others seven signs as in [`BlockIq2Xxs`].
        qs: [[u8; 2]; 32],
        /// Two scales, the first in the low nibble.
        scales: [u8; 8],
    }
    /// 256 values `d * (2 scale + 1) / 8 * code`, scale of 4 bits per 16 values. Codes are vectors of eight values out of
    /// a codebook of 1024, with signs.
    BlockIq2S: 82 {
        /// Scale of the scales.
        d: Half,
        /// Bits 0..8 of each vector's number.
        qs: [u8; 32],
        /// A sign per value: bit `i` of a byte belongs to value `i` of its vector.
        signs: [u8; 32],
        /// Bits 8..10 of four vectors' numbers.
        qh: [u8; 8],
        /// Two scales, the first in the low nibble.
        scales: [u8; 8],
    }
    /// 256 values `d * (2 scale + 1) / 4 * code`, scale of 4 bits per 32 values. Codes are vectors of four values out of a
    /// codebook of 256, with signs.
    BlockIq3Xxs: 98 {
        /// Scale of the scales.
        d: Half,
        /// Numbers of vectors.
        qs: [u8; 64],
        /// For each 32 values seven signs per eight values and the scale, as in [`BlockIq2Xxs`].
        signs: [[u8; 4]; 8],
    }
    /// 256 values `d * (2 scale + 1) * code`, scale of 4 bits per 32 values. Codes are vectors of four values out of a
    /// codebook of 512, with signs.
    BlockIq3S: 110 {
        /// Scale of the scales.
        d: Half,
        /// Bits 0..8 of each vector's number.
        qs: [u8; 64],
        /// Bit 8 of eight vectors' numbers.
        qh: [u8; 8],
        /// A sign per value: bit `i` of a byte belongs to value `i` of eight.
        signs: [u8; 32],
        /// Two scales, the first in the low nibble.
        scales: [u8; 4],
    }
    /// 256 values `d * (2 scale + 1) * (code + delta)`, scale of 3 bits and a delta of an eighth or minus that per 32
    /// values. Codes are vectors of eight values out of a codebook of 2048.
    BlockIq1S: 50 {
        /// Scale of the scales.
        d: Half,
        /// Bits 0..8 of each vector's number.
        qs: [u8; 32],
        /// Little-endian: bits 8..11 of four vectors' numbers, the scale, and the sign of delta.
        qh: [[u8; 2]; 8],
    }
    /// 256 values `d * (2 scale + 1) * (code + delta)`, scale of 3 bits per 16 values and a delta of an eighth or minus
    /// that per 8. Codes are vectors of eight values out of a codebook of 2048.
    BlockIq1M: 56 {
        /// Bits 0..8 of each vector's number.
        qs: [u8; 32],
        /// A nibble per vector, low ones first: bits 8..11 of its number and the sign of delta.
        qh: [u8; 16],
        /// Little-endian: four scales each, and 4 bits of the half-precision scale of the scales, lowest first.
        scales: [[u8; 2]; 4],
    }
}

/// Seven signs of eight values; the eighth makes the number of negative ones even.
#[inline(always)]
fn eighth_sign(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Eight magnitudes with signs, of which bit `i` belongs to value `i`.
#[inline(always)]
fn signed(magnitudes: [i8; 8], signs: u8) -> [i8; 8] {
    // Each byte has its own bit, then all bits where that is set. Magnitudes are positive, so nothing is carried.
    let own = (u64::from(signs) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    let ones = (own + 0x7F7F_7F7F_7F7F_7F7F) >> 7 & 0x0101_0101_0101_0101;
    let magnitudes = u64::from_le_bytes(magnitudes.map(|m| m as u8));
    ((magnitudes ^ (ones * 0xFF)) + ones).to_le_bytes().map(|q| q as i8)
}

/// The vectors of a group of 32 values.
#[inline(always)]
fn group(vector: impl Fn(usize) -> [i8; 8]) -> [i8; 32] {
    bytemuck::cast([vector(0), vector(1), vector(2), vector(3)])
}

/// Two vectors of four.
#[inline(always)]
fn pair(a: [i8; 4], b: [i8; 4]) -> [i8; 8] {
    bytemuck::cast([a, b])
}

/// `2 scale + 1` for 4-bit scales, the low nibble of each byte first. `each` is how many groups of 16 have the same.
fn odd_nibbles(scales: &[u8], each: usize) -> [f32; 16] {
    core::array::from_fn(|i| {
        let i = i / each;
        f32::from((scales[i / 2] >> (4 * (i % 2)) & 15) * 2 + 1)
    })
}

/// `2 scale + 1` for the scales in the upper nibble of each group's signs.
fn odd_tops(signs: impl Fn(usize) -> u8) -> [f32; 16] {
    core::array::from_fn(|i| f32::from((signs(i / 2) >> 4) * 2 + 1))
}

/// `d * factor`, with sub-scales and no minima.
fn scaled(d: f32, factor: f32, sub: [f32; 16]) -> Scales {
    Scales { d: d * factor, m: 0.0, sub, min: [0; 16] }
}

macro_rules! codebook {
    ($block:ident: $format:ident; |$b:ident| $scales:expr; |$g:ident| $group:expr) => {
        impl Block for $block {
            const FORMAT: BlockFormat = BlockFormat::$format;
            const HAS_MIN: bool = false;

            fn scales(&self) -> Scales {
                let $b = self;
                $scales
            }

            fn codes(&self, out: &mut [i8]) {
                codes_of_groups(self, out);
            }
        }

        impl Groups for $block {
            #[inline(always)]
            fn group(&self, $g: usize) -> [i8; 32] {
                let $b = self;
                $group
            }
        }
    };
}

codebook!(BlockIq2Xxs: Iq2Xxs; |b| scaled(b.d.to_f32(), 0.125, odd_tops(|g| b.qs[g][7])); |g| {
    let [numbers, signs]: [[u8; 4]; 2] = bytemuck::cast(b.qs[g]);
    let signs = u32::from_le_bytes(signs);
    group(|i| signed(tables::IQ2_XXS[usize::from(numbers[i])], eighth_sign(signs >> (7 * i))))
});

codebook!(BlockIq2Xs: Iq2Xs; |b| scaled(b.d.to_f32(), 0.125, odd_nibbles(&b.scales, 1)); |g| {
    group(|i| {
        let both = u16::from_le_bytes(b.qs[4 * g + i]);
        signed(tables::IQ2_XS[usize::from(both) & 511], eighth_sign(u32::from(both >> 9)))
    })
});

codebook!(BlockIq2S: Iq2S; |b| scaled(b.d.to_f32(), 0.125, odd_nibbles(&b.scales, 1)); |g| {
    group(|i| {
        let high = usize::from(b.qh[g]) << (8 - 2 * i) & 0x300;
        signed(tables::IQ2_S[usize::from(b.qs[4 * g + i]) | high], b.signs[4 * g + i])
    })
});

codebook!(BlockIq3Xxs: Iq3Xxs; |b| scaled(b.d.to_f32(), 0.25, odd_tops(|g| b.signs[g][3])); |g| {
    let signs = u32::from_le_bytes(b.signs[g]);
    let vector = |i: usize| tables::IQ3_XXS[usize::from(b.qs[8 * g + i])];
    group(|i| signed(pair(vector(2 * i), vector(2 * i + 1)), eighth_sign(signs >> (7 * i))))
});

codebook!(BlockIq3S: Iq3S; |b| scaled(b.d.to_f32(), 1.0, odd_nibbles(&b.scales, 2)); |g| {
    let vector = |i: usize| {
        let high = usize::from(b.qh[g]) << (8 - i) & 0x100;
        tables::IQ3_S[usize::from(b.qs[8 * g + i]) | high]
    };
    group(|i| signed(pair(vector(2 * i), vector(2 * i + 1)), b.signs[4 * g + i]))
});

// The codebook of these has values times eight, so that delta is one.

codebook!(BlockIq1S: Iq1S; |b| {
    let sub = core::array::from_fn(|i| f32::from((b.qh[i / 2][1] >> 4 & 7) * 2 + 1));
    scaled(b.d.to_f32(), 0.125, sub)
}; |g| {
    let qh = u16::from_le_bytes(b.qh[g]);
    let delta = if qh & 0x8000 == 0 { 1 } else { -1 };
    group(|i| {
        let high = usize::from(qh >> (3 * i) & 7) << 8;
        tables::IQ1[usize::from(b.qs[4 * g + i]) | high].map(|q| q + delta)
    })
});

codebook!(BlockIq1M: Iq1M; |b| {
    let words = b.scales.map(u16::from_le_bytes);
    let d = (0..4).fold(0, |d, i| d | words[i] >> 12 << (4 * i));
    let sub = core::array::from_fn(|i| f32::from((words[i / 4] >> (3 * (i % 4)) & 7) * 2 + 1));
    scaled(f16::from_bits(d).to_f32(), 0.125, sub)
}; |g| {
    group(|i| {
        let nibble = b.qh[2 * g + i / 2] >> (4 * (i % 2));
        let delta = if nibble & 8 == 0 { 1 } else { -1 };
        tables::IQ1[usize::from(b.qs[4 * g + i]) | usize::from(nibble & 7) << 8].map(|q| q + delta)
    })
});
