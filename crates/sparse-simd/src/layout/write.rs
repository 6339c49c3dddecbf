//! From codes to blocks, for the formats that are a scale times a code.

use super::{BlockFormat, Half};
use crate::columns::write_codes;

impl BlockFormat {
    /// The lowest and the highest code of a format whose values are `d * code`, in blocks of 32 that share `d`; `None`
    /// for the others.
    pub const fn code_range(self) -> Option<[i8; 2]> {
        match self {
            Self::Bit3 => Some([-4, 3]),
            Self::Q4_0 => Some([-8, 7]),
            Self::Q5_0 => Some([-16, 15]),
            Self::Bit7 => Some([-64, 63]),
            Self::Q8_0 => Some([-127, 127]),
            _ => None,
        }
    }

    /// Writes a block of the values `d * codes[i]`; [`decode`](Self::decode) reads it.
    ///
    /// # Panics
    /// If the format has no [`code_range`](Self::code_range) or a code is outside it, or `block` is not one block.
    pub fn write_block(self, d: Half, codes: &[i8; 32], block: &mut [u8]) {
        let Some([low, high]) = self.code_range() else {
            panic!("write_block: {} values are not a scale times a code", self.name())
        };
        assert_eq!(block.len(), self.block_bytes(), "write_block: bytes of a {} block", self.name());
        assert!(
            codes.iter().all(|q| (low..=high).contains(q)),
            "write_block: codes of {} are {low}..={high}",
            self.name()
        );
        block.fill(0);
        block[..2].copy_from_slice(bytemuck::bytes_of(&d));
        write_codes(self, codes, block);
    }
}
