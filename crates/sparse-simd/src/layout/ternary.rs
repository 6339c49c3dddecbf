//! Blocks of one scale and codes of one or two bits, or of three values.

use super::block::{Block, Groups, Half, Scales, blocks, codes_of_groups};
use crate::BlockFormat;
use crate::columns::{Code, Recipe, SubScales, plane};

blocks! {
    /// 256 values `d * q`, `q` in -1..=1, five in a byte.
    BlockTq1_0: 54 {
        /// `q + 1` as digits of a number to base 3, which is scaled to fill its byte: the highest digits of bytes 0..32
        /// are codes 0..32, the next ones codes 32..64, and so on; likewise those of bytes 32..48 from code 160 on.
        qs: [u8; 48],
        /// The last 16 codes, four in a byte.
        qh: [u8; 4],
        /// Scale.
        d: Half,
    }
    /// 256 values `d * (q - 1)`, `q` of 2 bits.
    BlockTq2_0: 66 {
        /// For each half of 128 values 32 bytes: bits `2j..2j+2` of byte `i` are code `32 j + i`.
        qs: [u8; 64],
        /// Scale.
        d: Half,
    }
    /// 128 values `d` or `-d`.
    BlockQ1_0: 18 {
        /// Scale.
        d: Half,
        /// Bit `i` of this little-endian number is 1 where value `i` is `d`.
        qs: [u8; 16],
    }
    /// 64 values `d * (q - 1)`, `q` of 2 bits.
    BlockQ2_0: 18 {
        /// Scale.
        d: Half,
        /// Code `i` is bits `2 i..2 i + 2` of this little-endian number.
        qs: [u8; 16],
    }
}

impl Block for BlockTq1_0 {
    const FORMAT: BlockFormat = BlockFormat::Tq1_0;
    const HAS_MIN: bool = false;

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    fn codes(&self, out: &mut [i8]) {
        codes_of_groups(self, out);
    }
}

impl Groups for BlockTq1_0 {
    #[inline(always)]
    fn group(&self, g: usize) -> [i8; 32] {
        // Digit `n` of a byte: those above it fall out of the byte, then a third of its range is one.
        let digit = |byte: u8, n: usize| {
            let rest = byte.wrapping_mul([1, 3, 9, 27, 81][n]);
            ((u16::from(rest) * 3) >> 8) as i8 - 1
        };
        let (first, second) = self.qs.split_at(32);
        match g {
            0..5 => core::array::from_fn(|i| digit(first[i], g)),
            5 | 6 => core::array::from_fn(|i| digit(second[i % 16], 2 * (g - 5) + i / 16)),
            _ => core::array::from_fn(|i| match i {
                0..16 => digit(second[i], 4),
                _ => digit(self.qh[i % 4], (i - 16) / 4),
            }),
        }
    }
}

impl Block for BlockTq2_0 {
    const FORMAT: BlockFormat = BlockFormat::Tq2_0;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[64], SubScales::None, &[plane(0, 2, 32)], Code::Offset(-1)));

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        super::k_quants::two_bits(&self.qs, out);
        out.iter_mut().for_each(|q| *q -= 1);
    }
}

impl Block for BlockQ1_0 {
    const FORMAT: BlockFormat = BlockFormat::Q1_0;
    const HAS_MIN: bool = false;

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    fn codes(&self, out: &mut [i8]) {
        codes_of_groups(self, out);
    }
}

impl Groups for BlockQ1_0 {
    #[inline(always)]
    fn group(&self, g: usize) -> [i8; 32] {
        core::array::from_fn(|i| (self.qs[4 * g + i / 8] >> (i % 8) & 1) as i8 * 2 - 1)
    }
}

impl Block for BlockQ2_0 {
    const FORMAT: BlockFormat = BlockFormat::Q2_0;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(2, 2, 1)], Code::Offset(-1)));

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    fn codes(&self, out: &mut [i8]) {
        codes_of_groups(self, out);
    }
}

impl Groups for BlockQ2_0 {
    #[inline(always)]
    fn group(&self, g: usize) -> [i8; 32] {
        core::array::from_fn(|i| (self.qs[8 * g + i / 4] >> (2 * (i % 4)) & 3) as i8 - 1)
    }
}
