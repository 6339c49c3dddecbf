//! Products of packed int8 weights with int8 activations.

use crate::MatMut;
use crate::int8::{self, BLOCK, Int8, Int8Mut, ZERO};
use crate::panels::{Line, PanelLayout, Panels};
use crate::simd::{Simd, split};
use bytemuck::{Pod, Zeroable};
use core::ops::Range;

/// Tiles of at most as many tokens have a kernel for each number of them.
const EACH: usize = 6;

/// Panels side by side in a tile.
pub(crate) const PANELS: usize = 2;

/// Columns, by fours, that a level has room for when it arranges codes. Wider rows are arranged piece by piece, again
/// for each panel.
const PIECE: usize = 512;

/// Room for the arranged codes of a token, by fours: more than needed, as rows a power of two apart would share a few
/// places of the cache.
pub(crate) const ROOM: usize = PIECE + 16;

/// The sums of one token with the rows of a tile.
pub(crate) type Sums = [[i32; PanelLayout::ROWS]; PANELS];

/// How a level multiplies codes.
pub(crate) trait Int8Step: Simd {
    /// Four codes of a token, as this level wants them.
    type Codes: Pod;
    /// Memory for [`ROOM`] of them for each token of a tile, or none.
    type Room: Zeroable + AsMut<[Self::Codes]>;

    /// Tokens that are multiplied with packed weights at a time.
    const TOKENS: usize;
    /// Whether codes are multiplied without their 128, so that sums need not begin with what these add.
    const CENTERED: bool = false;

    /// `x` in the order of this level: in `room`, or where it is.
    fn arrange<'a>(self, x: &'a [[u8; 4]], room: &'a mut [Self::Codes]) -> &'a [Self::Codes];

    /// Adds the products of panels with some tokens. All of `panels` and `x` are equally long.
    fn add_products<const T: usize>(
        self,
        panels: [&[Line]; PANELS],
        x: [&[Self::Codes]; T],
        sums: &mut [Sums; T],
    );

    /// Values, at most 127 in magnitude, to the nearest integer, ties to even, plus 128.
    fn to_codes(self, x: Self::Wide) -> [u8; BLOCK];
}

/// `out = x W^T + b`: `out[t][r]` is the exact sum of products of codes, as f32, times the product of the scales of
/// token and row, plus the row's bias; each operation rounds. `TILE` is the number of tokens in a tile.
#[inline(always)]
pub(crate) fn multiply<S: Int8Step, const TILE: usize>(
    s: S,
    w: Panels<'_>,
    x: Int8<'_>,
    out: &mut MatMut<'_>,
) {
    let mut room = S::Room::zeroed();
    let room = room.as_mut();
    let mut t = 0;
    while t < x.tokens() {
        let left = x.tokens() - t;
        // Small tiles wait for weights. So they are equal where each size is compiled, and else as large as can be.
        let most = if TILE <= EACH { left.div_ceil(left.div_ceil(TILE)) } else { left.min(TILE) };
        t += match most {
            _ if most == TILE => tile::<S, TILE>(s, w, x, t, out, room),
            1 => tile::<S, 1>(s, w, x, t, out, room),
            3 if TILE <= EACH => tile::<S, 3>(s, w, x, t, out, room),
            2 | 3 => tile::<S, 2>(s, w, x, t, out, room),
            5 if TILE == EACH => tile::<S, 5>(s, w, x, t, out, room),
            8.. if TILE > EACH => tile::<S, 8>(s, w, x, t, out, room),
            _ => tile::<S, 4>(s, w, x, t, out, room),
        };
    }
}

/// Tokens `t..t + T` of [`multiply`]; returns `T`.
#[inline(always)]
fn tile<S: Int8Step, const T: usize>(
    s: S,
    w: Panels<'_>,
    x: Int8<'_>,
    t: usize,
    out: &mut MatMut<'_>,
    room: &mut [S::Codes],
) -> usize {
    let fours = w.layout().cols().div_ceil(4);
    let panels = (0..w.layout().rows().div_ceil(PanelLayout::ROWS)).step_by(PANELS);
    if fours <= PIECE {
        let codes = arranged::<S, T>(s, x, t, 0..fours, room);
        for panel in panels {
            let (heads, columns) = pair(w, panel);
            let mut sums = [begin::<S>(heads); T];
            s.add_products(columns, codes, &mut sums);
            write(heads, panel, &sums, x, t, out);
        }
        return T;
    }
    for panel in panels {
        let (heads, columns) = pair(w, panel);
        let mut sums = [begin::<S>(heads); T];
        for from in (0..fours).step_by(PIECE) {
            let piece = from..fours.min(from + PIECE);
            let codes = arranged::<S, T>(s, x, t, piece.clone(), room);
            s.add_products([&columns[0][piece.clone()], &columns[1][piece]], codes, &mut sums);
        }
        write(heads, panel, &sums, x, t, out);
    }
    T
}

