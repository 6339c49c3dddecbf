//! Eight rows side by side, so that a vector register holds the same columns of all of them.
//!
//! Products need no sums across a register then, and eight rows share one conversion and one multiplication by their
//! scales. The bytes are those of the rows in another order; [`Interleaved::restore`] gives them back.
//!
//! A *group* is eight rows. It is stored block by block, and of each block column:
//!
//! ```text
//! factors:          the first of rows 0..8 (8 x f16; a byte each in MXFP4) | the second of rows 0..8, if any
//! everything else:  bytes 0..4 of rows 0..8 | bytes 4..8 of rows 0..8, and so on
//! ```
//!
//! The last group is filled up with rows of zeros.

use core::ops::Range;

use crate::columns::Recipe;
use crate::{BlockFormat, Rows, ShapeError};

/// Rows in a group.
pub(crate) const ROWS: usize = 8;

/// How the rows of a matrix are interleaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterleavedLayout {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    parts: Parts,
}

impl InterleavedLayout {
    /// Rows in a group. Windows of rows begin at a multiple of it.
    pub const ROWS: usize = ROWS;

    /// The layout of `rows` rows of `cols` values in `format`.
    ///
    /// # Errors
    /// If `cols` is zero or no multiple of the format's block length, or the matrix is too large to address. If the
    /// format's values are floats, or its blocks are not factors and whole words of four bytes.
    pub fn new(format: BlockFormat, rows: usize, cols: usize) -> Result<Self, ShapeError> {
        let parts = Parts::of(format).ok_or(ShapeError::NoInterleaving { format })?;
        let row_bytes = format.row_bytes(cols).filter(|bytes| *bytes > 0);
        let bytes = row_bytes.and_then(|bytes| bytes.checked_mul(rows.checked_next_multiple_of(ROWS)?));
        match (row_bytes, bytes) {
            (Some(row_bytes), Some(_)) => Ok(Self { format, rows, cols, row_bytes, parts }),
            _ => Err(ShapeError::Cols { format, cols }),
        }
    }

    /// How the weights are stored.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes of all groups.
    pub fn bytes(&self) -> usize {
        self.rows.next_multiple_of(ROWS) * self.row_bytes
    }

    /// Writes `w`, some of the rows beginning at a multiple of [`ROWS`](Self::ROWS), as groups.
    ///
    /// # Panics
    /// If `w` has another format or width, or `out` is not as long as its groups.
    pub fn interleave<'w>(&self, w: Rows<'w>, out: &mut [u8]) {
        assert_eq!((w.format(), w.cols()), (self.format, self.cols), "interleave: w and layout");
        let (parts, size) = (self.parts, self.format.block_bytes());
        let groups = w.rows().div_ceil(ROWS);
        assert_eq!(out.len(), groups * ROWS * self.row_bytes, "interleave: length of out");
        for (g, group) in out.chunks_exact_mut(ROWS * self.row_bytes).enumerate() {
            let rows = w.slice(g * ROWS..w.rows().min((g + 1) * ROWS));
            let row = |r| if r < rows.rows() { Some(rows.row(r)) } else { None };
            let rows: [Option<&[u8]>; ROWS] = core::array::from_fn(row);
            for (b, tile) in group.chunks_exact_mut(ROWS * size).enumerate() {
                let block =
                    |row: Option<&'w [u8]>| row.map_or(&ZEROS[..size], |row| &row[b * size..][..size]);
                parts.put(rows.map(block), tile);
            }
        }
    }
}

/// A block of a row that is not there.
static ZEROS: [u8; 256] = [0; 256];

/// The parts of a block that are interleaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    factors: Factors,
    /// Where everything else begins.
    first: usize,
    /// How long that is, in words of four bytes.
    words: usize,
}

/// Equally long parts of a block that follow each other, at its beginning or at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Factors {
    /// Where the first begins.
    pub(crate) at: usize,
    /// Bytes of each.
    pub(crate) bytes: usize,
    pub(crate) count: usize,
}

impl Factors {
    /// The half-precision factors of `recipe`, if they follow each other.
    pub(crate) const fn halves(recipe: Option<&Recipe>) -> Option<Self> {
        let Some(Recipe { halves, .. }) = recipe else { return Some(Self { at: 0, bytes: 2, count: 0 }) };
        let mut i = 1;
        while i < halves.len() {
            if halves[i] != halves[0] + 2 * i {
                return None;
            }
            i += 1;
        }
        Some(Self { at: halves[0], bytes: 2, count: halves.len() })
    }
}

impl Parts {
    /// `None` if the format has no such parts.
    fn of(format: BlockFormat) -> Option<Self> {
        let factors = format.factors()?;
        let all = factors.bytes * factors.count;
        let rest = format.block_bytes() - all;
        let first = match factors.at {
            0 => all,
            at if at == rest => 0,
            _ => return None,
        };
        rest.is_multiple_of(4).then_some(Self { factors, first, words: rest / 4 })
    }

    /// Bytes of the factors of all rows.
    fn head(self) -> usize {
        ROWS * self.factors.bytes * self.factors.count
    }

