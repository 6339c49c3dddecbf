//! Products of matrices of floats, by tiles that stay in registers.
//!
//! A panel is a few vectors wide and up to [`COLS`] deep: the operand whose values become lanes, converted to f32.
//! [`transposed`] packs weight rows into lanes (`x W^T`), [`straight`] packs columns (`x W`). Each value of `x` is
//! then broadcast and multiplied with the vectors of its depth. Every output is one sum in the order of depth, so
//! it depends neither on the tile that it falls into nor on how rows are split among threads.

use crate::panels::{PanelLayout, Panels};
use crate::simd::{Simd, Stored};
use crate::{MatMut, Rows};
use bytemuck::Zeroable;
use core::mem::{MaybeUninit, size_of};
use core::slice;

/// Depth of a panel: with two vectors of eight it has 24 KiB.
pub(crate) const COLS: usize = 384;

/// A level's tiles.
pub(crate) trait GemmStep: Simd {
    /// Memory for packed weights: `[Floats; VECTORS * COLS]`.
    type Panel: Zeroable + AsMut<[Self::Floats]> + AsRef<[Self::Floats]>;

    /// Vectors side by side in a panel of packed weights.
    const VECTORS: usize;
    /// Tokens that are multiplied with a panel at a time.
    const TOKENS: usize;

    /// A tile of a matrix product: [`multiply`] in a function of its own.
    fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>);
}

/// Aligned to cache lines.
#[repr(C, align(64))]
struct Aligned<T>(MaybeUninit<T>);

impl<T> Aligned<T> {
    fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// The first `vectors` of a panel, zeros. (To clear all of it would take longer than a small product.)
    #[inline(always)]
    fn panel<S: GemmStep<Panel = T>>(&mut self, vectors: usize) -> &mut [S::Floats] {
        assert!(vectors * size_of::<S::Floats>() <= size_of::<T>(), "a panel of {vectors} vectors");
        let first = self.0.as_mut_ptr().cast::<S::Floats>();
        // SAFETY: a panel is nothing but `Floats`, of which there is room for that many; zeros are values of theirs.
        unsafe {
            first.write_bytes(0, vectors);
            slice::from_raw_parts_mut(first, vectors)
        }
    }
}

/// The product of packed weights with some rows of `x`.
pub(crate) struct Job<'a, S: GemmStep> {
    /// What is multiplied: [`VECTORS`](GemmStep::VECTORS) vectors for each value of depth.
    pub(super) panel: Side<'a, S>,
    pub(super) depth: usize,
    /// Vectors from one value of depth to the next.
    pub(super) step: usize,
    /// What the sums begin with, if not with zeros.
    pub(super) bias: Option<Side<'a, S>>,
    /// Rows of `stride` values, of which those from `from` on meet the panel.
    pub(super) x: &'a [f32],
    pub(super) stride: usize,
    pub(super) from: usize,
}

/// Vectors side by side: those of sixteen lanes are adjacent, the next of them are `apart` vectors away.
pub(crate) struct Side<'a, S: GemmStep> {
    pub(super) vectors: &'a [S::Floats],
    pub(super) apart: usize,
}

impl<'a, S: GemmStep> Side<'a, S> {
    /// All of them adjacent.
    #[inline(always)]
    pub(super) fn adjacent(vectors: &'a [S::Floats]) -> Self {
        Self { vectors, apart: Self::ADJACENT }
    }

    /// Vectors of sixteen lanes.
    const ADJACENT: usize = PanelLayout::ROWS / S::LANES;

    /// Where vector `v` is.
    #[inline(always)]
    fn at(&self, v: usize) -> usize {
        v / Self::ADJACENT * self.apart + v % Self::ADJACENT
    }
}

impl<'a, S: GemmStep> Job<'a, S> {
    /// The product of a panel whose vectors are adjacent.
    #[inline(always)]
    pub(super) fn new(panel: &'a [S::Floats], x: &'a [f32], stride: usize, from: usize) -> Self {
        let depth = panel.len() / S::VECTORS;
        Self { panel: Side::adjacent(panel), depth, step: S::VECTORS, bias: None, x, stride, from }
    }
}

