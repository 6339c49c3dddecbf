//! The part of a sidecar that says how the output head is screened.
//!
//! The head's rows are not in it: projecting and rounding them anew takes less time than they would take on disk.

use half::f16;
use sparse_core::{Axes, Margins};
use sparse_gguf::{BlockFormat, Gguf, Metadata};

use super::selectors::{Part, Tensors};
use crate::{Error, Model};

const DIRECTIONS: &str = "screen.directions.weight";
const MEAN: &str = "screen.mean";
const SPREAD: &str = "screen.spread";
const LOST: &str = "screen.lost";

/// How a model's head is screened; by default along random axes, which need no data.
#[derive(Clone, Debug, Default)]
pub struct HeadScreen {
    /// Axes fitted to what the head is given; random ones if there are none.
    pub axes: Option<Axes>,
    /// What each row's logit has outside the axes ([`lost_rows`](sparse_core::lost_rows)), if that is known.
    pub lost: Option<Vec<f32>>,
    /// How far rows may be above their scores.
    pub margins: Margins,
}

impl HeadScreen {
    /// Reads it, if the file has one.
    pub(super) fn read(gguf: &Gguf) -> Result<Option<Self>, Error> {
        const KIND: &str = "sparse.screen.axes";
        let (meta, file) = (gguf.metadata(), Tensors { gguf });
        let Some(kind) = meta.opt_string(KIND)? else { return Ok(None) };
        let positive = |key: &str| match meta.f32(key)? {
            x if x.is_finite() && x > 0.0 => Ok(x),
            x => Err(Error::metadata(key, format!("is {x}, expected a number above zero"))),
        };
        let mut margins = Margins {
            best: positive("sparse.screen.margin_best")?,
            mass: positive("sparse.screen.margin_mass")?,
        };
        let (axes, lost) = match kind {
            "rotated" => (None, None),
            // Of an earlier version, whose margins were multiples of something else.
            "random" => {
                margins = Margins::default();
                (None, None)
            }
            "fitted" => {
                let directions = file.matrix(DIRECTIONS)?;
                let (mean, spread) = (file.vector(MEAN)?, file.vector(SPREAD)?);
                let lost = meta.f32("sparse.screen.lost")?;
                let nibbles = meta.usize("sparse.screen.nibbles")?;
                let axes = Axes::new(directions, mean, spread, lost, nibbles);
                let rows = gguf.info(LOST).map(|_| file.vector(LOST)).transpose()?;
                (Some(axes.map_err(|e| problem(e.to_string()))?), rows)
            }
            other => return Err(Error::metadata(KIND, format!("names unknown axes \"{other}\""))),
        };
        Ok(Some(Self { axes, lost, margins }))
    }

    /// Adds it to a file in the making.
    pub(super) fn write(&self, meta: &mut Metadata, tensors: &mut Vec<Part>) {
        meta.insert("sparse.screen.margin_best", self.margins.best);
        meta.insert("sparse.screen.margin_mass", self.margins.mass);
        let fitted = self.axes.as_ref().and_then(|axes| axes.matrix().map(|matrix| (axes, matrix)));
        meta.insert("sparse.screen.axes", if fitted.is_some() { "fitted" } else { "rotated" });
        let Some((axes, matrix)) = fitted else { return };
        meta.insert("sparse.screen.lost", axes.lost());
        meta.insert("sparse.screen.nibbles", axes.nibbles() as u32);
        let shape = vec![matrix.cols(), matrix.rows()];
        tensors.push((DIRECTIONS.into(), shape, matrix.format(), matrix.storage().bytes().to_vec()));
        for (name, values) in [(MEAN, axes.mean()), (SPREAD, axes.spread())] {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((name.into(), vec![values.len()], BlockFormat::F32, bytes));
        }
        if let Some(lost) = &self.lost {
            let bytes = lost.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
            tensors.push((LOST.into(), vec![lost.len()], BlockFormat::F16, bytes));
        }
    }

    /// Gives `model` the screen, which is made when it is [needed](Model::screen).
    ///
    /// # Errors
    /// If it is for heads of another shape.
    pub fn apply(&self, model: &mut Model) -> Result<(), Error> {
        model.plan_screen(self)
    }
}

fn problem(problem: String) -> Error {
    Error::Tensor { name: DIRECTIONS.into(), problem }
}
