//! Codes of a few bits, one after the other.

use alloc::vec;
use alloc::vec::Vec;

/// Signed codes of `bits` bits without gaps: eight in `bits` bytes, as two's complement, the first in the lowest bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    bits: u32,
    len: usize,
    bytes: Vec<u8>,
}

impl Packed {
    /// The lowest `bits` bits of each code; `bits` is at most 8.
    pub(crate) fn new(bits: u32, codes: impl ExactSizeIterator<Item = i8>) -> Self {
        let (len, width) = (codes.len(), bits as usize);
        let mut bytes = vec![0; (len * width).div_ceil(8)];
        for (i, code) in codes.enumerate() {
            let word = u16::from(code as u8 & mask(bits)) << (i * width % 8);
            let at = i * width / 8;
            bytes[at] |= word as u8;
            if word > 0xff {
                bytes[at + 1] |= (word >> 8) as u8;
            }
        }
        Self { bits, len, bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Code `i`.
    pub(crate) fn get(&self, i: usize) -> i8 {
        assert!(i < self.len, "code {i} of {}", self.len);
        let bit = i * self.bits as usize;
        let high = self.bytes.get(bit / 8 + 1).copied().unwrap_or(0);
        let word = u16::from_le_bytes([self.bytes[bit / 8], high]) >> (bit % 8);
        // Up to the sign bit, and down again with the sign.
        ((word as u8) << (8 - self.bits)) as i8 >> (8 - self.bits)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = i8> + '_ {
        (0..self.len).map(|i| self.get(i))
    }
}

fn mask(bits: u32) -> u8 {
    (0xffu16 >> (8 - bits)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_no_bit_is_wasted() {
        for bits in [3, 5, 7] {
            for len in 0..40 {
                let half = 1 << (bits - 1);
                let codes = (0..len).map(|i| ((i * 11 + i * i) % (2 * half) - half) as i8);
                let packed = Packed::new(bits, codes.clone());
                assert!(packed.iter().eq(codes), "{len} codes of {bits} bits");
                assert_eq!(packed.bytes(), (len as usize * bits as usize).div_ceil(8));
            }
        }
    }
}
