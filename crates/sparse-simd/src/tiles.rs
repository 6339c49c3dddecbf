//! Rows in a few bits, sixteen side by side: a compact copy of a matrix that is good enough to say which rows matter.
//!
//! A row has its first dimensions in four bits, the next in two, and for each of these parts a scale. Code `q` of four
//! bits means `scale * (q - 7.5)`, of two bits `scale * (q - 1.5)`; beside them a row has a bias, which is added to its
//! product. Sixteen rows are a *tile*:
//!
//! ```text
//! tile:    scales of the first part (16 x f16) | scales of the second (16 x f16) | biases (16 x f16) | codes
//! 64 bytes of four-bit codes:  row i has bytes 4i..4i+4; byte k has dimension k in its lower half, 4 + k in its upper
//! 64 bytes of two-bit codes:   byte k of a row has dimensions k, 4 + k, 8 + k and 12 + k, from the lowest bits on
//! ```
//!
//! A part without dimensions has no scales. Four codes of a row lie in one 32-bit lane, beside those of the other rows,
//! so that a product needs no sums across lanes. The last tile is filled up with rows of zeros.

use core::ops::Range;

use half::f16;

use crate::ShapeError;

/// Dimensions that share a scale of the activations: a block of [`Q8`](crate::Q8).
pub(crate) const GROUP: usize = crate::q8::BLOCK;

/// Where the parts of rows in tiles are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileLayout {
    rows: usize,
    nibbles: usize,
    pairs: usize,
    tile_bytes: usize,
}

/// What is stored of one row.
#[derive(Clone, Copy, Debug)]
pub struct TileRow<'a> {
    /// Codes of the first dimensions, 0 to 15.
    pub nibbles: &'a [u8],
    /// Codes of the next, 0 to 3.
    pub pairs: &'a [u8],
    /// Scales of both parts.
    pub scales: [f16; 2],
    /// Added to the row's product.
    pub bias: f16,
}

impl TileLayout {
    /// Rows in a tile.
    pub const TILE: usize = 16;

    /// The layout of `rows` rows with `nibbles` dimensions in four bits and `pairs` in two.
    ///
    /// # Errors
    /// If there is no dimension, a number of dimensions is no multiple of 32, or the whole is too large to address.
    pub fn new(rows: usize, nibbles: usize, pairs: usize) -> Result<Self, ShapeError> {
        Self::checked(rows, nibbles, pairs).ok_or(ShapeError::Tiles { rows, nibbles, pairs })
    }

