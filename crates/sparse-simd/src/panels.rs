//! Rows sixteen side by side in cache lines: weights that are packed once, when they are loaded, for products that
//! need no sums across lanes and no packing.
//!
//! Sixteen rows are a *panel*, a sequence of lines of 64 bytes; lane `i` of a line belongs to row `i` of the panel:
//!
//! ```text
//! f32:   biases | values of column 0 | of column 1 | ..
//! int8:  biases | scales | -128 times the sums of the codes (i32) | codes of columns 0 to 3 | of 4 to 7 | ..
//! ```
//!
//! An int8 value is `scale * code` with codes in -127..=127 and one scale per row. Lanes without a row and columns
//! that fill a line up are zeros.

use core::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::ShapeError;
use crate::int8;

/// A cache line of packed weights. Memory for them is allocated as lines, so that no load crosses two.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

impl Line {
    /// Sixteen zeros of either kind.
    pub const ZERO: Self = Self([0; 64]);

    /// Sixteen values, one per row.
    #[inline(always)]
    pub(crate) fn floats(&self) -> &[f32; 16] {
        bytemuck::cast_ref(self)
    }

    /// Sixteen integers, one per row.
    #[inline(always)]
    pub(crate) fn integers(&self) -> &[i32; 16] {
        bytemuck::cast_ref(self)
    }

    /// Four codes for each of sixteen rows.
    #[inline(always)]
    pub(crate) fn codes(&self) -> &[[i8; 4]; 16] {
        bytemuck::cast_ref(self)
    }
}

/// How the values of packed weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PanelKind {
    /// 32-bit floats.
    F32,
    /// Integers of 8 bits, with one scale per row.
    Int8,
}

impl PanelKind {
    /// Columns in a line.
    fn columns(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Int8 => 4,
        }
    }

    /// Lines before the columns.
    fn head(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Int8 => 3,
        }
    }
}

/// Where the parts of packed weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    kind: PanelKind,
    rows: usize,
    cols: usize,
}

impl PanelLayout {
    /// Rows in a panel.
    pub const ROWS: usize = 16;

    /// The most columns of int8 weights: sums of products stay below 2^31.
    pub const MAX_INT8_COLS: usize = i32::MAX as usize / (127 * 127);

    /// The layout of `rows` rows of `cols` values.
    ///
    /// # Errors
    /// If there are no rows or columns, more columns than [`MAX_INT8_COLS`](Self::MAX_INT8_COLS) in int8, or the
    /// whole is too large to address.
    pub fn new(kind: PanelKind, rows: usize, cols: usize) -> Result<Self, ShapeError> {
        let layout = Self { kind, rows, cols };
        let lines = layout.stride().checked_mul(rows.div_ceil(Self::ROWS));
        let addressable = lines.is_some_and(|lines| lines <= isize::MAX as usize / size_of::<Line>());
        let exact = kind == PanelKind::F32 || cols <= Self::MAX_INT8_COLS;
        match rows > 0 && cols > 0 && addressable && exact {
            true => Ok(layout),
            false => Err(ShapeError::Panels { rows, cols }),
        }
    }

    /// How values are stored.
    pub fn kind(&self) -> PanelKind {
        self.kind
    }

    /// Number of rows: outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row: inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Lines of all panels.
    pub fn lines(&self) -> usize {
        self.rows.div_ceil(Self::ROWS) * self.stride()
    }

    /// Lines of a panel.
    fn stride(&self) -> usize {
        self.cols.div_ceil(self.kind.columns()).saturating_add(self.kind.head())
    }

    /// Writes row `r` and its bias into `lines`, which are zeros where no row has been written.
    ///
    /// In int8 the scale is a 127th of the row's largest magnitude, and codes are rounded to nearest, ties to even. A
    /// row with NaN or infinity gets a scale of NaN, so that every product with it is NaN.
    ///
    /// # Panics
    /// If `r` is out of range, or a length does not fit.
    pub fn write(&self, r: usize, row: &[f32], bias: f32, lines: &mut [Line]) {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        assert_eq!((row.len(), lines.len()), (self.cols, self.lines()), "values of a row, lines");
        let (panel, lane) = (r / Self::ROWS, r % Self::ROWS);
        let (head, columns) = lines[panel * self.stride()..][..self.stride()].split_at_mut(self.kind.head());
        let mut set = |i: usize, x: [u8; 4]| head[i].0[4 * lane..][..4].copy_from_slice(&x);
        set(0, bias.to_le_bytes());
        match self.kind {
            PanelKind::F32 => {
                for (line, x) in columns.iter_mut().zip(row) {
                    line.0[4 * lane..][..4].copy_from_slice(&x.to_le_bytes());
                }
            }
            PanelKind::Int8 => {
                let (scale, inverse) = int8::scale(int8::magnitude(row));
                set(1, scale.to_le_bytes());
                let mut sum = 0i32;
                for (line, four) in columns.iter_mut().zip(row.chunks(4)) {
                    for (to, x) in line.0[4 * lane..].iter_mut().zip(four) {
                        let code = int8::code(*x, inverse);
                        *to = code as u8;
                        sum += i32::from(code);
                    }
                }
                // May wrap around in the widest rows, as the sums of products do on their way back.
                set(2, sum.wrapping_mul(-128).to_le_bytes());
            }
        }
    }
}

/// Weights in a [`PanelLayout`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    layout: PanelLayout,
    lines: &'a [Line],
}

impl<'a> Panels<'a> {
    /// Views `lines` as rows in `layout`.
    ///
    /// # Errors
    /// If there are not exactly as many lines as the layout says.
    pub fn new(layout: PanelLayout, lines: &'a [Line]) -> Result<Self, ShapeError> {
        match lines.len() == layout.lines() {
            true => Ok(Self { layout, lines }),
            false => Err(ShapeError::PanelLines { expected: layout.lines(), found: lines.len() }),
        }
    }

    /// Where the parts are.
    pub fn layout(&self) -> &PanelLayout {
        &self.layout
    }

    /// Rows `range` alone.
    ///
    /// # Panics
    /// If the range is empty, does not begin with a panel, or is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Panels<'a> {
        let (panel, rows) = (PanelLayout::ROWS, self.layout.rows);
        assert!(range.start.is_multiple_of(panel), "rows {range:?} do not begin at a multiple of {panel}");
        assert!(range.start < range.end && range.end <= rows, "rows {range:?} of {rows}");
        let stride = self.layout.stride();
        let lines = &self.lines[range.start / panel * stride..range.end.div_ceil(panel) * stride];
        Panels { layout: PanelLayout { rows: range.len(), ..self.layout }, lines }
    }

    /// The lines from panel `i` on, and how many there are from it to the next panel: none, if it is the last one.
    #[inline(always)]
    pub(crate) fn from(&self, i: usize) -> (&'a [Line], usize) {
        let lines = &self.lines[i * self.layout.stride()..];
        (lines, if lines.len() > self.layout.stride() { self.layout.stride() } else { 0 })
    }

    /// The lines of the first panel of `lines`: those before its columns, and those of its columns.
    #[inline(always)]
    pub(crate) fn split(&self, lines: &'a [Line]) -> (&'a [Line], &'a [Line]) {
        lines[..self.layout.stride()].split_at(self.layout.kind.head())
    }
}
