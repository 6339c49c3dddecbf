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
mod build;
#[cfg(feature = "fit")]
mod fit;
mod lazy;
mod pack;
mod shortlist;

use alloc::vec::Vec;

pub use axes::Axes;
pub use build::lost_rows;
#[cfg(feature = "fit")]
pub use fit::AxesFit;
pub use lazy::LazyScreen;
pub use shortlist::{Reach, ScreenScratch, Shortlist, Wanted, soft_cap};
use sparse_simd::{MatMut, TileLayout, Tiles};

use crate::{Activations, Compute, Storage};

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
    /// Four and three: with random axes, a row that is asked for is missed 3 times in 100,000, and at most 0.13 % of the
    /// probability, whatever the text.
    fn default() -> Self {
        Self { best: 4.0, mass: 3.0 }
    }
}

/// A screen of a head `[rows x d]`.
#[derive(Debug)]
pub struct Screen {
    axes: Axes,
    layout: TileLayout,
    tiles: Storage,
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
        self.layout.bytes() + self.axes.bytes() + vectors.iter().map(|v| size_of_val(&***v)).sum::<usize>()
    }

    /// Scores of all rows for one token `x` into `scratch`, less the part that all rows share; returns by how much a row's
    /// error is likely to exceed its deviation, or nothing if `x` is not finite.
    fn score(&self, compute: &Compute, x: &Activations, scratch: &mut ScreenScratch) -> Option<f32> {
        let along = &mut scratch.projected;
        along.resize(1);
        self.axes.project(compute, x, along.x_mut(), &mut scratch.spare);
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
        let tiles = Tiles::new(self.layout, self.tiles.bytes()).expect("made with this layout");
        let out = MatMut::new(&mut scratch.scores, self.rows());
        compute.pool.for_columns(out, GRAIN, self.layout.bytes(), |rows, mut out| {
            compute.kernels.scan(tiles.slice(rows), along.q8(), out.row(0));
        });
        let size = square.max(f32::MIN_POSITIVE).sqrt();
        // Errors along random axes grow as tokens do. Along fitted ones the root of that fits real tokens better, since
        // unusual tokens are unusual along axes that are stored well.
        Some(if self.is_unbiased() { size } else { size.sqrt() })
    }

    /// Whether a score is its row's logit and an error that does not depend on the row: along random axes. Along fitted ones
    /// a score is what the logit is expected to be.
    fn is_unbiased(&self) -> bool {
        self.axes.matrix().is_none()
    }
}