/// `out = x W^T + b` with weights that are packed already; `x` is `[out.tokens() x w.cols()]`.
#[inline(always)]
pub(crate) fn packed<S: GemmStep>(s: S, w: Panels<'_>, x: &[f32], out: &mut MatMut<'_>) {
    let (width, adjacent) = (S::VECTORS * S::LANES, Side::<S>::ADJACENT);
    let (rows, cols) = (w.layout().rows(), w.layout().cols());
    for row in (0..rows).step_by(width) {
        let (panel, skip) = (row / PanelLayout::ROWS, row % PanelLayout::ROWS / S::LANES);
        let (lines, apart) = w.from(panel);
        let vectors: &[S::Floats] = &bytemuck::cast_slice(lines)[skip..];
        let mut out = out.columns(row..rows.min(row + width));
        for from in (0..cols).step_by(COLS) {
            let job = Job {
                panel: Side { vectors: &vectors[(1 + from) * adjacent..], apart: apart * adjacent },
                depth: COLS.min(cols - from),
                step: adjacent,
                bias: Some(Side { vectors, apart: apart * adjacent }),
                x,
                stride: cols,
                from,
            };
            s.multiply(&job, &mut out);
        }
    }
}

/// `out = x W^T`: `out[t][r]` = row `r` of `w` times row `t` of `x`, `[out.tokens() x w.cols()]`.
#[inline(always)]
pub(crate) fn transposed<S: GemmStep, W: Stored>(s: S, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    let mut panel = Aligned::<S::Panel>::new();
    let panel = panel.panel::<S>(w.cols().min(COLS) * S::VECTORS);
    let width = S::VECTORS * S::LANES;
    for from in (0..w.cols()).step_by(COLS) {
        let to = w.cols().min(from + COLS);
        for row in (0..w.rows()).step_by(width) {
            let rows = w.slice(row..w.rows().min(row + width));
            pack_rows::<S, W>(s, rows, from, to, panel);
            let job = Job::new(&panel[..(to - from) * S::VECTORS], x, w.cols(), from);
            s.multiply(&job, &mut out.columns(row..row + rows.rows()));
        }
    }
}

/// `out = x W`: `out[t]` = sum over `r` of `x[t][r]` times row `r` of `w`; `x` is `[out.tokens() x w.rows()]`.
#[inline(always)]
pub(crate) fn straight<S: GemmStep, W: Stored>(s: S, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    let mut panel = Aligned::<S::Panel>::new();
    let panel = panel.panel::<S>(w.rows().min(COLS) * S::VECTORS);
    let width = S::VECTORS * S::LANES;
    for from in (0..w.rows()).step_by(COLS) {
        let rows = w.slice(from..w.rows().min(from + COLS));
        for col in (0..w.cols()).step_by(width) {
            let cols = width.min(w.cols() - col);
            for (r, vectors) in panel.chunks_exact_mut(S::VECTORS).enumerate().take(rows.rows()) {
                let bytes = &rows.row(r)[col * W::BYTES..][..cols * W::BYTES];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    let left = bytes.get(v * S::LANES * W::BYTES..).unwrap_or_default();
                    s.store(load::<S, W>(s, left), vector);
                }
            }
            let job = Job::new(&panel[..rows.rows() * S::VECTORS], x, w.rows(), from);
            s.multiply(&job, &mut out.columns(col..col + cols));
        }
    }
}

/// The first vector of `bytes`, filled up with zeros.
#[inline(always)]
fn load<S: Simd, W: Stored>(s: S, bytes: &[u8]) -> S::F {
    if bytes.len() < S::LANES * W::BYTES {
        return W::load_part(s, bytes);
    }
    // SAFETY: there are that many bytes.
    unsafe { W::load(s, bytes, 0) }
}

