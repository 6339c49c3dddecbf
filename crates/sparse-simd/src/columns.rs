//! Weights stored column by column, so that skipping a column saves its bytes. docs/ffn-bench.md has what that is worth, by shape
//! and density.
//!
//! A quantized row-major matrix keeps the codes of one column in as many blocks as there are rows: leaving a column
//! out saves nothing. Here the same codes, scales and minima are sorted the other way round; nothing is rounded, and
//! [`Columns::restore`] gives the original bytes back.
//!
//! Columns come in *super-groups*, as wide as a block of the format, and these in *groups* that share a scale, 16 or
//! 32 columns wide:
//!
//! ```text
//! super-group:  d of all rows (f16) | m of all rows (f16), if any | groups
//! group:        scale of each row (i8) | minimum of each row (i8), K formats only | columns
//! column:       chunks of 64 rows: bits 0..4 of 64 codes (32 bytes) | bit 4 (8 bytes), and so on
//! ```
//!
//! Rows are padded to whole chunks with zeros, so that kernels read whole vectors. A chunk keeps its codes in the
//! order of [`place`]. F32, F16 and BF16 columns are just their values, without padding.

mod apart;
mod recipe;
mod relayout;

use apart::Codes;

use crate::{BlockFormat, ShapeError};
pub(crate) use recipe::{Code, Recipe, SubScales, plane, unpack, write_codes};

/// Where code `row` of a chunk of 64 is: rows are taken by fours, and these as a 4 x 4 matrix, transposed.
///
/// Interleaving the bytes of four columns, as the kernels do, transposes inside vectors of 16 bytes. This order is
/// what makes sums come out in the order of rows, for vectors of 16, 32 and 64 bytes alike. It is its own inverse.
pub(crate) const fn place(row: usize) -> usize {
    row / 4 % 4 * 16 + row / 16 * 4 + row % 4
}

/// Which rows or columns take part in a product, in ascending order.
pub(crate) trait Choice: Copy {
    /// Whether they may be far apart, so that the hardware does not know what comes next.
    #[allow(dead_code, reason = "only vector kernels prefetch")]
    const SCATTERED: bool;
    /// How many.
    fn count(self) -> usize;
    /// Number `i` of them.
    fn get(self, i: usize) -> usize;
}

/// So many, the first ones.
#[derive(Clone, Copy)]
pub(crate) struct All(pub(crate) usize);

impl Choice for All {
    const SCATTERED: bool = false;

    #[inline(always)]
    fn count(self) -> usize {
        self.0
    }

    #[inline(always)]
    fn get(self, i: usize) -> usize {
        i
    }
}

impl Choice for &[u32] {
    const SCATTERED: bool = true;

    #[inline(always)]
    fn count(self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn get(self, i: usize) -> usize {
        self[i] as usize
    }
}

/// Either of these, where code for each would take longer to compile than it saves.
#[allow(dead_code, reason = "only vector kernels take either")]
#[derive(Clone, Copy)]
pub(crate) enum Either<'a> {
    All(usize),
    Some(&'a [u32]),
}

impl Choice for Either<'_> {
    const SCATTERED: bool = true;

    #[inline(always)]
    fn count(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Some(active) => active.len(),
        }
    }

    #[inline(always)]
    fn get(self, i: usize) -> usize {
        match self {
            Self::All(_) => i,
            Self::Some(active) => active[i] as usize,
        }
    }
}

/// How many of the columns from number `i` on are in the same group of `group` columns.
#[inline(always)]
pub(crate) fn run_of_group(active: impl Choice, i: usize, group: usize) -> usize {
    let end = (active.get(i) / group + 1) * group;
    (i..active.count()).take_while(|&k| active.get(k) < end).count()
}

/// Where the parts of a `[rows x cols]` matrix are in a column-major copy.
///
/// The copy is as long as the original if the rows are a multiple of 64, but for Q3_K (3.6 % more), Q4_K (2.8 %),
/// Q5_K (2.3 %) and IQ4_XS (1.5 %), whose 6-bit scales become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnLayout {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    /// Columns of a group.
    group: usize,
    column_bytes: usize,
    group_bytes: usize,
    super_bytes: usize,
}

impl ColumnLayout {
    /// Rows per chunk. Kernels work on ranges of rows that begin at a multiple of this.
    pub const CHUNK: usize = 64;

    /// The layout of a matrix in `format`.
    ///
    /// # Errors
    /// If the format [cannot be stored by columns](BlockFormat::has_columns), `cols` is zero or no multiple of the
    /// format's block length, or the matrix is too large to address.
    pub fn new(format: BlockFormat, rows: usize, cols: usize) -> Result<Self, ShapeError> {
        if !format.has_columns() {
            return Err(ShapeError::NoColumns { format });
        }
        Self::checked(format, rows, cols).ok_or(ShapeError::Cols { format, cols })
    }

