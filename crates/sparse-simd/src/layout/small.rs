//! Blocks of 32 values with one scale, and a minimum in some.

use super::block::{Block, Half, Scales, blocks};
use crate::BlockFormat;
use crate::columns::{Code, Recipe, SubScales, plane};

blocks! {
    /// 32 values `d * (q - 8)`, `q` of 4 bits.
    BlockQ4_0: 18 {
        /// Scale.
        d: Half,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * q + m`, `q` of 4 bits.
    BlockQ4_1: 20 {
        /// Scale.
        d: Half,
        /// Minimum.
        m: Half,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * (q - 16)`, `q` of 5 bits.
    BlockQ5_0: 22 {
        /// Scale.
        d: Half,
        /// Bit 4 of the codes: bit `i` of this little-endian u32 belongs to code `i`.
        qh: [u8; 4],
        /// Bits 0..4: code `i` in the low nibble of byte `i`, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * q + m`, `q` of 5 bits.
    BlockQ5_1: 24 {
        /// Scale.
        d: Half,
        /// Minimum.
        m: Half,
        /// Bit 4 of the codes: bit `i` of this little-endian u32 belongs to code `i`.
        qh: [u8; 4],
        /// Bits 0..4: code `i` in the low nibble of byte `i`, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * q`, `q` of 8 bits.
    BlockQ8_0: 34 {
        /// Scale.
        d: Half,
        /// Codes.
        qs: [i8; 32],
    }
}

impl Block for BlockQ4_0 {
    const FORMAT: BlockFormat = BlockFormat::Q4_0;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(2, 4, 16)], Code::Offset(-8)));
    const NIBBLES: Option<[i8; 16]> = Some([-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7]);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8 - 8);
    }
}

impl Block for BlockQ4_1 {
    const FORMAT: BlockFormat = BlockFormat::Q4_1;
    const HAS_MIN: bool = true;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0, 2], SubScales::None, &[plane(4, 4, 16)], Code::Offset(0)));
    const NIBBLES: Option<[i8; 16]> = Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    fn scales(&self) -> Scales {
        Scales::with_min(self.d, self.m)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8);
    }
}

impl Block for BlockQ5_0 {
    const FORMAT: BlockFormat = BlockFormat::Q5_0;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(6, 4, 16), plane(2, 1, 1)], Code::Offset(-16)));
    const LANE: Option<u32> = Some(5);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8);
        add_bit4(self.qh, -16, out);
    }
}

impl Block for BlockQ5_1 {
    const FORMAT: BlockFormat = BlockFormat::Q5_1;
    const HAS_MIN: bool = true;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0, 2], SubScales::None, &[plane(8, 4, 16), plane(4, 1, 1)], Code::Offset(0)));

    fn scales(&self) -> Scales {
        Scales::with_min(self.d, self.m)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8);
        add_bit4(self.qh, 0, out);
    }
}

impl Block for BlockQ8_0 {
    const FORMAT: BlockFormat = BlockFormat::Q8_0;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(2, 8, 32)], Code::Signed));

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        out.copy_from_slice(&self.qs);
    }
}

/// The 32 nibbles of 16 bytes: low ones first.
#[inline(always)]
pub(super) fn nibbles(qs: &[u8; 16], out: &mut [i8], value: impl Fn(u8) -> i8) {
    let (low, high) = out.split_at_mut(16);
    for i in 0..16 {
        low[i] = value(qs[i] & 15);
        high[i] = value(qs[i] >> 4);
    }
}

/// Adds bit `i` of `qh`, as bit 4, and `offset` to code `i`.
#[inline(always)]
fn add_bit4(qh: [u8; 4], offset: i8, out: &mut [i8]) {
    let qh = u32::from_le_bytes(qh);
    for (i, q) in out.iter_mut().enumerate() {
        *q += ((qh >> i & 1) << 4) as i8 + offset;
    }
}
