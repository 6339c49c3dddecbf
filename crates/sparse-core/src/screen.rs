//! A compact copy of an output head that says which rows of it matter for a token.
//!
//! ```text
//! token -> project -> scores of all rows, from a few bits each -> rows that could matter -> their exact logits
//! ```
//!
//! Rows and tokens are projected on a few [`Axes`]; rows are stored there in four and two bits
//! ([`sparse_simd::Tiles`]). A row's score is off by what its codes have lost, and what the axes have lost of row and
//! token; the first two have a known length per row, the third one per token. Their product times a *margin* is how far a row
//! may be above its score before the screen misses it. See `docs/head.md`.

mod axes;
#[cfg(feature = "fit")]
mod fit;
mod pack;
mod shortlist;

use alloc::vec;
use alloc::vec::Vec;

pub use axes::Axes;
#[cfg(feature = "fit")]
pub use fit::AxesFit;
use half::f16;
use pack::Packed;
pub use shortlist::{Reach, ScreenScratch, Shortlist};
use sparse_simd::{MatMut, TileLayout, Tiles};

use crate::error::same_len;
use crate::{Activations, Compute, Error, Matrix};

/// Rows that are packed at a time.
const BATCH: usize = 256;
/// Rows that a worker scans at a time, at least.
const GRAIN: usize = 16 * TileLayout::TILE;

/// How far rows may be above their scores, as a multiple of what is lost of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margins {
    /// When the best rows are asked for.
    pub best: f32,
    /// When the rows are asked for that have most of the probability together.
    pub mass: f32,
}

impl Default for Margins {
    /// For a screen that was not calibrated: wide.
    fn default() -> Self {
        Self { best: 5.0, mass: 2.5 }
    }
}

