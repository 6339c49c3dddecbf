//! Four rows at a time: products of bytes in 16 bits, two of them per lane and instruction.

use super::Bits128;
use crate::generic::int8::{Int8Step, PANELS, ROOM, Sums};
use crate::int8::BLOCK;
use crate::panels::Line;

/// Marks the levels that multiply packed weights in 16 bits.
pub(crate) trait InWords: Bits128 {}

impl<V: InWords> Int8Step for V {
    /// In 16 bits, those of even columns first: as a byte shift takes the weights of a lane apart.
    type Codes = [[u16; 2]; 2];
    type Room = [[[u16; 2]; 2]; 2 * ROOM];

    const TOKENS: usize = 2;

    #[inline(always)]
    fn arrange<'a>(self, x: &'a [[u8; 4]], room: &'a mut [[[u16; 2]; 2]]) -> &'a [[[u16; 2]; 2]] {
        crate::generic::int8::widen(x, room)
    }

    #[inline(always)]
    fn add_products<const T: usize>(
        self,
        panels: [&[Line]; PANELS],
        x: [&[[[u16; 2]; 2]]; T],
        sums: &mut [Sums; T],
    ) {
        for (p, panel) in panels.into_iter().enumerate() {
            add_products(self, panel, x, p, sums);
        }
    }

    #[inline(always)]
    fn to_codes(self, x: V::Wide) -> [u8; BLOCK] {
        to_codes(self, x)
    }
}

/// See [`Int8Step::to_codes`].
#[inline(always)]
pub(crate) fn to_codes<V: Bits128>(v: V, x: V::Wide) -> [u8; BLOCK] {
    let (x, mut codes) = (x.as_ref(), [[0; 16]; 2]);
    for (i, codes) in codes.iter_mut().enumerate() {
        let bytes = v.to_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]);
        v.store16(v.add8(bytes, v.splat8(-128)), codes);
    }
    bytemuck::cast(codes)
}

/// Adds the products with panel `p` of the tile.
#[inline(always)]
fn add_products<V: Bits128, const T: usize>(
    v: V,
    panel: &[Line],
    mut x: [&[[[u16; 2]; 2]]; T],
    p: usize,
    sums: &mut [Sums; T],
) {
    for x in &mut x {
        *x = &x[..panel.len()];
    }
    let mut totals = [[v.splat32(0); 4]; T];
    for (totals, sums) in totals.iter_mut().zip(&*sums) {
        for (total, sums) in totals.iter_mut().zip(sums[p].as_chunks::<4>().0) {
            *total = v.load16(bytemuck::cast_ref(sums));
        }
    }
    // One after the other: together they would need more registers than there are.
    for odd in 0..2 {
        for (i, line) in panel.iter().enumerate() {
            let mut two = [v.splat32(0); T];
            for (two, x) in two.iter_mut().zip(&x) {
                // SAFETY: `i` is below the length of both.
                let x: [u16; 2] = unsafe { x.get_unchecked(i)[odd] };
                *two = v.splat32(bytemuck::cast(x));
            }
            for (r, codes) in line.codes().as_chunks::<4>().0.iter().enumerate() {
                let codes = v.load16(bytemuck::cast_ref(codes));
                let w = if odd == 0 { v.even_i8(codes) } else { v.odd_i8(codes) };
                for (totals, two) in totals.iter_mut().zip(two) {
                    totals[r] = v.add32(totals[r], v.madd(w, two));
                }
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut::<4>().0) {
            v.store16(*total, bytemuck::cast_mut(sums));
        }
    }
}