    /// Writes blocks, a row each, as a tile.
    #[inline(always)]
    fn put(self, blocks: [&[u8]; ROWS], tile: &mut [u8]) {
        let (factors, words) = tile.split_at_mut(self.head());
        let Factors { at, bytes, .. } = self.factors;
        for (i, factors) in factors.chunks_exact_mut(ROWS * bytes).enumerate() {
            for (factor, block) in factors.chunks_exact_mut(bytes).zip(blocks) {
                factor.copy_from_slice(&block[at + i * bytes..][..bytes]);
            }
        }
        let rows = blocks.map(|block| block[self.first..][..4 * self.words].as_chunks::<4>().0);
        let (fours, rest) = words.split_at_mut(self.words / 4 * 16 * ROWS);
        for (i, out) in fours.as_chunks_mut::<{ 16 * ROWS }>().0.iter_mut().enumerate() {
            four_words(rows.map(|row| *row[4 * i..].first_chunk().expect("four words")), out);
        }
        for (i, out) in rest.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().enumerate() {
            for (out, row) in out.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
                *out = row[self.words / 4 * 4 + i];
            }
        }
    }

    /// Reads `block` from row `r` of `tile`.
    fn get(self, r: usize, tile: &[u8], block: &mut [u8]) {
        let (factors, words) = tile.split_at(self.head());
        let Factors { at, bytes, .. } = self.factors;
        for (i, factors) in factors.chunks_exact(ROWS * bytes).enumerate() {
            block[at + i * bytes..][..bytes].copy_from_slice(&factors[bytes * r..][..bytes]);
        }
        let block = &mut block[self.first..][..4 * self.words];
        for (words, word) in words.as_chunks::<{ 4 * ROWS }>().0.iter().zip(block.as_chunks_mut::<4>().0) {
            *word = words.as_chunks::<4>().0[r];
        }
    }
}

/// Four words of each row, word by word.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn four_words(rows: [[[u8; 4]; 4]; ROWS], out: &mut [u8; 16 * ROWS]) {
    for (w, out) in out.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().enumerate() {
        for (out, row) in out.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            *out = row[w];
        }
    }
}

/// Four words of each row, word by word: compilers do not find these transpositions.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn four_words(rows: [[[u8; 4]; 4]; ROWS], out: &mut [u8; 16 * ROWS]) {
    use core::arch::x86_64::*;
    let out = out.as_chunks_mut::<16>().0;
    for (half, four) in rows.as_chunks::<4>().0.iter().enumerate() {
        let [a, b, c, d] = four.map(bytemuck::cast::<[[u8; 4]; 4], __m128i>);
        // SAFETY: SSE2 belongs to the architecture.
        let words = unsafe {
            let low = [_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d)];
            let high = [_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d)];
            [
                _mm_unpacklo_epi64(low[0], low[1]),
                _mm_unpackhi_epi64(low[0], low[1]),
                _mm_unpacklo_epi64(high[0], high[1]),
                _mm_unpackhi_epi64(high[0], high[1]),
            ]
        };
        for (w, word) in words.into_iter().enumerate() {
            out[2 * w + half] = bytemuck::cast::<__m128i, [u8; 16]>(word);
        }
    }
}

/// Rows in an [`InterleavedLayout`], borrowed. The bytes may have any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Interleaved<'a> {
    layout: InterleavedLayout,
    data: &'a [u8],
}

impl<'a> Interleaved<'a> {
    /// Views `data` as rows in `layout`.
    ///
    /// # Errors
    /// If `data` is not exactly as long as the layout says.
    pub fn new(layout: InterleavedLayout, data: &'a [u8]) -> Result<Self, ShapeError> {
        let InterleavedLayout { format, cols, row_bytes, .. } = layout;
        match data.len() == layout.bytes() {
            true => Ok(Self { layout, data }),
            false => Err(ShapeError::Rows { format, cols, row_bytes, bytes: data.len() }),
        }
    }

    /// How the rows are stored.
    pub fn layout(&self) -> &InterleavedLayout {
        &self.layout
    }

    /// Rows `range` alone.
    ///
    /// # Panics
    /// If the range does not begin with a group, or is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Interleaved<'a> {
        let InterleavedLayout { rows, row_bytes, .. } = self.layout;
        assert!(range.start.is_multiple_of(ROWS), "rows {range:?} do not begin at a multiple of {ROWS}");
        assert!(range.start <= range.end && range.end <= rows, "rows {range:?} of {rows}");
        let layout = InterleavedLayout { rows: range.len(), ..self.layout };
        Interleaved { layout, data: &self.data[range.start * row_bytes..][..layout.bytes()] }
    }

    /// The bytes of all groups.
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    pub(crate) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Writes block `b` of row `r` as it was: the inverse of [`InterleavedLayout::interleave`].
    ///
    /// # Panics
    /// If a number is out of range, or `block` is not as long as a block.
    pub fn restore_block(&self, r: usize, b: usize, block: &mut [u8]) {
        let InterleavedLayout { format, rows, row_bytes, parts, .. } = self.layout;
        assert!(r < rows, "row {r} of {rows}");
        assert_eq!(block.len(), format.block_bytes(), "restore_block: length of a block");
        let group = &self.data[r / ROWS * ROWS * row_bytes..][..ROWS * row_bytes];
        parts.get(r % ROWS, &group[b * ROWS * block.len()..][..ROWS * block.len()], block);
    }

    /// Writes the rows as they were.
    ///
    /// # Panics
    /// If `out` is not as long as the rows.
    pub fn restore(&self, out: &mut [u8]) {
        let InterleavedLayout { format, rows, row_bytes, .. } = self.layout;
        assert_eq!(out.len(), rows * row_bytes, "restore: length of out");
        for (r, row) in out.chunks_exact_mut(row_bytes).enumerate() {
            for (b, block) in row.chunks_exact_mut(format.block_bytes()).enumerate() {
                self.restore_block(r, b, block);
            }
        }
    }
}
