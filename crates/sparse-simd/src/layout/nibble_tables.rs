//! Blocks whose codes are places in a table of 16 values.

use super::block::{Block, Groups, Half, Scales, blocks, codes_of_groups};
use super::small::nibbles;
use crate::BlockFormat;
use crate::columns::{Code, Recipe, SubScales, plane};
use crate::interleaved::Factors;

/// The 16 values of [`BlockIq4Nl`] and [`BlockIq4Xs`] codes: denser near zero, as weights are.
pub const IQ4_NL_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The 16 values of [`BlockMxFp4`] and [`BlockNvFp4`] codes: floats of 2 exponent bits and 1 of the fraction (E2M1), times two.
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

blocks! {
    /// 32 values `d * IQ4_NL_VALUES[q]`, `q` of 4 bits.
    BlockIq4Nl: 18 {
        /// Scale.
        d: Half,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 256 values `d * (scale - 32) * IQ4_NL_VALUES[q]`, `q` of 4 bits, scale of 6 bits per 32 values.
    BlockIq4Xs: 136 {
        /// Scale of the scales.
        d: Half,
        /// Bits 4..6 of the scales, as a little-endian number: bits `2 g..2 g + 2` belong to scale `g`.
        scales_h: [u8; 2],
        /// Bits 0..4 of two scales, the first in the low nibble.
        scales_l: [u8; 4],
        /// For each 32 values 16 bytes: code `i` in the low nibble of byte `i`, code `i + 16` in the high one.
        qs: [[u8; 16]; 8],
    }
    /// 32 values `2^(e - 128) * FP4_VALUES[q]`, `q` of 4 bits (OCP microscaling formats, MXFP4).
    BlockMxFp4: 17 {
        /// Exponent; 255 is NaN.
        e: u8,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 64 values `scale / 2 * FP4_VALUES[q]`, `q` of 4 bits, with a scale per 16 values (NVIDIA's NVFP4). Files may have
    /// one more scale for the whole matrix beside it.
    BlockNvFp4: 36 {
        /// Scales: floats without sign of 4 exponent bits and 3 of the fraction (UE4M3). The largest is NaN.
        d: [u8; 4],
        /// For each 16 values 8 bytes: code `i` in the low nibble of byte `i`, code `i + 8` in the high one.
        qs: [[u8; 8]; 4],
    }
    /// A [`BlockNvFp4`] that has the scale of its matrix, too.
    BlockNvFp4Scaled: 40 {
        /// Little-endian f32.
        factor: [u8; 4],
        /// What is multiplied with it.
        block: BlockNvFp4,
    }
}

impl BlockMxFp4 {
    /// The scale `2^(e - 128)`: half of what the exponent says, as values are doubled. The largest exponent is NaN.
    pub(crate) fn scale(&self) -> f32 {
        match self.e {
            // Below the normal floats.
            0 | 1 => f32::from_bits(0x0020_0000 << self.e),
            255 => f32::NAN,
            e => f32::from_bits(u32::from(e - 1) << 23),
        }
    }
}

impl Block for BlockIq4Nl {
    const FORMAT: BlockFormat = BlockFormat::Iq4Nl;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(2, 4, 16)], Code::Table(&IQ4_NL_VALUES)));
    const HAS_MIN: bool = false;
    const NIBBLES: Option<[i8; 16]> = Some(IQ4_NL_VALUES);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| IQ4_NL_VALUES[q as usize]);
    }
}

