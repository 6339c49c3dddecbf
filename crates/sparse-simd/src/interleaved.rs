//! Eight rows side by side, so that a vector register holds the same columns of all of them.
//!
//! Products need no sums across a register then, and eight rows share one conversion and one multiplication by their
//! scales. The bytes are those of the rows in another order; [`Interleaved::restore`] gives them back.
//!
//! A *group* is eight rows. It is stored block by block, and of each block column:
//!
//! ```text
//! half-precision factors:  d of rows 0..8 (8 x f16) | the second factor of rows 0..8, if any
//! everything else:         bytes 0..4 of rows 0..8 | bytes 4..8 of rows 0..8, and so on
//! ```
//!
//! The last group is filled up with rows of zeros.

use core::ops::Range;

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
    /// format's values are floats, or its blocks are not half-precision factors and whole words of four bytes.
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
    /// Where the half-precision factors are: at the beginning or at the end.
    halves: &'static [usize],
    /// Where everything else begins.
    first: usize,
    /// How long that is, in words of four bytes.
    words: usize,
}

impl Parts {
    /// `None` if the format has no such parts.
    fn of(format: BlockFormat) -> Option<Self> {
        if !format.is_quantized() {
            return None;
        }
        let halves = format.recipe().map_or(&[][..], |recipe| recipe.halves);
        let rest = format.block_bytes() - 2 * halves.len();
        let follow = |first: usize| halves.iter().enumerate().all(|(i, at)| *at == first + 2 * i);
        let first = match (follow(0), follow(rest)) {
            (true, _) => 2 * halves.len(),
            (false, true) => 0,
            (false, false) => return None,
        };
        rest.is_multiple_of(4).then_some(Self { halves, first, words: rest / 4 })
    }

    /// Writes `block` as row `r` of `tile`.
    #[inline(always)]
    fn put(self, r: usize, block: &[u8], tile: &mut [u8]) {
        let (factors, words) = tile.split_at_mut(2 * ROWS * self.halves.len());
        for (factors, at) in factors.as_chunks_mut::<{ 2 * ROWS }>().0.iter_mut().zip(self.halves) {
            factors[2 * r..2 * r + 2].copy_from_slice(&block[*at..at + 2]);
        }
        let block = &block[self.first..][..4 * self.words];
        for (words, word) in words.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().zip(block.as_chunks::<4>().0)
        {
            words.as_chunks_mut::<4>().0[r] = *word;
        }
    }

    /// Reads `block` from row `r` of `tile`.
    fn get(self, r: usize, tile: &[u8], block: &mut [u8]) {
        let (factors, words) = tile.split_at(2 * ROWS * self.halves.len());
        for (factors, at) in factors.as_chunks::<{ 2 * ROWS }>().0.iter().zip(self.halves) {
            block[*at..at + 2].copy_from_slice(&factors[2 * r..2 * r + 2]);
        }
        let block = &mut block[self.first..][..4 * self.words];
        for (words, word) in words.as_chunks::<{ 4 * ROWS }>().0.iter().zip(block.as_chunks_mut::<4>().0) {
            *word = words.as_chunks::<4>().0[r];
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
