//! The K formats: blocks of 256 values with scales of their own for each 16 or 32.

use super::block::{Block, Half, Scales, blocks};
use crate::BlockFormat;
use crate::columns::{Code, Recipe, SubScales, plane};

blocks! {
    /// 256 values `d * scale * q - dmin * min`, `q` of 2 bits, scale and minimum of 4 bits per 16 values.
    BlockQ2K: 84 {
        /// Byte `s`: scale of sub-block `s` in the low nibble, its minimum in the high one.
        scales: [u8; 16],
        /// For each half of 128 values 32 bytes: bits `2j..2j+2` of byte `i` are code `32 j + i`.
        qs: [u8; 64],
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
    }
    /// 256 values `d * (scale - 32) * (q - 4)`, `q` of 3 bits, scale of 6 bits per 16 values.
    BlockQ3K: 110 {
        /// Bit 2 of the codes: bit `g` of byte `i` belongs to code `32 g + i`.
        hmask: [u8; 32],
        /// Bits 0..2: for each half of 128 values 32 bytes, bits `2j..2j+2` of byte `i` are code `32 j + i`.
        qs: [u8; 64],
        /// Sixteen 6-bit scales: low nibbles of bytes 0..8, then high ones, are their bits 0..4; bits 4..6 of
        /// scale `s` are bits `2(s/4)..` of byte `8 + s % 4`.
        scales: [u8; 12],
        /// Scale of the scales.
        d: Half,
    }
    /// 256 values `d * scale * q - dmin * min`, `q` of 4 bits, scale and minimum of 6 bits per 32 values.
    BlockQ4K: 144 {
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
        /// Eight scales and eight minima of 6 bits. The first four of each are the low 6 bits of bytes 0..4 and
        /// 4..8; of the last four, byte `8 + i` has the low nibbles (scale, then minimum), and the top two bits
        /// of bytes `i` and `4 + i` the rest.
        scales: [u8; 12],
        /// For each 64 values 32 bytes: code `i` in the low nibble of byte `i`, code `i + 32` in the high one.
        qs: [u8; 128],
    }
    /// 256 values `d * scale * q - dmin * min`, `q` of 5 bits, scale and minimum of 6 bits per 32 values.
    BlockQ5K: 176 {
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
        /// Scales and minima, packed as in [`BlockQ4K`].
        scales: [u8; 12],
        /// Bit 4 of the codes: bit `g` of byte `i` belongs to code `32 g + i`.
        qh: [u8; 32],
        /// Bits 0..4, as in [`BlockQ4K`].
        qs: [u8; 128],
    }
    /// 256 values `d * scale * (q - 32)`, `q` of 6 bits, scale of 8 bits per 16 values.
    BlockQ6K: 210 {
        /// Bits 0..4, for each half of 128 values 64 bytes: code `i` in the low nibble of byte `i`, code
        /// `i + 64` in the high one.
        ql: [u8; 128],
        /// Bits 4..6, for each half of 128 values 32 bytes: bits `2j..2j+2` of byte `i` belong to code
        /// `32 j + i`.
        qh: [u8; 64],
        /// Scales of the sub-blocks of 16.
        scales: [i8; 16],
        /// Scale of the scales.
        d: Half,
    }
}

impl Block for BlockQ2K {
    const FORMAT: BlockFormat = BlockFormat::Q2K;
    const HAS_MIN: bool = true;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(16, &[80, 82], SubScales::Nibbles, &[plane(16, 2, 32)], Code::Offset(0)));

    fn scales(&self) -> Scales {
        Scales {
            d: self.d.to_f32(),
            m: -self.dmin.to_f32(),
            sub: self.scales.map(|s| f32::from(s & 15)),
            min: self.scales.map(|s| (s >> 4) as i8),
        }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        two_bits(&self.qs, out);
    }

    fn set_sub_scales(&mut self, sub: &[i8; 16], min: &[i8; 16]) {
        for (s, b) in self.scales.iter_mut().enumerate() {
            *b = sub[s] as u8 & 15 | (min[s] as u8) << 4;
        }
    }
}

impl Block for BlockQ3K {
    const FORMAT: BlockFormat = BlockFormat::Q3K;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> = Some(Recipe::new(
        16,
        &[108],
        SubScales::Scale,
        &[plane(32, 2, 32), plane(0, 1, 32)],
        Code::Offset(-4),
    ));

    fn scales(&self) -> Scales {
        let b = &self.scales;
        let sub = core::array::from_fn(|s| {
            let low = if s < 8 { b[s] & 15 } else { b[s - 8] >> 4 };
            let high = b[8 + s % 4] >> (2 * (s / 4)) & 3;
            f32::from((low | high << 4) as i8 - 32)
        });
        Scales { d: self.d.to_f32(), m: 0.0, sub, min: [0; 16] }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        two_bits(&self.qs, out);
        for (g, group) in out.chunks_exact_mut(32).enumerate() {
            for (q, h) in group.iter_mut().zip(self.hmask) {
                *q += ((h >> g & 1) << 2) as i8 - 4;
            }
        }
    }