/// The codes of tokens `t..t + T`: a piece of their columns, which are counted by fours.
#[inline(always)]
fn arranged<'a, S: Int8Step, const T: usize>(
    s: S,
    x: Int8<'a>,
    t: usize,
    piece: Range<usize>,
    room: &'a mut [S::Codes],
) -> [&'a [S::Codes]; T] {
    let mut codes = [&[][..]; T];
    let mut rooms = room.chunks_mut(ROOM);
    for (i, codes) in codes.iter_mut().enumerate() {
        let x = &x.row(t + i).as_chunks::<4>().0[piece.clone()];
        *codes = s.arrange(x, rooms.next().unwrap_or_default());
    }
    codes
}

/// Panel `panel` and the next, or the same again if it is the last: the lines before the columns, and those of the
/// columns.
#[inline(always)]
fn pair(w: Panels<'_>, panel: usize) -> ([&[Line]; PANELS], [&[Line]; PANELS]) {
    let (lines, apart) = w.from(panel);
    let (a, b) = (w.split(lines), w.split(&lines[apart..]));
    ([a.0, b.0], [a.1, b.1])
}

/// What the sums of a tile's rows begin with.
#[inline(always)]
fn begin<S: Int8Step>(heads: [&[Line]; PANELS]) -> Sums {
    match S::CENTERED {
        true => Sums::zeroed(),
        false => [*heads[0][2].integers(), *heads[1][2].integers()],
    }
}

/// Writes the products of a tile, whose first row is that of `panel`.
#[inline(always)]
fn write<const T: usize>(
    heads: [&[Line]; PANELS],
    panel: usize,
    sums: &[Sums; T],
    x: Int8<'_>,
    t: usize,
    out: &mut MatMut<'_>,
) {
    for (i, sums) in sums.iter().enumerate() {
        let row = &mut out.row(t + i)[panel * PanelLayout::ROWS..];
        for ((out, sums), head) in row.chunks_mut(PanelLayout::ROWS).zip(sums).zip(heads) {
            let (bias, scales) = (head[0].floats(), head[1].floats());
            let mut values = [0.0; PanelLayout::ROWS];
            for r in 0..PanelLayout::ROWS {
                values[r] = sums[r] as f32 * (x.d[t + i] * scales[r]) + bias[r];
            }
            match <&mut [f32; PanelLayout::ROWS]>::try_from(&mut *out) {
                Ok(out) => *out = values,
                Err(_) => out.copy_from_slice(&values[..out.len()]),
            }
        }
    }
}

/// See [`Kernels::quantize_rows`](crate::Kernels::quantize_rows).
#[inline(always)]
pub(crate) fn quantize_rows<S: Int8Step>(s: S, x: &[f32], out: &mut Int8Mut<'_>) {
    let rows = x.chunks_exact(out.cols).zip(out.q.chunks_exact_mut(Int8::stride(out.cols)));
    for ((x, q), d) in rows.zip(out.d.iter_mut()) {
        let inverse;
        (*d, inverse) = int8::scale(magnitude(s, x));
        if inverse == 0.0 {
            q.fill(ZERO);
            continue;
        }
        let (whole, rest) = x.as_chunks::<BLOCK>();
        let (codes, last) = q.as_chunks_mut::<BLOCK>().0.split_at_mut(whole.len());
        for (x, codes) in whole.iter().zip(codes) {
            *codes = block(s, x, inverse);
        }
        for codes in last {
            let mut x = [0.0; BLOCK];
            x[..rest.len()].copy_from_slice(rest);
            *codes = block(s, &x, inverse);
        }
    }
}

/// The codes of a block.
#[inline(always)]
fn block<S: Int8Step>(s: S, x: &[f32; BLOCK], inverse: f32) -> [u8; BLOCK] {
    let mut values = s.wide(0.0);
    for (value, x) in values.as_mut().iter_mut().zip(split::<S>(x).0) {
        *value = s.mul(s.load(x), s.splat(inverse));
    }
    s.to_codes(values)
}

/// The largest magnitude; infinity or NaN if there is a value that is not finite.
#[inline(always)]
fn magnitude<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (whole, rest) = split::<S>(x);
    let (mut max, mut odd) = ([s.splat(0.0); 2], s.splat(0.0));
    for (i, x) in whole.iter().enumerate() {
        let x = s.load(x);
        max[i % 2] = s.max(s.abs(x), max[i % 2]);
        // NaN from the first value that is not finite on.
        odd = s.fma(x, s.splat(0.0), odd);
    }
    let last = s.load_part(rest, 0.0);
    let max = s.max(s.abs(last), s.max(max[0], max[1]));
    let max = s.add(max, s.fma(last, s.splat(0.0), odd));
    let mut lanes = S::Floats::zeroed();
    s.store(max, &mut lanes);
    int8::magnitude(bytemuck::cast_slice(core::slice::from_ref(&lanes)))
}

/// Codes in 16 bits, those of even columns first.
#[inline(always)]
pub(crate) fn widen<'a>(x: &[[u8; 4]], room: &'a mut [[[u16; 2]; 2]]) -> &'a [[[u16; 2]; 2]] {
    let room = &mut room[..x.len()];
    for (to, x) in room.iter_mut().zip(x) {
        let [a, b, c, d] = x.map(u16::from);
        *to = [[a, c], [b, d]];
    }
    room
}
