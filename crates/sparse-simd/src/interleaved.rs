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
    pub fn interleave(&self, w: Rows<'_>, out: &mut [u8]) {
        assert_eq!((w.format(), w.cols()), (self.format, self.cols), "interleave: w and layout");
        let (parts, size) = (self.parts, self.format.block_bytes());
        let groups = w.rows().div_ceil(ROWS);
        assert_eq!(out.len(), groups * ROWS * self.row_bytes, "interleave: length of out");
        for (g, group) in out.chunks_exact_mut(ROWS * self.row_bytes).enumerate() {
            let rows = w.slice(g * ROWS..w.rows().min((g + 1) * ROWS));
            if rows.rows() < ROWS {
                group.fill(0);
            }
            for r in 0..rows.rows() {
                let blocks = rows.row(r).chunks_exact(size);
                for (block, tile) in blocks.zip(group.chunks_exact_mut(ROWS * size)) {
                    parts.put(r, block, tile);
                }
            }
        }
    }
}

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
    /// Bytes of each, one or two.
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

    /// Writes `block` as row `r` of `tile`. Transposing words in registers is no faster: this waits for memory.
    #[inline(always)]
    fn put(self, r: usize, block: &[u8], tile: &mut [u8]) {
        let (factors, words) = tile.split_at_mut(self.head());
        let Factors { at, bytes, count } = self.factors;
        match bytes {
            1 => spread::<1>(r, &block[at..][..count], factors),
            _ => spread::<2>(r, &block[at..][..2 * count], factors),
        }
        spread::<4>(r, &block[self.first..][..4 * self.words], words);
    }

    /// Reads `block` from row `r` of `tile`.
    fn get(self, r: usize, tile: &[u8], block: &mut [u8]) {
        let (factors, words) = tile.split_at(self.head());
        let Factors { at, bytes, count } = self.factors;
        match bytes {
            1 => collect::<1>(r, factors, &mut block[at..][..count]),
            _ => collect::<2>(r, factors, &mut block[at..][..2 * count]),
        }
        collect::<4>(r, words, &mut block[self.first..][..4 * self.words]);
    }
}

/// Writes the parts of row `r`, of `N` bytes each, beside those of the other rows.
#[inline(always)]
fn spread<const N: usize>(r: usize, row: &[u8], all: &mut [u8]) {
    let all = all.as_chunks_mut::<N>().0.as_chunks_mut::<ROWS>().0;
    all.iter_mut().zip(row.as_chunks::<N>().0).for_each(|(parts, part)| parts[r] = *part);
}

/// The inverse of [`spread`].
fn collect<const N: usize>(r: usize, all: &[u8], row: &mut [u8]) {
    let all = all.as_chunks::<N>().0.as_chunks::<ROWS>().0;
    all.iter().zip(row.as_chunks_mut::<N>().0).for_each(|(parts, part)| *part = parts[r]);
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
