//! From the rows of a head to a screen.

use alloc::vec;
use alloc::vec::Vec;

use half::f16;
use sparse_simd::{Kernels, TileLayout};

use super::pack::Packed;
use super::{Axes, Margins, Screen};
use crate::error::same_len;
use crate::matrix::Room;
use crate::{Activations, Compute, Error, Matrix, Storage};

/// Rows that are packed at a time: whole tiles, few enough that they stay in the second-level cache.
const BATCH: usize = 64;
/// Rows, about, that the mean is taken of.
const MEAN_ROWS: usize = 4096;

/// A batch of rows and what becomes of it.
struct Batch<'a> {
    first: usize,
    tiles: &'a mut [u8],
    deviations: &'a mut [f32],
    sums: Sums,
}

/// Sums over the rows that are finite.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Squares of what rounding loses.
    rounding: f64,
    /// Squares of what is outside the axes.
    lost: f64,
}

/// Buffers of a thread.
#[derive(Debug)]
struct Buffers {
    rows: Activations,
    along: Vec<f32>,
    spare: Vec<f32>,
    packed: Packed,
}

/// A screen in the making.
#[derive(Debug)]
pub(super) struct Builder {
    /// Without tiles.
    screen: Screen,
    tiles: Room,
    lost: Option<Vec<f32>>,
    sums: Sums,
    /// Rows that are done.
    done: usize,
    /// Per thread.
    buffers: Vec<Buffers>,
}

impl Screen {
    /// Projects the rows of `head` on `axes` and rounds them. `lost` is what each row's logit has outside the axes, as
    /// [`lost_rows`] tells; without it, tokens are taken to vary alike in all directions there.
    ///
    /// # Errors
    /// If the axes are for tokens of another width, `lost` for other rows, or the screen is too large to address.
    pub fn new(
        compute: &Compute,
        head: &Matrix,
        axes: Axes,
        lost: Option<&[f32]>,
        margins: Margins,
    ) -> Result<Self, Error> {
        let mut builder = Builder::new(compute, head, axes, lost, margins)?;
        builder.add(compute, head, head.rows());
        Ok(builder.finish())
    }
}

impl Builder {
    /// A screen without rows, as [`Screen::new`].
    pub(super) fn new(
        compute: &Compute,
        head: &Matrix,
        axes: Axes,
        lost: Option<&[f32]>,
        margins: Margins,
    ) -> Result<Self, Error> {
        let (rows, d, dims) = (head.rows(), head.cols(), axes.dims());
        same_len("inputs of the screen", d, axes.inputs())?;
        if let Some(lost) = lost {
            same_len("rows of the screen", rows, lost.len())?;
            if let Some(&value) = lost.iter().find(|x| x.is_nan() || **x < 0.0) {
                return Err(Error::Value {
                    what: "lost row of the screen",
                    value,
                    expected: "at least zero",
                });
            }
        }
        for (what, value) in [("margin of the best", margins.best), ("margin of the mass", margins.mass)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Value { what, value, expected: "above zero" });
            }
        }
        let layout = TileLayout::new(rows, axes.nibbles(), dims - axes.nibbles())?;
        let mut center = vec![0.0; dims];
        let mut x = Activations::with_capacity(1, d);
        x.resize(1);
        x.x_mut().copy_from_slice(axes.mean());
        x.quantize(compute.kernels);
        axes.project(compute, &x, &mut center, &mut vec![0.0; d]);
        let screen = Screen {
            rounding: 1.0,
            axes,
            layout,
            tiles: Storage::Owned(Vec::new()),
            common: vec![0.0; d],
            center,
            deviations: vec![f32::INFINITY; rows],
            margins,
        };
        let tiles = Room::zeros(layout.bytes());
        let (lost, sums) = (lost.map(<[f32]>::to_vec), Sums::default());
        Ok(Self { screen, tiles, lost, sums, done: 0, buffers: Vec::new() })
    }

    /// The screen, which cannot be used yet.
    pub(super) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Adds rows until there are `rows`, or some more.
    pub(super) fn add(&mut self, compute: &Compute, head: &Matrix, rows: usize) {
        let rows = rows.min(head.rows());
        if rows <= self.done {
            return;
        }
        let Screen { axes, layout, common, deviations, .. } = &mut self.screen;
        let (d, dims) = (head.cols(), axes.dims());
        if self.buffers.is_empty() {
            *common = mean_row(compute.kernels, head);
            let buffers = || Buffers {
                rows: Activations::with_capacity(BATCH, d),
                along: vec![0.0; BATCH * dims],
                spare: vec![0.0; d],
                packed: Packed::default(),
            };
            self.buffers = (0..compute.pool.threads()).map(|_| buffers()).collect();
        }
        let of_batch = TileLayout::new(BATCH, layout.nibbles(), layout.pairs()).expect("smaller").bytes();
        let parts = self.tiles.bytes().chunks_mut(of_batch).zip(deviations.chunks_mut(BATCH)).enumerate();
        let range = self.done / BATCH..rows.div_ceil(BATCH);
        let mut batches: Vec<Batch<'_>> = parts
            .take(range.end)
            .skip(range.start)
            .map(|(i, (tiles, deviations))| Batch {
                first: i * BATCH,
                tiles,
                deviations,
                sums: Sums::default(),
            })
            .collect();
        let (axes, common, lost) = (&*axes, &**common, self.lost.as_deref());
        compute.pool.for_each(&mut self.buffers, &mut batches, |buffers, batch| {
            batch.pack(compute, head, axes, common, lost, buffers);
        });
        for batch in &batches {
            self.sums.rounding += batch.sums.rounding;
            self.sums.lost += batch.sums.lost;
        }
        self.done = range.end * BATCH;
    }

    /// The screen of the rows that were added.
    pub(super) fn finish(self) -> Screen {
        let Sums { rounding, lost } = self.sums;
        let rounding = if rounding + lost > 0.0 { (rounding / (rounding + lost)) as f32 } else { 1.0 };
        Screen { rounding, tiles: self.tiles.into_storage(), ..self.screen }
    }
}

