//! Products with rows in tiles: the order of things, which all levels share.

use crate::simd::Simd;
use crate::tiles::{GROUP, Halves, TileLayout};
use crate::{Q8, Tiles};
use bytemuck::Zeroable;

/// How a level multiplies the codes of a tile.
pub(crate) trait ScanStep: Simd {
    /// Sixteen sums, one per row: `[i32; 16]`.
    type Sums: Copy;

    /// Zeros.
    fn none(self) -> Self::Sums;
    /// Adds eight dimensions in four bits; `x` has four of the activations each.
    fn nibbles(self, sums: Self::Sums, codes: &[u8; 64], x: [i32; 2]) -> Self::Sums;
    /// Adds sixteen dimensions in two bits.
    fn pairs(self, sums: Self::Sums, codes: &[u8; 64], x: [i32; 4]) -> Self::Sums;
    /// The sums as floats: they are below 2^24.
    fn floats(self, sums: Self::Sums) -> [f32; TileLayout::TILE];
}

/// See [`scalar`](crate::scalar).
#[inline(always)]
pub(crate) fn scan<S: ScanStep>(s: S, w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]) {
    let (first, _) = x.q.as_chunks::<4>().0.split_at(w.layout().nibbles() / 4);
    let (first_d, second_d) = x.d.split_at(w.layout().nibbles() / GROUP);
    let second = &x.q.as_chunks::<4>().0[first.len()..];
    let (first_sums, second_sums) = x.sums.as_chunks::<2>().0.split_at(first_d.len());
    for (tile, out) in w.iter().zip(out.chunks_mut(TileLayout::TILE)) {
        let mut scores = halves(s, tile.bias);
        if let Some(scale) = tile.scales[0] {
            let mut part = [0.0; TileLayout::TILE];
            let groups = tile.nibbles.as_chunks::<4>().0.iter().zip(first.as_chunks::<8>().0);
            for (((codes, x), d), total) in groups.zip(first_d).zip(first_sums) {
                let mut sums = s.none();
                for (codes, x) in codes.iter().zip(x.as_chunks::<2>().0) {
                    sums = s.nibbles(sums, codes, [dword(x[0]), dword(x[1])]);
                }
                add_group(&mut part, s.floats(sums), 15, total, *d);
            }
            add_part(&mut scores, halves(s, scale), part);
        }
        if let Some(scale) = tile.scales[1] {
            let mut part = [0.0; TileLayout::TILE];
            let groups = tile.pairs.as_chunks::<2>().0.iter().zip(second.as_chunks::<8>().0);
            for (((codes, x), d), total) in groups.zip(second_d).zip(second_sums) {
                let mut sums = s.none();
                for (codes, x) in codes.iter().zip(x.as_chunks::<4>().0) {
                    sums = s.pairs(sums, codes, [dword(x[0]), dword(x[1]), dword(x[2]), dword(x[3])]);
                }
                add_group(&mut part, s.floats(sums), 3, total, *d);
            }
            add_part(&mut scores, halves(s, scale), part);
        }
        out.copy_from_slice(&scores[..out.len()]);
    }
}

/// Codes are less by half of their largest, `top`.
#[inline(always)]
fn add_group(
    part: &mut [f32; TileLayout::TILE],
    sums: [f32; TileLayout::TILE],
    top: i32,
    total: &[i16; 2],
    d: f32,
) {
    let middle = (top * (i32::from(total[0]) + i32::from(total[1]))) as f32;
    for (part, sum) in part.iter_mut().zip(sums) {
        *part += d * 0.5 * (2.0 * sum - middle);
    }
}

#[inline(always)]
fn add_part(
    scores: &mut [f32; TileLayout::TILE],
    scale: [f32; TileLayout::TILE],
    part: [f32; TileLayout::TILE],
) {
    for i in 0..TileLayout::TILE {
        scores[i] += scale[i] * part[i];
    }
}

#[inline(always)]
fn dword(x: [i8; 4]) -> i32 {
    i32::from_le_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8])
}

#[inline(always)]
fn halves<S: Simd>(s: S, x: &Halves) -> [f32; TileLayout::TILE] {
    let bytes: &[u8] = bytemuck::cast_slice(x);
    let mut out = [0.0; TileLayout::TILE];
    for v in 0..TileLayout::TILE / S::LANES {
        let mut part = S::Halves::zeroed();
        bytemuck::bytes_of_mut(&mut part).copy_from_slice(&bytes[v * 2 * S::LANES..][..2 * S::LANES]);
        s.store(s.f16s(&part), crate::simd::first_mut::<S>(&mut out[v * S::LANES..]));
    }
    out
}
