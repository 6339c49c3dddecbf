//! Products with weights stored by columns: the order of things, which all levels share.
//!
//! Active columns are taken a group at a time. A level multiplies a chunk of 64 rows of the group by interleaving the
//! codes of four columns, so that a lane holds four codes of a row, with one broadcast dword of activations; the sums
//! stay in registers, and the group's scales are applied once.

use super::shared::{prefetch_bytes, prefetch_far};
use crate::columns::{Choice, Recipe, SubScales, run_of_group};
use crate::{BlockFormat, ColumnLayout, Columns, Q8};
use core::ops::Range;

pub(super) const CHUNK: usize = ColumnLayout::CHUNK;

/// Chunks of a column that are fetched one after the other, while those of the group before are multiplied.
const AHEAD: usize = 8;

/// How a level multiplies the columns of a format.
pub(super) trait ColumnKernel {
    const FORMAT: BlockFormat;
    /// What is subtracted from each code as the kernel reads it.
    const OFFSET: i32;
    /// Whether there is a minimum beside each scale, added (1) or subtracted (-1).
    const MINS: i32;
    const RECIPE: Recipe = match Recipe::of(Self::FORMAT) {
        Some(recipe) => recipe,
        None => panic!("not quantised"),
    };

    /// Adds to `out` the products of the chunk at byte `offset` of some columns of `group`, rows `row..row + 64`.
    ///
    /// # Safety
    /// - The CPU has the level's features.
    /// - The format is [`FORMAT`](Self::FORMAT), and the columns and the group have the chunk.
    unsafe fn chunk(columns: &Fours, offset: usize, group: &Group, row: usize, out: &mut [f32; CHUNK]);
}

/// Up to 32 columns in fours, and the activations that they are multiplied with.
pub(super) struct Fours {
    columns: [*const u8; 32],
    h: [i8; 32],
    fours: usize,
}

impl Fours {
    /// Four columns at a time, and their activations.
    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[*const u8; 4], i32)> {
        let fours = self.columns.as_chunks::<4>().0.iter().zip(self.h.as_chunks::<4>().0);
        fours.take(self.fours).map(|(columns, h)| (columns, i32::from_le_bytes(h.map(|h| h as u8))))
    }
}

/// The factors of a group of columns.
pub(super) struct Group {
    /// Half-precision scales and minima of all rows.
    pub(super) d: *const u8,
    pub(super) m: *const u8,
    /// 8-bit scales and minima of all rows.
    pub(super) scale: *const u8,
    pub(super) min: *const u8,
    /// Scale of the activations.
    pub(super) dh: f32,
    /// What minima are multiplied with.
    pub(super) total: f32,
    /// What the offset takes from every sum.
    pub(super) begin: i32,
}

impl Group {
    /// The group that column `c` is in, for activations whose sum is `total`.
    #[inline(always)]
    pub(super) fn new<K: ColumnKernel>(w: Columns<'_>, c: usize, dh: f32, total: i32) -> Self {
        let (layout, data) = (w.layout(), w.data().as_ptr());
        let d = data.wrapping_add(layout.super_at(c));
        let scale = data.wrapping_add(layout.group_at(c, K::RECIPE.group));
        let padded = layout.padded();
        Self {
            d,
            m: d.wrapping_add(2 * padded),
            scale,
            min: scale.wrapping_add(padded),
            dh,
            total: dh * (K::MINS * total) as f32,
            begin: -K::OFFSET * total,
        }
    }

    /// Fetches the factors of a chunk of rows, but for those that `other` has too.
    #[inline(always)]
    fn prefetch<K: ColumnKernel>(&self, row: usize, other: &Group) {
        if self.d != other.d {
            prefetch_bytes(self.d.wrapping_add(2 * row), 2 * CHUNK);
            if K::MINS != 0 {
                prefetch_bytes(self.m.wrapping_add(2 * row), 2 * CHUNK);
            }
        }
        if K::RECIPE.subs != SubScales::None {
            prefetch_bytes(self.scale.wrapping_add(row), CHUNK);
        }
        if K::RECIPE.subs == SubScales::Both {
            prefetch_bytes(self.min.wrapping_add(row), CHUNK);
        }
    }
}

/// `out` = sum over the active columns of activation times column, for the rows `rows`.
///
/// # Safety
/// - The CPU has the level's features.
/// - The format of `w` is the kernel's, and the shapes fit together.
#[inline(always)]
pub(super) unsafe fn sum<K: ColumnKernel, C: Choice>(
    w: Columns<'_>,
    active: C,
    h: Q8<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    let (layout, size) = (w.layout(), K::RECIPE.chunk_bytes());
    let skipped = rows.start / CHUNK * size;
    let start = |c| w.data().as_ptr().wrapping_add(layout.column_at(c, K::RECIPE.group) + skipped);
    let chunks = rows.len().div_ceil(CHUNK);
    let span = chunks * size;
    out.fill(0.0);
    if chunks == 0 {
        return;
    }
    let run = |i| if i < active.count() { run_of_group(active, i, K::RECIPE.group) } else { 0 };
    let (mut i, mut n) = (0, run(0));
    while n > 0 {
        let first = active.get(i);
        // What is missing in the last four are zeros times the last column.
        let mut columns = Fours { columns: [core::ptr::null(); 32], h: [0; 32], fours: n.div_ceil(4) };
        for k in 0..columns.fours * 4 {
            let c = active.get(i + k.min(n - 1));
            columns.columns[k] = start(c);
            columns.h[k] = if k < n { h.q[c] } else { 0 };
        }
        let total = columns.h.iter().map(|&h| i32::from(h)).sum();
        let group = Group::new::<K>(w, first, h.d[first / 32], total);
        i += n;
        n = run(i);
        let next = Group::new::<K>(w, active.get(i.min(active.count() - 1)), 0.0, 0);
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let row = rows.start + chunk * CHUNK;
            if C::SCATTERED {
                let offset = chunk * size;
                if chunk.is_multiple_of(AHEAD) {
                    for k in i..i + n {
                        let len = (AHEAD * size).min(span - offset);
                        prefetch_far(start(active.get(k)).wrapping_add(offset), len);
                    }
                }
                next.prefetch::<K>(row, &group);
            }
            // SAFETY: the caller's promises; all columns have all chunks, padded as they are.
            unsafe {
                if let Some(out) = out.first_chunk_mut() {
                    K::chunk(&columns, chunk * size, &group, row, out);
                } else {
                    let mut whole = [0.0; CHUNK];
                    whole[..out.len()].copy_from_slice(out);
                    K::chunk(&columns, chunk * size, &group, row, &mut whole);
                    out.copy_from_slice(&whole[..out.len()]);
                }
            }
        }
    }
}
