//! Products with rows in tiles.

use crate::tiles::{GROUP, Halves, TileLayout};
use crate::{Q8, Tiles};
use half::f16;

/// `out[r]` = bias + sum over the parts of scale times the sum over the groups of `d * sum of (q - middle) * x`.
///
/// The sum of a group is an integer (twice it, for the middle is a half); the floats are multiplied and added in this
/// order, without fusing, at every level.
pub(super) fn scan(w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]) {
    let layout = w.layout();
    for (tile, out) in w.iter().zip(out.chunks_mut(TileLayout::TILE)) {
        for (i, out) in out.iter_mut().enumerate() {
            let half = |h: &Halves| f16::from_le_bytes(h[i]).to_f32();
            let nibble = |k: usize| tile.nibbles[k / 8][4 * i + k % 4] >> (k / 4 % 2 * 4) & 15;
            let pair = |k: usize| tile.pairs[k / 16][4 * i + k % 4] >> (k / 4 % 4 * 2) & 3;
            let mut score = half(tile.bias);
            if let Some(scale) = tile.scales[0] {
                score += half(scale) * part(x, 0, layout.nibbles(), 15, nibble);
            }
            if let Some(scale) = tile.scales[1] {
                score += half(scale) * part(x, layout.nibbles(), layout.pairs(), 3, pair);
            }
            *out = score;
        }
    }
}

/// `dims` dimensions from `from` on, whose codes go up to `top`.
fn part(x: Q8<'_>, from: usize, dims: usize, top: i32, code: impl Fn(usize) -> u8) -> f32 {
    let mut sum = 0.0;
    for group in 0..dims / GROUP {
        let at = from + group * GROUP;
        let products =
            (0..GROUP).map(|k| (2 * i32::from(code(group * GROUP + k)) - top) * i32::from(x.q[at + k]));
        sum += x.d[at / GROUP] * 0.5 * products.sum::<i32>() as f32;
    }
    sum
}