    fn checked(format: BlockFormat, rows: usize, cols: usize) -> Option<Self> {
        if cols == 0 || !cols.is_multiple_of(format.block_len()) {
            return None;
        }
        let group = format.recipe().map_or(1, |recipe| recipe.group);
        let mut layout = Self { format, rows, cols, group, column_bytes: 0, group_bytes: 0, super_bytes: 0 };
        match format.recipe() {
            None => {
                layout.column_bytes = rows.checked_mul(format.block_bytes())?;
                (layout.group_bytes, layout.super_bytes) = (layout.column_bytes, layout.column_bytes);
            }
            Some(recipe) => {
                let padded = rows.checked_next_multiple_of(Self::CHUNK)?;
                layout.column_bytes = (padded / Self::CHUNK).checked_mul(recipe.chunk_bytes())?;
                let codes = layout.column_bytes.checked_mul(recipe.group)?;
                layout.group_bytes = padded.checked_mul(recipe.subs.bytes())?.checked_add(codes)?;
                let groups = layout.group_bytes.checked_mul(format.block_len() / recipe.group)?;
                layout.super_bytes = padded.checked_mul(2 * recipe.halves.len())?.checked_add(groups)?;
            }
        }
        layout.super_bytes.checked_mul(cols / format.block_len())?;
        Some(layout)
    }

    /// How the weights are stored.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of the whole copy.
    pub fn bytes(&self) -> usize {
        self.cols / self.format.block_len() * self.super_bytes
    }

    /// Bytes of one column's codes.
    pub fn column_bytes(&self) -> usize {
        self.column_bytes
    }

    /// Bytes that a product with the columns in `active` (ascending) reads: their codes, and the scales of every
    /// group that one of them is in.
    pub fn bytes_of(&self, active: &[u32]) -> usize {
        let codes = active.len() * self.column_bytes;
        let Some(recipe) = self.format.recipe() else { return codes };
        let (block, group) = (self.format.block_len(), recipe.group);
        let factors = self.super_bytes - block / group * self.group_bytes;
        let scales = self.group_bytes - group * self.column_bytes;
        let touched = |len: usize| active.chunk_by(|a, b| *a as usize / len == *b as usize / len).count();
        codes + touched(block) * factors + if scales == 0 { 0 } else { touched(group) * scales }
    }

    /// Rows with padding.
    pub(crate) fn padded(&self) -> usize {
        self.rows.next_multiple_of(Self::CHUNK)
    }

    /// Where the factors begin of the super-group that column `c` is in.
    pub(crate) fn super_at(&self, c: usize) -> usize {
        c / self.format.block_len() * self.super_bytes
    }

    /// Where the scales begin of the group that column `c` is in; `group` columns are one.
    pub(crate) fn group_at(&self, c: usize, group: usize) -> usize {
        let len = self.format.block_len();
        let groups = self.super_at(c) + self.super_bytes - len / group * self.group_bytes;
        groups + c % len / group * self.group_bytes
    }

    /// Where column `c` begins; `group` columns are one group.
    #[inline(always)]
    pub(crate) fn column_at(&self, c: usize, group: usize) -> usize {
        self.group_at(c, group) + self.group_bytes - (group - c % group) * self.column_bytes
    }
}

/// A matrix in a [`ColumnLayout`], borrowed. The bytes may have any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    layout: ColumnLayout,
    data: &'a [u8],
    codes: Codes<'a>,
}

impl<'a> Columns<'a> {
    /// Views `data` as a matrix in `layout`.
    ///
    /// # Errors
    /// If `data` is not exactly as long as the layout says.
    pub fn new(layout: ColumnLayout, data: &'a [u8]) -> Result<Self, ShapeError> {
        if data.len() != layout.bytes() {
            let ColumnLayout { format, rows, cols, .. } = layout;
            return Err(ShapeError::Columns {
                format,
                rows,
                cols,
                expected: layout.bytes(),
                found: data.len(),
            });
        }
        Ok(Self { layout, data, codes: Codes::Inside })
    }

    /// Where the parts are.
    pub fn layout(&self) -> &ColumnLayout {
        &self.layout
    }

    /// How the weights are stored.
    pub fn format(&self) -> BlockFormat {
        self.layout.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// All the bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The codes of column `c`, or its values if they are floats.
    pub(crate) fn column(&self, c: usize) -> &'a [u8] {
        let (all, at) = self.place(c, self.layout.group);
        &all[at..][..self.layout.column_bytes]
    }

    /// Where the codes of column `c` begin; `group` columns are one group. For kernels: bounds are checked before.
    #[inline(always)]
    #[allow(dead_code, reason = "builds without vectors have no such kernels")]
    pub(crate) fn column_ptr(&self, c: usize, group: usize) -> *const u8 {
        let (all, at) = self.place(c, group);
        all.as_ptr().wrapping_add(at)
    }
}
