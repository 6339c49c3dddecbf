//! Columns whose codes are in a slab, in any order, and whose factors are in memory of their own: for a cache of columns.

use core::ops::Range;

use super::{ColumnLayout, Columns};
use crate::ShapeError;

/// Where the codes of columns are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Codes<'a> {
    /// Among the factors, as the layout says.
    Inside,
    /// Column `c` is number `places[c]` of the slab.
    Apart { slab: &'a [u8], places: &'a [u32] },
}

impl ColumnLayout {
    /// Bytes of the factors of all columns: what is left of a copy without the codes.
    pub fn factor_bytes(&self) -> usize {
        self.factors().map(|range| range.len()).sum()
    }

    /// Where a copy in this layout has its factors.
    fn factors(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let (len, group) = (self.format.block_len(), self.group);
        let scales = self.group_bytes - group * self.column_bytes;
        let supers = 0..if self.format.recipe().is_some() { self.cols / len } else { 0 };
        supers.flat_map(move |s| {
            let start = s * self.super_bytes;
            let groups = start + self.super_bytes - len / group * self.group_bytes;
            let of_groups = (0..len / group).map(move |g| groups + g * self.group_bytes);
            core::iter::once(start..groups).chain(of_groups.map(move |at| at..at + scales))
        })
    }

    /// Where a copy in this layout has the codes of column `c`.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, c: usize) -> Range<usize> {
        assert!(c < self.cols, "column {c} of {}", self.cols);
        let at = self.column_at(c, self.group);
        at..at + self.column_bytes
    }

    /// Takes the factors out of `data`, a copy in this layout.
    ///
    /// # Panics
    /// If the lengths are not [`bytes`](Self::bytes) and [`factor_bytes`](Self::factor_bytes).
    pub fn take_factors(&self, data: &[u8], mut factors: &mut [u8]) {
        assert_eq!((data.len(), factors.len()), (self.bytes(), self.factor_bytes()), "lengths");
        for range in self.factors() {
            let (to, rest) = factors.split_at_mut(range.len());
            to.copy_from_slice(&data[range]);
            factors = rest;
        }
    }

    /// Puts the factors into `data`, a copy in this layout: the inverse of [`take_factors`](Self::take_factors).
    ///
    /// # Panics
    /// As [`take_factors`](Self::take_factors).
    pub fn put_factors(&self, mut factors: &[u8], data: &mut [u8]) {
        assert_eq!((data.len(), factors.len()), (self.bytes(), self.factor_bytes()), "lengths");
        for range in self.factors() {
            let (from, rest) = factors.split_at(range.len());
            data[range].copy_from_slice(from);
            factors = rest;
        }
    }
}

impl<'a> Columns<'a> {
    /// Views columns whose codes are apart from their factors, for [`axpy_columns_q8`](crate::Kernels::axpy_columns_q8) and
    /// [`axpy_columns_f32`](crate::Kernels::axpy_columns_f32). The codes of column `c` are piece `places[c]` of `slab`, which
    /// has pieces of [`column_bytes`](ColumnLayout::column_bytes); the places of columns that are not active may be any.
    ///
    /// # Errors
    /// If there are not as many places as columns, or not as many factors as the layout says.
    pub fn apart(
        layout: ColumnLayout,
        factors: &'a [u8],
        slab: &'a [u8],
        places: &'a [u32],
    ) -> Result<Self, ShapeError> {
        let ColumnLayout { format, rows, cols, .. } = layout;
        if factors.len() != layout.factor_bytes() {
            let (expected, found) = (layout.factor_bytes(), factors.len());
            return Err(ShapeError::Columns { format, rows, cols, expected, found });
        }
        if places.len() != cols {
            return Err(ShapeError::Cols { format, cols: places.len() });
        }
        // What is left of the layout without codes.
        let codes = layout.group * layout.column_bytes;
        let groups = format.block_len() / layout.group;
        let layout = ColumnLayout {
            group_bytes: layout.group_bytes - codes,
            super_bytes: layout.super_bytes - groups * codes,
            ..layout
        };
        Ok(Self { layout, data: factors, codes: Codes::Apart { slab, places } })
    }

    /// Whether codes are apart from factors.
    pub(crate) fn is_apart(&self) -> bool {
        matches!(self.codes, Codes::Apart { .. })
    }

    /// Panics unless the slab has all of the columns `active`, which exist.
    #[track_caller]
    pub(crate) fn check_places(&self, active: &[u32]) {
        if let Codes::Apart { slab, places } = self.codes {
            let last = active.iter().fold(0, |last, c| last.max(places[*c as usize]));
            let held = slab.len().checked_div(self.layout.column_bytes).unwrap_or(usize::MAX);
            assert!(active.is_empty() || (last as usize) < held, "a column is piece {last} of {held}");
        }
    }

    /// The bytes that the codes of column `c` are among, and where they begin.
    #[inline(always)]
    pub(super) fn place(&self, c: usize, group: usize) -> (&'a [u8], usize) {
        match self.codes {
            Codes::Inside => (self.data, self.layout.column_at(c, group)),
            Codes::Apart { slab, places } => (slab, places[c] as usize * self.layout.column_bytes),
        }
    }
}