    fn set_sub_scales(&mut self, sub: &[i8; 16], _: &[i8; 16]) {
        let b = &mut self.scales;
        for (s, sub) in sub.iter().enumerate() {
            let six = (*sub as u8).wrapping_add(32);
            b[s % 8] |= (six & 15) << (4 * (s / 8));
            b[8 + s % 4] |= (six >> 4 & 3) << (2 * (s / 4));
        }
    }
}

impl Block for BlockQ4K {
    const FORMAT: BlockFormat = BlockFormat::Q4K;
    const HAS_MIN: bool = true;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0, 2], SubScales::Both, &[plane(16, 4, 32)], Code::Offset(0)));

    fn scales(&self) -> Scales {
        k_scales(self.d, self.dmin, &self.scales)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        k_nibbles(&self.qs, out);
    }

    fn set_sub_scales(&mut self, sub: &[i8; 16], min: &[i8; 16]) {
        set_k_scales(sub, min, &mut self.scales);
    }
}

impl Block for BlockQ5K {
    const FORMAT: BlockFormat = BlockFormat::Q5K;
    const HAS_MIN: bool = true;
    const COLUMNS: Option<Recipe> = Some(Recipe::new(
        32,
        &[0, 2],
        SubScales::Both,
        &[plane(48, 4, 32), plane(16, 1, 32)],
        Code::Offset(0),
    ));

    fn scales(&self) -> Scales {
        k_scales(self.d, self.dmin, &self.scales)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        k_nibbles(&self.qs, out);
        for (g, group) in out.chunks_exact_mut(32).enumerate() {
            for (q, h) in group.iter_mut().zip(self.qh) {
                *q += ((h >> g & 1) << 4) as i8;
            }
        }
    }

    fn set_sub_scales(&mut self, sub: &[i8; 16], min: &[i8; 16]) {
        set_k_scales(sub, min, &mut self.scales);
    }
}

impl Block for BlockQ6K {
    const FORMAT: BlockFormat = BlockFormat::Q6K;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> = Some(Recipe::new(
        16,
        &[208],
        SubScales::Scale,
        &[plane(0, 4, 64), plane(128, 2, 32)],
        Code::Offset(-32),
    ));

    fn scales(&self) -> Scales {
        Scales { d: self.d.to_f32(), m: 0.0, sub: self.scales.map(f32::from), min: [0; 16] }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        let halves = self.ql.as_chunks::<64>().0.iter().zip(self.qh.as_chunks::<32>().0);
        for (half, (ql, qh)) in out.chunks_exact_mut(128).zip(halves) {
            for (i, q) in half.iter_mut().enumerate() {
                let low = ql[i % 64] >> (4 * (i / 64)) & 15;
                let high = qh[i % 32] >> (2 * (i / 32)) & 3;
                *q = (low | high << 4) as i8 - 32;
            }
        }
    }

    fn set_sub_scales(&mut self, sub: &[i8; 16], _: &[i8; 16]) {
        self.scales = *sub;
    }
}

/// Codes of 2 bits, as [`BlockQ2K`] and [`BlockQ3K`] keep them.
#[inline(always)]
pub(super) fn two_bits(qs: &[u8; 64], out: &mut [i8]) {
    for (half, qs) in out.chunks_exact_mut(128).zip(qs.as_chunks::<32>().0) {
        for (i, quarter) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, q) in quarter.iter_mut().zip(qs) {
                *code = (q >> (2 * i) & 3) as i8;
            }
        }
    }
}

/// Codes of 4 bits, as [`BlockQ4K`] and [`BlockQ5K`] keep them.
#[inline(always)]
fn k_nibbles(qs: &[u8; 128], out: &mut [i8]) {
    for (pair, qs) in out.chunks_exact_mut(64).zip(qs.as_chunks::<32>().0) {
        let (low, high) = pair.split_at_mut(32);
        for ((low, high), q) in low.iter_mut().zip(high).zip(qs) {
            (*low, *high) = ((q & 15) as i8, (q >> 4) as i8);
        }
    }
}

/// Scales and minima of 6 bits, as [`BlockQ4K`] and [`BlockQ5K`] keep them.
fn k_scales(d: Half, dmin: Half, b: &[u8; 12]) -> Scales {
    let (mut sub, mut min) = ([0.0; 16], [0; 16]);
    for s in 0..16 {
        let i = s / 2;
        let (scale, minimum) = if i < 4 {
            (b[i] & 63, b[i + 4] & 63)
        } else {
            (b[i + 4] & 15 | b[i - 4] >> 6 << 4, b[i + 4] >> 4 | b[i] >> 6 << 4)
        };
        (sub[s], min[s]) = (f32::from(scale), minimum as i8);
    }
    Scales { d: d.to_f32(), m: -dmin.to_f32(), sub, min }
}

/// Writes scales and minima of 6 bits, one of each per 32 values, where [`k_scales`] reads them.
fn set_k_scales(sub: &[i8; 16], min: &[i8; 16], b: &mut [u8; 12]) {
    let (sub, min) = (sub.map(|s| s as u8), min.map(|m| m as u8));
    for i in 0..4 {
        b[i] = sub[i] & 63 | sub[i + 4] >> 4 << 6;
        b[i + 4] = min[i] & 63 | min[i + 4] >> 4 << 6;
        b[i + 8] = sub[i + 4] & 15 | min[i + 4] << 4;
    }
}
