//! Small corrections beside a layer.

use alloc::vec;
use alloc::vec::Vec;

use sparse_simd::Kernels;

use crate::{Error, LaneInput, LaneMatrix, PrecisionLane};

/// A low-rank update in Bit7 that is applied beside a layer: `y += B (A x)` (LoRA, Hu et al. 2021, arXiv 2106.09685).
///
/// The layer's own weights are not touched, so that an update can be put on, taken off and replaced at run time; it costs
/// 7.5 bits for each of `rank * (inputs + outputs)` weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneDelta {
    /// `[rank x inputs]`.
    a: LaneMatrix,
    /// `B` transposed, `[rank x outputs]`.
    b: LaneMatrix,
}

/// Memory that [`LaneDelta::apply`] works in.
#[derive(Clone, Debug)]
pub struct DeltaScratch {
    x: LaneInput,
    hidden: Vec<f32>,
    sum: Vec<f32>,
}

impl LaneDelta {
    /// An update of rank `rank` from `a`, `[rank x inputs]`, and `b`, `[outputs x rank]`, which a scaling factor is a part
    /// of, if there is one.
    ///
    /// # Errors
    /// If `rank` is zero, the values do not fit it, inputs or outputs are no multiples of 32, or a value cannot be stored
    /// (see [`LaneMatrix::new`]).
    pub fn new(rank: usize, a: &[f32], b: &[f32]) -> Result<Self, Error> {
        let whole = |what, x: &[f32]| {
            let expected = x.len().checked_next_multiple_of(rank).unwrap_or(0);
            match expected == x.len() && rank > 0 {
                true => Ok(x.len() / rank),
                false => Err(Error::Length { what, expected, found: x.len() }),
            }
        };
        let (inputs, outputs) = (whole("a of a delta", a)?, whole("b of a delta", b)?);
        let transposed: Vec<f32> = (0..b.len()).map(|i| b[i % outputs * rank + i / outputs]).collect();
        let lane = PrecisionLane::Bit7;
        Ok(Self { a: LaneMatrix::new(lane, inputs, a)?, b: LaneMatrix::new(lane, outputs, &transposed)? })
    }

    /// Inputs of the layer.
    pub fn inputs(&self) -> usize {
        self.a.cols()
    }

    /// Outputs of the layer.
    pub fn outputs(&self) -> usize {
        self.b.cols()
    }

    /// The rank.
    pub fn rank(&self) -> usize {
        self.a.rows()
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        self.a.bytes().len() + self.b.bytes().len()
    }

    /// Memory for [`apply`](Self::apply).
    pub fn scratch(&self) -> DeltaScratch {
        DeltaScratch {
            x: LaneInput::new(self.inputs()),
            hidden: vec![0.0; self.rank()],
            sum: vec![0.0; self.outputs()],
        }
    }

    /// `out += B (A x)`. Allocates nothing.
    ///
    /// # Panics
    /// If the lengths do not fit, or the scratch is that of a delta of another shape.
    pub fn apply(&self, kernels: &Kernels, x: &[f32], scratch: &mut DeltaScratch, out: &mut [f32]) {
        scratch.x.set(kernels, x);
        self.a.matvec(kernels, &scratch.x, &mut scratch.hidden);
        self.b.weighted_sum(kernels, &scratch.hidden, &mut scratch.sum);
        kernels.add(out, &scratch.sum);
    }
}