/// Packs columns `from..to` of up to `VECTORS * LANES` rows: a lane is a row. Lanes without a row are zero.
#[inline(always)]
fn pack_rows<S: GemmStep, W: Stored>(s: S, rows: Rows<'_>, from: usize, to: usize, panel: &mut [S::Floats]) {
    for v in 0..S::VECTORS {
        for col in (from..to).step_by(S::LANES) {
            let cols = S::LANES.min(to - col);
            let mut square = s.zeros();
            for (i, vector) in square.as_mut().iter_mut().enumerate() {
                let r = v * S::LANES + i;
                if r < rows.rows() {
                    *vector = load::<S, W>(s, &rows.row(r)[col * W::BYTES..][..cols * W::BYTES]);
                }
            }
            let square = s.transpose(square);
            let depths = panel[(col - from) * S::VECTORS..].chunks_exact_mut(S::VECTORS);
            for (vectors, vector) in depths.zip(&square.as_ref()[..cols]) {
                s.store(*vector, &mut vectors[v]);
            }
        }
    }
}

/// Adds the product to `out`, or writes it there when the panel is the first (`from` is zero). `V` and `T` are
/// [`VECTORS`](GemmStep::VECTORS) and [`TOKENS`](GemmStep::TOKENS).
#[inline(always)]
pub(crate) fn multiply<S: GemmStep, const V: usize, const T: usize>(
    s: S,
    job: &Job<'_, S>,
    out: &mut MatMut<'_>,
) {
    let mut t = 0;
    while t < out.tokens() {
        // Whole tiles, then by powers of two.
        let left = out.tokens() - t;
        t += match left {
            _ if left >= T => tile::<S, V, T>(s, job, t, out),
            1 => tile::<S, V, 1>(s, job, t, out),
            2..4 => tile::<S, V, 2>(s, job, t, out),
            4..8 => tile::<S, V, 4>(s, job, t, out),
            _ => tile::<S, V, 8>(s, job, t, out),
        };
    }
}

/// Tokens `t..t + T` of [`multiply`]; returns `T`.
#[inline(always)]
fn tile<S: GemmStep, const V: usize, const T: usize>(
    s: S,
    job: &Job<'_, S>,
    t: usize,
    out: &mut MatMut<'_>,
) -> usize {
    let depth = job.depth;
    // Between registers and `out` the sums pass through memory of constant size: a loop over `out` that knows about
    // part vectors would keep them in memory all the time.
    let mut lines = [[S::Floats::zeroed(); V]; T];
    if job.from > 0 {
        for (i, line) in lines.iter_mut().enumerate() {
            copy(out.row(t + i), bytemuck::cast_slice_mut(line));
        }
    } else if let Some(bias) = &job.bias {
        for line in &mut lines {
            for (v, vector) in line.iter_mut().enumerate() {
                *vector = bias.vectors[bias.at(v)];
            }
        }
    }
    let mut sums = [[s.splat(0.0); V]; T];
    for k in 0..T {
        for v in 0..V {
            sums[k][v] = s.load(&lines[k][v]);
        }
    }
    let x = &job.x[t * job.stride + job.from..][..(T - 1) * job.stride + depth];
    let mut columns = [&[][..]; V];
    for (v, column) in columns.iter_mut().enumerate() {
        *column = &job.panel.vectors[job.panel.at(v)..][..(depth - 1) * job.step + 1];
    }
    for i in 0..depth {
        let mut w = [s.splat(0.0); V];
        for v in 0..V {
            // SAFETY: `i < depth`.
            w[v] = s.load(unsafe { columns[v].get_unchecked(i * job.step) });
        }
        for (k, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `k < T` and `i < depth`.
            let x = s.splat(unsafe { *x.get_unchecked(k * job.stride + i) });
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = s.fma(x, w, *sum);
            }
        }
    }
    for k in 0..T {
        for v in 0..V {
            s.store(sums[k][v], &mut lines[k][v]);
        }
    }
    for (i, line) in lines.iter().enumerate() {
        copy(bytemuck::cast_slice(line), out.row(t + i));
    }
    T
}

/// Copies as many values as the shorter has: nearly always both have the length of a line, which is a constant.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    if from.len() == to.len() {
        to.copy_from_slice(from);
    } else {
        let n = from.len().min(to.len());
        to[..n].copy_from_slice(&from[..n]);
    }
}
