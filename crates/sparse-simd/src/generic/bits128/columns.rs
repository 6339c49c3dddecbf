//! Products with weights stored by columns.

use super::Bits128;
use super::small::spread_bits;
use crate::generic::columns::pairs::Bytes;

impl<V: Bits128> Bytes for V {
    type I = V::I;

    const WIDE: bool = V::WIDE;

    #[inline(always)]
    fn dwords(self, x: i32) -> V::I {
        self.splat32(x)
    }

    #[inline(always)]
    fn either(self, a: V::I, b: V::I) -> V::I {
        self.or(a, b)
    }

    #[inline(always)]
    fn times_16(self, codes: V::I) -> V::I {
        self.shl16(codes, 4)
    }

    #[inline(always)]
    fn values(self, values: &[i8; 16], codes: V::I) -> V::I {
        self.look_up(self.load16(bytemuck::cast_ref(values)), codes)
    }

    #[inline(always)]
    fn interleave(self, columns: [V::I; 4]) -> [V::I; 4] {
        self.interleave4(columns)
    }

    #[inline(always)]
    fn add_products<const SIGNED: bool>(self, words: V::I, codes: V::I, h: V::I) -> V::I {
        Bits128::add_products::<SIGNED>(self, words, codes, h)
    }

    #[inline(always)]
    fn add_words(self, sums: V::I, words: V::I) -> V::I {
        Bits128::add_words(self, sums, words)
    }

    #[inline(always)]
    fn floats(self, x: V::I) -> V::F {
        self.to_floats(x)
    }

    #[inline(always)]
    unsafe fn eight_bits<const P: usize>(self, at: *const u8) -> V::I {
        // SAFETY: the caller promises that a chunk can be read at `at`.
        self.load16(unsafe { &*at.add(16 * P).cast() })
    }

    #[inline(always)]
    unsafe fn four_bits<const P: usize>(self, at: *const u8) -> V::I {
        // SAFETY: the caller promises that a chunk can be read at `at`.
        let both = self.load16(unsafe { &*at.add(16 * (P % 2)).cast() });
        if P < 2 { self.and(both, self.splat8(15)) } else { self.upper_nibbles(both) }
    }

    #[inline(always)]
    unsafe fn two_bits<const P: usize>(self, at: *const u8) -> V::I {
        // SAFETY: the caller promises that a chunk can be read at `at`.
        let all = self.load16(unsafe { &*at.cast() });
        self.and(self.shr16(all, 2 * P as u32), self.splat8(3))
    }

    #[inline(always)]
    unsafe fn one_bit<const P: usize>(self, at: *const u8, bit: i8) -> V::I {
        // SAFETY: the caller promises that a chunk can be read at `at`.
        let bits = self.load8(unsafe { &*at.cast() });
        self.and(spread_bits(self, bits, 2 * P as i8), self.splat8(bit))
    }
}