impl Batch<'_> {
    fn pack(
        &mut self,
        compute: &Compute,
        head: &Matrix,
        axes: &Axes,
        common: &[f32],
        lost: Option<&[f32]>,
        Buffers { rows: x, along, spare, packed }: &mut Buffers,
    ) {
        let (n, d, dims) = (self.deviations.len(), head.cols(), axes.dims());
        let pairs = dims - axes.nibbles();
        let layout = TileLayout::new(n, axes.nibbles(), pairs).expect("smaller than that of all rows");
        let outside = axes.lost().powi(2) / (d.saturating_sub(dims)).max(1) as f32;
        x.resize(n);
        for (i, row) in x.x_mut().chunks_mut(d).enumerate() {
            row.iter_mut().zip(common).for_each(|(w, c)| *w = -c);
            head.add_row(compute.kernels, self.first + i, row);
        }
        if axes.matrix().is_some() {
            x.quantize(compute.kernels);
        }
        axes.project(compute, x, &mut along[..n * dims], spare);
        for (i, (row, along)) in x.x().chunks(d).zip(along.chunks_mut(dims)).enumerate() {
            let [length, kept] = [row, &*along].map(|v| compute.kernels.dot_f32(v, v));
            let bias = f16::from_f32(compute.kernels.dot_f32(row, axes.mean()));
            if !(length.is_finite() && kept.is_finite() && bias.is_finite()) {
                continue;
            }
            along.iter_mut().zip(axes.spread()).for_each(|(v, s)| *v *= s);
            let rounding = match axes.matrix() {
                Some(_) => packed.round(along, axes.nibbles()),
                None => packed.round_turned(compute.kernels, along),
            };
            let lost = match lost {
                Some(lost) => lost[self.first + i] * lost[self.first + i],
                None => (length - kept).max(0.0) * outside,
            };
            if packed.row(bias).scales.iter().all(|s| s.is_finite()) {
                layout.write(i, packed.row(bias), self.tiles);
                self.deviations[i] = (rounding + lost).sqrt();
                self.sums.rounding += f64::from(rounding);
                self.sums.lost += f64::from(lost);
            }
        }
    }
}

/// Root mean square, per row of `head`, of the part of its logits that comes from the directions `left`, which are scaled by how
/// much tokens vary along them; `[rows]`, infinite for a row that is not finite. What all rows share is left out, as in
/// the screen.
///
/// # Panics
/// If the widths differ.
pub fn lost_rows(compute: &Compute, head: &Matrix, left: &Matrix) -> Vec<f32> {
    let (d, dims) = (head.cols(), left.rows());
    let common = mean_row(compute.kernels, head);
    let mut lost = vec![0.0; head.rows()];
    let mut x = Activations::with_capacity(BATCH, d);
    let mut along = vec![0.0; BATCH * dims];
    for (batch, lost) in lost.chunks_mut(BATCH).enumerate().filter(|_| dims > 0) {
        x.resize(lost.len());
        for (i, row) in x.x_mut().chunks_mut(d).enumerate() {
            head.decode_row(batch * BATCH + i, row);
            row.iter_mut().zip(&common).for_each(|(w, c)| *w -= c);
        }
        let along = &mut along[..lost.len() * dims];
        left.matmul(compute, &x, along);
        for (lost, along) in lost.iter_mut().zip(along.chunks(dims)) {
            *lost = compute.kernels.dot_f32(along, along).sqrt();
            if lost.is_nan() {
                *lost = f32::INFINITY;
            }
        }
    }
    lost
}

/// The mean of rows that are finite, of so many that others hardly change it. Whatever it is, scores are right: what it
/// adds to all logits is computed.
fn mean_row(k: &Kernels, head: &Matrix) -> Vec<f32> {
    let stride = head.rows().div_ceil(MEAN_ROWS).max(1);
    let mean_of = |wanted: &dyn Fn(usize) -> bool| {
        let (mut sum, mut n) = (vec![0.0; head.cols()], 0.0);
        for r in (0..head.rows()).step_by(stride).filter(|r| wanted(*r)) {
            head.add_row(k, r, &mut sum);
            n += 1.0;
        }
        sum.iter_mut().for_each(|s| *s = if n > 0.0 { *s / n } else { 0.0 });
        sum
    };
    let mean = mean_of(&|_| true);
    if mean.iter().all(|w| w.is_finite()) {
        return mean;
    }
    mean_of(&|r| {
        let mut row = vec![0.0; head.cols()];
        head.decode_row(r, &mut row);
        row.iter().all(|w| w.is_finite())
    })
}