/// A screen of a head `[rows x d]`.
#[derive(Debug)]
pub struct Screen {
    axes: Axes,
    layout: TileLayout,
    tiles: Vec<u8>,
    /// Mean of the rows: it shifts all logits alike.
    common: Vec<f32>,
    /// The tokens' mean along the axes.
    center: Vec<f32>,
    /// Root mean square error of each row's score, for an ordinary token; infinite where a row is not finite.
    deviations: Vec<f32>,
    /// Share of the errors' squares that comes from rounding.
    rounding: f32,
    margins: Margins,
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
        let mut screen = Self {
            center: vec![0.0; dims],
            deviations: vec![f32::INFINITY; rows],
            tiles: vec![0; layout.bytes()],
            rounding: 1.0,
            layout,
            common,
            axes,
            margins,
        };
        let mut x = Activations::with_capacity(BATCH, d);
        let mut projected = vec![0.0; BATCH * dims];
        x.resize(1);
        x.x_mut().copy_from_slice(screen.axes.mean());
        x.quantize(compute.kernels);
        screen.axes.project(compute, &x, &mut projected[..dims]);
        screen.center.copy_from_slice(&projected[..dims]);
        let outside = screen.axes.lost().powi(2) / (d.saturating_sub(dims)).max(1) as f32;
        let (mut packed, mut sums) = (Packed::default(), [0.0_f64; 2]);
        for first in (0..rows).step_by(BATCH) {
            let n = BATCH.min(rows - first);
            x.resize(n);
            for (i, row) in x.x_mut().chunks_mut(d).enumerate() {
                head.decode_row(first + i, row);
                row.iter_mut().zip(&screen.common).for_each(|(w, c)| *w -= c);
            }
            x.quantize(compute.kernels);
            screen.axes.project(compute, &x, &mut projected[..n * dims]);
            for (i, (row, along)) in x.x().chunks(d).zip(projected.chunks_mut(dims)).enumerate() {
                let [length, kept] = [row, &*along].map(|v| compute.kernels.dot_f32(v, v));
                let bias = f16::from_f32(compute.kernels.dot_f32(row, screen.axes.mean()));
                if !(length.is_finite() && kept.is_finite() && bias.is_finite()) {
                    continue;
                }
                along.iter_mut().zip(screen.axes.spread()).for_each(|(v, s)| *v *= s);
                let rounding = packed.round(along, screen.axes.nibbles());
                let lost = match lost {
                    Some(lost) => lost[first + i] * lost[first + i],
                    None => (length - kept).max(0.0) * outside,
                };
                if packed.row(bias).scales.iter().all(|s| s.is_finite()) {
                    screen.layout.write(first + i, packed.row(bias), &mut screen.tiles);
                    screen.deviations[first + i] = (rounding + lost).sqrt();
                    sums[0] += f64::from(rounding);
                    sums[1] += f64::from(lost);
                }
            }
        }
        let all = sums[0] + sums[1];
        screen.rounding = if all > 0.0 { (sums[0] / all) as f32 } else { 1.0 };
        Ok(screen)
    }

    /// The axes.
    pub fn axes(&self) -> &Axes {
        &self.axes
    }

    /// The margins.
    pub fn margins(&self) -> Margins {
        self.margins
    }

    /// Changes the margins.
    pub fn set_margins(&mut self, margins: Margins) {
        self.margins = margins;
    }

    /// Rows of the head.
    pub fn rows(&self) -> usize {
        self.layout.rows()
    }

    /// Bytes that scoring a token reads.
    pub fn bytes(&self) -> usize {
        let vectors = [&self.common, &self.center, &self.deviations];
        self.tiles.len() + self.axes.bytes() + vectors.iter().map(|v| size_of_val(&***v)).sum::<usize>()
    }

    /// Scores of all rows for one token `x` into `scratch`, less the part that all rows share; returns by how much a row's
    /// error is likely to exceed its deviation, or nothing if `x` is not finite.
    fn score(&self, compute: &Compute, x: &Activations, scratch: &mut ScreenScratch) -> Option<f32> {
        let along = &mut scratch.projected;
        along.resize(1);
        self.axes.project(compute, x, along.x_mut());
        let z = along.x_mut();
        z.iter_mut().zip(&self.center).for_each(|(z, c)| *z -= c);
        let kept: f32 = z.iter().map(|z| z * z).sum();
        let all: f32 = x.x().iter().zip(self.axes.mean()).map(|(x, m)| (x - m) * (x - m)).sum();
        z.iter_mut().zip(self.axes.spread()).for_each(|(z, s)| *z /= s);
        let inside = z.iter().map(|z| z * z).sum::<f32>() / self.axes.inputs().min(z.len()) as f32;
        let lost = self.axes.lost();
        let outside = if lost > 0.0 { (all - kept).max(0.0) / (lost * lost) } else { 0.0 };
        let square = self.rounding * inside + (1.0 - self.rounding) * outside;
        if !square.is_finite() {
            return None;
        }
        along.quantize(compute.kernels);
        let tiles = Tiles::new(self.layout, &self.tiles).expect("made with this layout");
        let out = MatMut::new(&mut scratch.scores, self.rows());
        compute.pool.for_columns(out, GRAIN, self.tiles.len(), |rows, mut out| {
            compute.kernels.scan(tiles.slice(rows), along.q8(), out.row(0));
        });
        // The root of the size fits real tokens better than the size itself, which is too wide for unusual ones.
        Some(square.max(f32::MIN_POSITIVE).sqrt().sqrt())
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

/// The mean of the rows that are finite.
fn mean_row(head: &Matrix) -> Vec<f32> {
    let mut sum = vec![0.0_f64; head.cols()];
    let mut row = vec![0.0; head.cols()];
    let mut n = 0.0;
    for r in 0..head.rows() {
        head.decode_row(r, &mut row);
        if row.iter().all(|w| w.is_finite()) {
            sum.iter_mut().zip(&row).for_each(|(s, w)| *s += f64::from(*w));
            n += 1.0;
        }
    }
    sum.iter().map(|s| if n > 0.0 { (s / n) as f32 } else { 0.0 }).collect()
}
