//! Products with weights stored by columns: the order of things, which all levels share.
//!
//! Active columns are taken a group at a time. A level multiplies a chunk of 64 rows of the group by interleaving the
//! codes of four columns, so that a lane holds four codes of a row, with one broadcast dword of activations; the sums
//! stay in registers, and the group's scales are applied once.

pub(crate) mod pairs;

use super::prefetch::prefetch_far;
use crate::columns::{Choice, Either, Recipe, SubScales, run_of_group};
use crate::{BlockFormat, ColumnLayout, Columns, Q8};
use core::marker::PhantomData;
use core::ops::Range;

pub(crate) const CHUNK: usize = ColumnLayout::CHUNK;

/// Cache lines that are fetched ahead of those that are multiplied: enough to cover the latency of DRAM.
const AHEAD: usize = 64;

/// How a level multiplies the columns of a format.
pub(crate) trait ColumnKernel {
    const FORMAT: BlockFormat;
    /// What is subtracted from each code as the kernel reads it.
    const OFFSET: i32;
    /// Whether there is a minimum beside each scale, added (1) or, as the K formats have it, subtracted (-1).
    const MINS: i32 = match (Self::RECIPE.halves.len(), Self::RECIPE.subs) {
        (1, _) => 0,
        (_, SubScales::None) => 1,
        _ => -1,
    };
    const RECIPE: Recipe = match Self::FORMAT.recipe() {
        Some(recipe) => recipe,
        None => panic!("not stored by columns"),
    };

    /// Adds to `out` the products of the chunk at byte `offset` of some columns of `group`, rows `row..row + 64`.
    ///
    /// # Safety
    /// - The CPU has the level's features.
    /// - The format is [`FORMAT`](Self::FORMAT), and the columns and the group have the chunk.
    unsafe fn chunk(columns: &Fours, offset: usize, group: &Group, row: usize, out: &mut [f32; CHUNK]);
}

/// Up to 32 columns in fours, and the activations that they are multiplied with.
pub(crate) struct Fours {
    columns: [*const u8; 32],
    h: [i8; 32],
    fours: usize,
}

impl Fours {
    /// Four columns at a time, and their activations.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[*const u8; 4], i32)> {
        let fours = self.columns.as_chunks::<4>().0.iter().zip(self.h.as_chunks::<4>().0);
        fours.take(self.fours).map(|(columns, h)| (columns, i32::from_le_bytes(h.map(|h| h as u8))))
    }
}

/// The factors of a group of columns.
pub(crate) struct Group {
    /// Half-precision scales and minima of all rows.
    pub(crate) d: *const u8,
    pub(crate) m: *const u8,
    /// 8-bit scales and minima of all rows.
    pub(crate) scale: *const u8,
    pub(crate) min: *const u8,
    /// Scale of the activations.
    pub(crate) dh: f32,
    /// What minima are multiplied with.
    pub(crate) total: f32,
    /// What the offset takes from every sum.
    pub(crate) begin: i32,
}

impl Group {
    /// The group that column `c` is in, for activations whose sum is `total`.
    #[inline(always)]
    pub(crate) fn new<K: ColumnKernel>(w: Columns<'_>, c: usize, dh: f32, total: i32) -> Self {
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
}

/// Fetches what a product will read, in its order: columns, and the factors of a group before its first column.
struct Ahead<'a, K> {
    w: Columns<'a>,
    active: Either<'a>,
    rows: Range<usize>,
    /// The next column.
    i: usize,
    /// Factors that were fetched last.
    d: *const u8,
    scale: *const u8,
    /// Stretches that are fetched next, the last one first, and how many.
    stretches: [(*const u8, usize); 5],
    waiting: usize,
    kernel: PhantomData<K>,
}

impl<'a, K: ColumnKernel> Ahead<'a, K> {
    #[inline(always)]
    fn new(w: Columns<'a>, active: Either<'a>, rows: Range<usize>) -> Self {
        let none = core::ptr::null();
        Self {
            w,
            active,
            rows,
            i: 0,
            d: none,
            scale: none,
            stretches: [(none, 0); 5],
            waiting: 0,
            kernel: PhantomData,
        }
    }

    /// Lines to fetch so that [`AHEAD`] are there behind the group of `n` columns from number `i` on.
    #[inline(always)]
    fn missing(&self, i: usize, n: usize) -> usize {
        let rows = self.rows.len();
        let column = (rows.div_ceil(CHUNK) * K::RECIPE.chunk_bytes()).div_ceil(64);
        let factors = (2 * rows * (1 + usize::from(K::MINS != 0)) + rows * K::RECIPE.subs.bytes()) / 64;
        let waiting: usize = self.stretches[..self.waiting].iter().map(|s| s.1).sum();
        (n * column + factors + AHEAD + waiting).saturating_sub(self.i.saturating_sub(i) * column)
    }