    fn checked(rows: usize, nibbles: usize, pairs: usize) -> Option<Self> {
        let dims = nibbles.checked_add(pairs)?;
        if dims == 0 || !nibbles.is_multiple_of(GROUP) || !pairs.is_multiple_of(GROUP) {
            return None;
        }
        let scales = usize::from(nibbles > 0) + usize::from(pairs > 0);
        let codes = Self::TILE.checked_mul(nibbles / 2 + pairs / 4)?;
        let tile_bytes = codes.checked_add(Self::TILE * 2 * (scales + 1))?;
        tile_bytes.checked_mul(rows.div_ceil(Self::TILE))?;
        Some(Self { rows, nibbles, pairs, tile_bytes })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Dimensions in four bits, the first ones.
    pub fn nibbles(&self) -> usize {
        self.nibbles
    }

    /// Dimensions in two bits.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// Dimensions in all.
    pub fn dims(&self) -> usize {
        self.nibbles + self.pairs
    }

    /// Bytes of all tiles.
    pub fn bytes(&self) -> usize {
        self.rows.div_ceil(Self::TILE) * self.tile_bytes
    }

    /// Writes row `r` into `tiles`, whose rows that are never written have to be zeros.
    ///
    /// # Panics
    /// If `r` is out of range, or a length or a code does not fit.
    pub fn write(&self, r: usize, row: TileRow<'_>, tiles: &mut [u8]) {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        assert_eq!((row.nibbles.len(), row.pairs.len()), (self.nibbles, self.pairs), "dimensions of a row");
        assert!(row.nibbles.iter().all(|q| *q < 16) && row.pairs.iter().all(|q| *q < 4), "codes of row {r}");
        let (tile, lane) = (r / Self::TILE, r % Self::TILE);
        let tile = &mut tiles[tile * self.tile_bytes..][..self.tile_bytes];
        let [scales, bias, codes] = self.parts();
        let mut set = |at: usize, x: f16| tile[at..at + 2].copy_from_slice(&x.to_le_bytes());
        let present = [self.nibbles, self.pairs].into_iter().zip(row.scales).filter(|(dims, _)| *dims > 0);
        for (i, (_, scale)) in present.enumerate() {
            set(scales + 2 * (i * Self::TILE + lane), scale);
        }
        set(bias + 2 * lane, row.bias);
        let (nibbles, pairs) = tile[codes..].split_at_mut(Self::TILE * self.nibbles / 2);
        // Codes are too small to reach into the next byte.
        for (line, codes) in nibbles.as_chunks_mut::<64>().0.iter_mut().zip(row.nibbles.as_chunks::<8>().0) {
            let [a, b] = words(codes);
            line[4 * lane..][..4].copy_from_slice(&(a | b << 4).to_le_bytes());
        }
        for (line, codes) in pairs.as_chunks_mut::<64>().0.iter_mut().zip(row.pairs.as_chunks::<16>().0) {
            let [a, b, c, d] = words(codes);
            line[4 * lane..][..4].copy_from_slice(&(a | b << 2 | c << 4 | d << 6).to_le_bytes());
        }
    }

    /// Where scales, biases and codes begin in a tile.
    fn parts(&self) -> [usize; 3] {
        let codes = self.tile_bytes - Self::TILE * (self.nibbles / 2 + self.pairs / 4);
        [0, codes - 2 * Self::TILE, codes]
    }
}

/// Four codes each.
fn words<const BYTES: usize, const WORDS: usize>(codes: &[u8; BYTES]) -> [u32; WORDS] {
    let words = codes.as_chunks::<4>().0;
    core::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

/// Added and taken off again, it rounds small numbers to integers, which are then in its last bits.
const ROUND: f32 = 12_582_912.0;

/// Values side by side in sums.
const SIDE: usize = 16;

/// Rounds values to codes of two bits, as [`Kernels::round_pairs`](crate::Kernels::round_pairs) says.
///
/// Plain Rust, which compilers turn into vectors: the same code serves all levels.
#[inline(always)]
pub(crate) fn round_pairs(x: &[f32], inverse: f32, codes: &mut [u8]) -> [f32; 2] {
    let mut sums = [[0.0; SIDE]; 2];
    let (sides, rest) = x.as_chunks::<SIDE>();
    let (codes, codes_rest) = codes.as_chunks_mut::<SIDE>();
    for (x, codes) in sides.iter().zip(codes) {
        for i in 0..SIDE {
            let level;
            (codes[i], level) = pair(x[i] * inverse);
            sums[0][i] += level * x[i];
            sums[1][i] += level * level;
        }
    }
    for ((x, code), i) in rest.iter().zip(codes_rest).zip(0..) {
        let level;
        (*code, level) = pair(x * inverse);
        sums[0][i] += level * x;
        sums[1][i] += level * level;
    }
    sums.map(|mut sums| {
        let mut half = SIDE / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    })
}

/// The code of a value in steps, and what it means.
#[inline(always)]
fn pair(x: f32) -> (u8, f32) {
    let x = x + 1.5;
    // Comparisons that are one instruction.
    let x = if x > 0.0 { x } else { 0.0 };
    let rounded = if x < 3.0 { x } else { 3.0 } + ROUND;
    (rounded.to_bits() as u8 & 3, rounded - ROUND - 1.5)
}

/// Rows in a [`TileLayout`], borrowed. The bytes may have any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Tiles<'a> {
    layout: TileLayout,
    data: &'a [u8],
}

/// Sixteen half-precision numbers.
pub(crate) type Halves = [[u8; 2]; TileLayout::TILE];

/// One tile: `scales` are there for the parts that have dimensions.
pub(crate) struct Tile<'a> {
    pub(crate) scales: [Option<&'a Halves>; 2],
    pub(crate) bias: &'a Halves,
    pub(crate) nibbles: &'a [[u8; 64]],
    pub(crate) pairs: &'a [[u8; 64]],
}

impl<'a> Tiles<'a> {
    /// Views `data` as rows in `layout`.
    ///
    /// # Errors
    /// If `data` is not exactly as long as the layout says.
    pub fn new(layout: TileLayout, data: &'a [u8]) -> Result<Self, ShapeError> {
        match data.len() == layout.bytes() {
            true => Ok(Self { layout, data }),
            false => Err(ShapeError::TileBytes { expected: layout.bytes(), found: data.len() }),
        }
    }

    /// Where the parts are.
    pub fn layout(&self) -> &TileLayout {
        &self.layout
    }

    /// Rows `range` alone.
    ///
    /// # Panics
    /// If the range does not begin with a tile, or is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Tiles<'a> {
        let (tile, bytes) = (TileLayout::TILE, self.layout.tile_bytes);
        assert!(range.start.is_multiple_of(tile), "rows {range:?} do not begin at a multiple of {tile}");
        assert!(
            range.start <= range.end && range.end <= self.layout.rows,
            "rows {range:?} of {}",
            self.layout.rows
        );
        let data = &self.data[range.start / tile * bytes..range.end.div_ceil(tile) * bytes];
        Tiles { layout: TileLayout { rows: range.len(), ..self.layout }, data }
    }

    /// All tiles.
    #[inline(always)]
    pub(crate) fn iter(self) -> impl Iterator<Item = Tile<'a>> {
        let TileLayout { nibbles, pairs, tile_bytes, .. } = self.layout;
        let [_, bias, codes] = self.layout.parts();
        self.data.chunks_exact(tile_bytes).map(move |tile| {
            let halves: &[Halves] = bytemuck::cast_slice(&tile[..codes]);
            let codes: &[[u8; 64]] = bytemuck::cast_slice(&tile[codes..]);
            let (first, second) = codes.split_at(nibbles / 8);
            let second_scale = usize::from(nibbles > 0);
            Tile {
                scales: [
                    if nibbles > 0 { Some(&halves[0]) } else { None },
                    if pairs > 0 { Some(&halves[second_scale]) } else { None },
                ],
                bias: &halves[bias / size_of::<Halves>()],
                nibbles: first,
                pairs: second,
            }
        })
    }
}
