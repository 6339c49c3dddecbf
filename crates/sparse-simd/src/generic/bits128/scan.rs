//! Four rows of a tile at a time.

use super::Bits128;
use crate::generic::scan::ScanStep;
use crate::tiles::TileLayout;

/// Rows in a vector.
const ROWS: usize = 4;

impl<V: Bits128> ScanStep for V {
    type Sums = [V::I; TileLayout::TILE / ROWS];

    #[inline(always)]
    fn none(self) -> Self::Sums {
        [self.splat32(0); TileLayout::TILE / ROWS]
    }

    #[inline(always)]
    fn nibbles(self, mut sums: Self::Sums, codes: &[u8; 64], x: [i32; 2]) -> Self::Sums {
        for (sums, codes) in sums.iter_mut().zip(codes.as_chunks::<{ 4 * ROWS }>().0) {
            let (both, mask) = (self.load16(codes), self.splat8(15));
            let (low, high) = (self.and(both, mask), self.upper_nibbles(both));
            // Four products of at most 15 * 128 fit 16 bits.
            let words = self.add_products::<false>(self.splat32(0), low, self.splat32(x[0]));
            let words = self.add_products::<false>(words, high, self.splat32(x[1]));
            *sums = self.add_words(*sums, words);
        }
        sums
    }

    #[inline(always)]
    fn pairs(self, mut sums: Self::Sums, codes: &[u8; 64], x: [i32; 4]) -> Self::Sums {
        for (sums, codes) in sums.iter_mut().zip(codes.as_chunks::<{ 4 * ROWS }>().0) {
            let (all, mask) = (self.load16(codes), self.splat8(3));
            // Eight products of at most 3 * 128 fit 16 bits.
            let mut words = self.splat32(0);
            for (i, x) in x.into_iter().enumerate() {
                let quarter = self.and(self.shr16(all, 2 * i as u32), mask);
                words = self.add_products::<false>(words, quarter, self.splat32(x));
            }
            *sums = self.add_words(*sums, words);
        }
        sums
    }

    #[inline(always)]
    fn floats(self, sums: Self::Sums) -> [f32; TileLayout::TILE] {
        let mut out = [0.0; TileLayout::TILE];
        for (out, sums) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(sums) {
            self.store(self.to_floats(sums), out);
        }
        out
    }
}
