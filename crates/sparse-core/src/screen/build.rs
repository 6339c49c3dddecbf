//! From the rows of a head to a screen.

use alloc::vec;
use alloc::vec::Vec;

use half::f16;
use sparse_simd::TileLayout;

use super::pack::Packed;
use super::{Axes, Margins, Screen};
use crate::error::same_len;
use crate::{Activations, Compute, Error, Matrix, Storage};

/// Rows that are packed at a time: whole tiles.
const BATCH: usize = 256;
/// Rows, about, that the mean is taken of.
const MEAN_ROWS: usize = 16_384;

/// A batch of rows and what becomes of it.
struct Batch<'a> {
    first: usize,
    tiles: &'a mut [u8],
    deviations: &'a mut [f32],
    sums: Sums,
}

/// Sums over the rows that are finite.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// Squares of what rounding loses.
    rounding: f64,
    /// Squares of what is outside the axes.
    lost: f64,
}

/// Buffers of a thread.
struct Buffers {
    rows: Activations,
    along: Vec<f32>,
    spare: Vec<f32>,
    packed: Packed,
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
        let common = mean_row(head);
        let mut center = vec![0.0; dims];
        let mut x = Activations::with_capacity(1, d);
        x.resize(1);
        x.x_mut().copy_from_slice(axes.mean());
        x.quantize(compute.kernels);
        axes.project(compute, &x, &mut center, &mut vec![0.0; d]);
        let mut deviations = vec![f32::INFINITY; rows];
        let mut sums = Sums::default();
        let tiles = Storage::filled(layout.bytes(), |tiles| {
            let of_batch = TileLayout::new(BATCH, layout.nibbles(), layout.pairs()).expect("smaller").bytes();
            let parts = tiles.chunks_mut(of_batch).zip(deviations.chunks_mut(BATCH)).enumerate();
            let mut batches: Vec<Batch<'_>> = parts
                .map(|(i, (tiles, deviations))| Batch {
                    first: i * BATCH,
                    tiles,
                    deviations,
                    sums: Sums::default(),
                })
                .collect();
            let buffers = || Buffers {
                rows: Activations::with_capacity(BATCH, d),
                along: vec![0.0; BATCH * dims],
                spare: vec![0.0; d],
                packed: Packed::default(),
            };
            let mut scratch: Vec<Buffers> = (0..compute.pool.threads()).map(|_| buffers()).collect();
            compute.pool.for_each(&mut scratch, &mut batches, |buffers, batch| {
                batch.pack(compute, head, &axes, &common, lost, buffers);
            });
            for batch in &batches {
                sums.rounding += batch.sums.rounding;
                sums.lost += batch.sums.lost;
            }
        });
        let share = |part: f64, all: f64| if all > 0.0 { (part / all) as f32 } else { 1.0 };
        Ok(Self {
            rounding: share(sums.rounding, sums.rounding + sums.lost),
            axes,
            layout,
            tiles,
            common,
            center,
            deviations,
            margins,
        })
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
            head.decode_row(self.first + i, row);
            row.iter_mut().zip(common).for_each(|(w, c)| *w -= c);
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
    let common = mean_row(head);
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
fn mean_row(head: &Matrix) -> Vec<f32> {
    let stride = head.rows().div_ceil(MEAN_ROWS).max(1);
    let mut sum = vec![0.0_f64; head.cols()];
    let mut row = vec![0.0; head.cols()];
    let mut n = 0.0;
    for r in (0..head.rows()).step_by(stride) {
        head.decode_row(r, &mut row);
        if row.iter().all(|w| w.is_finite()) {
            sum.iter_mut().zip(&row).for_each(|(s, w)| *s += f64::from(*w));
            n += 1.0;
        }
    }
    sum.iter().map(|s| if n > 0.0 { (s / n) as f32 } else { 0.0 }).collect()
}
