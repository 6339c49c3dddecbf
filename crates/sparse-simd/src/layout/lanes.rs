//! The blocks of the precision lanes that ggml does not have: codes of 3 and 7 bits without gaps.

use super::block::{Block, Half, Scales, blocks};
use crate::BlockFormat;
use crate::columns::{Code, Recipe, SubScales, plane};

blocks! {
    /// 32 values `d * (q - 4)`, `q` of 3 bits: a precision lane, not a format of ggml.
    BlockBit3: 14 {
        /// Scale.
        d: Half,
        /// Code `i` is bits `3 i..3 i + 3` of this little-endian number.
        qs: [u8; 12],
    }
    /// 32 values `d * (q - 64)`, `q` of 7 bits: a precision lane, not a format of ggml.
    BlockBit7: 30 {
        /// Scale.
        d: Half,
        /// Code `i` is bits `7 i..7 i + 7` of this little-endian number.
        qs: [u8; 28],
    }
}

impl Block for BlockBit3 {
    const FORMAT: BlockFormat = BlockFormat::Bit3;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(2, 3, 3)], Code::Offset(-4)));
    const LANE: Option<u32> = Some(3);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        stream::<3>(&self.qs, out);
    }
}

impl Block for BlockBit7 {
    const FORMAT: BlockFormat = BlockFormat::Bit7;
    const HAS_MIN: bool = false;
    const COLUMNS: Option<Recipe> =
        Some(Recipe::new(32, &[0], SubScales::None, &[plane(2, 7, 7)], Code::Offset(-64)));
    const LANE: Option<u32> = Some(7);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        stream::<7>(&self.qs, out);
    }
}

/// Codes of `BITS` bits, one after the other: eight in as many bytes. Half of their range is subtracted.
#[inline(always)]
fn stream<const BITS: usize>(qs: &[u8], out: &mut [i8]) {
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(qs.as_chunks::<BITS>().0) {
        let word = stream_word(bytes);
        for (i, q) in out.iter_mut().enumerate() {
            *q = (word >> (BITS * i) & ((1 << BITS) - 1)) as i8 - (1 << (BITS - 1)) as i8;
        }
    }
}

/// Up to eight bytes as a number.
#[inline(always)]
pub(crate) fn stream_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