    /// Fetches so many lines.
    #[inline(always)]
    fn fetch(&mut self, mut lines: usize) {
        while lines > 0 {
            if self.waiting == 0 && !self.next_column() {
                return;
            }
            let (at, left) = &mut self.stretches[self.waiting - 1];
            let n = lines.min(*left);
            prefetch_far(*at, n * 64);
            (*at, *left, lines) = (at.wrapping_add(n * 64), *left - n, lines - n);
            self.waiting -= usize::from(*left == 0);
        }
    }

    /// Looks up what the next column needs; false if there is none.
    fn next_column(&mut self) -> bool {
        if self.i >= self.active.count() {
            return false;
        }
        let (c, rows) = (self.active.get(self.i), self.rows.clone());
        self.i += 1;
        let skipped = rows.start / CHUNK * K::RECIPE.chunk_bytes();
        let column = self.w.column_ptr(c, K::RECIPE.group);
        self.push(column.wrapping_add(skipped), rows.len().div_ceil(CHUNK) * K::RECIPE.chunk_bytes());
        let group = Group::new::<K>(self.w, c, 0.0, 0);
        if group.scale != self.scale && K::RECIPE.subs != SubScales::None {
            self.scale = group.scale;
            self.push(group.scale.wrapping_add(rows.start), rows.len());
            if K::RECIPE.subs == SubScales::Both {
                self.push(group.min.wrapping_add(rows.start), rows.len());
            }
        }
        if group.d != self.d {
            self.d = group.d;
            self.push(group.d.wrapping_add(2 * rows.start), 2 * rows.len());
            if K::MINS != 0 {
                self.push(group.m.wrapping_add(2 * rows.start), 2 * rows.len());
            }
        }
        true
    }

    #[inline(always)]
    fn push(&mut self, at: *const u8, len: usize) {
        self.stretches[self.waiting] = (at, len.div_ceil(64));
        self.waiting += 1;
    }
}

/// `out` = sum over the active columns of activation times column, for the rows `rows`.
///
/// # Safety
/// - The CPU has the level's features.
/// - The format of `w` is the kernel's, and the shapes fit together.
#[inline(always)]
pub(crate) unsafe fn sum<K: ColumnKernel>(
    w: Columns<'_>,
    active: Either<'_>,
    h: Q8<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    let size = K::RECIPE.chunk_bytes();
    let skipped = rows.start / CHUNK * size;
    let start = |c| w.column_ptr(c, K::RECIPE.group).wrapping_add(skipped);
    let chunks = rows.len().div_ceil(CHUNK);
    out.fill(0.0);
    if chunks == 0 {
        return;
    }
    let mut ahead = Ahead::<K>::new(w, active, rows.clone());
    let run = |i| if i < active.count() { run_of_group(active, i, K::RECIPE.group) } else { 0 };
    let (mut i, mut n) = (0, run(0));
    ahead.fetch(ahead.missing(0, n));
    while n > 0 {
        // What is missing in the last four are zeros times the last column.
        let mut columns = Fours { columns: [core::ptr::null(); 32], h: [0; 32], fours: n.div_ceil(4) };
        for k in 0..columns.fours * 4 {
            let c = active.get(i + k.min(n - 1));
            columns.columns[k] = start(c);
            columns.h[k] = if k < n { h.q[c] } else { 0 };
        }
        let first = active.get(i);
        let total = columns.h.iter().map(|&h| i32::from(h)).sum();
        let group = Group::new::<K>(w, first, h.d[first / 32], total);
        i += n;
        n = run(i);
        // While this group is multiplied, what comes next is fetched bit by bit: lines per chunk in 1/256.
        let step = ahead.missing(i, n) * 256 / chunks;
        let mut due = 0;
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            due = due % 256 + step;
            ahead.fetch(due / 256);
            // SAFETY: the caller promises the level's features and the kernel's format; all columns
            // have all chunks, padded as they are.
            unsafe {
                if let Some(out) = out.first_chunk_mut() {
                    K::chunk(&columns, chunk * size, &group, rows.start + chunk * CHUNK, out);
                } else {
                    let mut whole = [0.0; CHUNK];
                    whole[..out.len()].copy_from_slice(out);
                    K::chunk(&columns, chunk * size, &group, rows.start + chunk * CHUNK, &mut whole);
                    out.copy_from_slice(&whole[..out.len()]);
                }
            }
        }
    }
}