impl Block for BlockIq4Xs {
    const FORMAT: BlockFormat = BlockFormat::Iq4Xs;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::Scale, &[plane(8, 4, 16)], Code::Table(&IQ4_NL_VALUES)));
    /// The scale, and the high bits of the scales.
    const FACTORS: Option<Factors> = Some(Factors { at: 0, bytes: 2, count: 2 });
    const HAS_MIN: bool = false;

    fn scales(&self) -> Scales {
        let high = u16::from_le_bytes(self.scales_h);
        let sub = core::array::from_fn(|i| {
            let g = i / 2;
            let low = self.scales_l[g / 2] >> (4 * (g % 2)) & 15;
            f32::from((low | ((high >> (2 * g) & 3) as u8) << 4) as i8 - 32)
        });
        Scales { d: self.d.to_f32(), m: 0.0, sub, min: [0; 16] }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        for (out, qs) in out.as_chunks_mut::<32>().0.iter_mut().zip(&self.qs) {
            nibbles(qs, out, |q| IQ4_NL_VALUES[q as usize]);
        }
    }

    fn set_sub_scales(&mut self, sub: &[i8; 16], _: &[i8; 16]) {
        let mut high = 0;
        for (g, sub) in sub.iter().enumerate().take(8) {
            let six = (*sub as u8).wrapping_add(32);
            self.scales_l[g / 2] |= (six & 15) << (4 * (g % 2));
            high |= u16::from(six >> 4 & 3) << (2 * g);
        }
        self.scales_h = high.to_le_bytes();
    }
}

impl Block for BlockMxFp4 {
    const FORMAT: BlockFormat = BlockFormat::MxFp4;
    const FACTORS: Option<Factors> = Some(Factors { at: 0, bytes: 1, count: 1 });
    const HAS_MIN: bool = false;
    const NIBBLES: Option<[i8; 16]> = Some(FP4_VALUES);

    fn scales(&self) -> Scales {
        Scales { d: self.scale(), ..Scales::ONE }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| FP4_VALUES[q as usize]);
    }
}

/// A float without sign of 4 exponent bits, of which the bias is 7, and 3 of the fraction. The topmost bit is ignored.
fn ue4m3(bits: u8) -> f32 {
    let (exponent, fraction) = (bits >> 3 & 15, bits & 7);
    match (exponent, fraction) {
        (15, 7) => f32::NAN,
        (0, _) => f32::from(fraction) / 512.0,
        _ => f32::from_bits((u32::from(exponent) + 120) << 23 | u32::from(fraction) << 20),
    }
}

impl BlockNvFp4 {
    fn scaled(&self, factor: f32) -> Scales {
        let sub = core::array::from_fn(|i| self.d.get(i).map_or(0.0, |bits| 0.5 * ue4m3(*bits)));
        Scales { d: factor, m: 0.0, sub, min: [0; 16] }
    }
}

impl Groups for BlockNvFp4 {
    #[inline(always)]
    fn group(&self, g: usize) -> [i8; 32] {
        let half = |half: &[u8; 8]| -> [i8; 16] {
            core::array::from_fn(|i| FP4_VALUES[usize::from(half[i % 8] >> (i / 8 * 4) & 15)])
        };
        bytemuck::cast([half(&self.qs[2 * g]), half(&self.qs[2 * g + 1])])
    }
}

impl Block for BlockNvFp4 {
    const FORMAT: BlockFormat = BlockFormat::NvFp4;
    const HAS_MIN: bool = false;
    const FLOAT_SUB_SCALES: bool = true;

    fn scales(&self) -> Scales {
        self.scaled(1.0)
    }

    fn codes(&self, out: &mut [i8]) {
        codes_of_groups(self, out);
    }
}

impl Groups for BlockNvFp4Scaled {
    #[inline(always)]
    fn group(&self, g: usize) -> [i8; 32] {
        self.block.group(g)
    }
}

impl Block for BlockNvFp4Scaled {
    const FORMAT: BlockFormat = BlockFormat::NvFp4Scaled;
    const HAS_MIN: bool = false;
    const FLOAT_SUB_SCALES: bool = true;

    fn scales(&self) -> Scales {
        self.block.scaled(f32::from_le_bytes(self.factor))
    }

    fn codes(&self, out: &mut [i8]) {
        codes_of_groups(self, out);
    }
}
