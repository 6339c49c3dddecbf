//! Feed-forward weights in other formats than the file has them in: all of them, or each neuron's in a lane of its own.

use sparse_core::{Down, Matrix, NeuronWeights, SegmentedMatrix, SparseFfn, check_order};
use sparse_precision::PrecisionLane;

use crate::{Error, Model, WeightFormat};

/// What files call a `down` with a row per neuron.
const DOWN_T: &str = "down_t";

/// Rounds all feed-forward weights of `model` to `format`, in the storage that they are in, to see what that costs.
///
/// # Errors
/// If rows are no whole number of blocks, a weight is not finite or too large, or neurons are in lanes already.
pub fn round_ffns(model: &mut Model, format: WeightFormat) -> Result<(), Error> {
    model.for_each_ffn(|i, ffn| {
        let rounded = |part: &'static str, matrix: &Matrix| {
            round(format, matrix, None).map_err(|problem| fault(i, part, problem))
        };
        let gate = ffn.gate().map(|gate| rounded("gate", single(i, "gate", gate.weight())?)).transpose()?;
        let up = rounded("up", single(i, "up", ffn.up().weight())?)?;
        let down = match ffn.down() {
            Down::Rows(w) => Down::Rows(rounded("down", w)?),
            Down::Neurons(w) => Down::Neurons(rounded(DOWN_T, single(i, DOWN_T, w)?)?.into()),
            other => return Err(fault(i, "down", format!("{other:?} cannot be rounded"))),
        };
        let order: Vec<u32> = (0..ffn.neurons() as u32).collect();
        Ok(ffn.set_neurons(&order, NeuronWeights { gate: gate.map(Into::into), up: up.into(), down })?)
    })
}

/// The weights of some neurons of a layer: a row per neuron in every matrix.
#[derive(Clone, Debug)]
pub struct NeuronRecords {
    layer: usize,
    gate: Option<Matrix>,
    up: Matrix,
    down: Matrix,
    /// What the file calls `down`.
    down_name: &'static str,
}

impl NeuronRecords {
    /// All neurons of layer number `layer`, as the file has them; only columns of a `down` stored by rows become f32.
    ///
    /// # Errors
    /// If the neurons are in lanes already.
    pub fn of(layer: usize, ffn: &SparseFfn) -> Result<Self, Error> {
        let by_columns = |w: &Matrix| {
            let (values, cols) = (decoded(w), w.cols());
            let columns = (0..cols).flat_map(|c| values.iter().skip(c).step_by(cols).copied());
            Matrix::from_f32(w.rows(), columns).map_err(|e| fault(layer, "down", e.to_string()))
        };
        let gate = ffn.gate().map(|g| single(layer, "gate", g.weight()).cloned()).transpose()?;
        let up = single(layer, "up", ffn.up().weight())?.clone();
        let (down, down_name) = match ffn.down() {
            Down::Rows(w) => (by_columns(w)?, "down"),
            Down::Columns(w) => (by_columns(&w.to_rows())?, "down"),
            Down::Neurons(w) => (single(layer, DOWN_T, w)?.clone(), DOWN_T),
            other => return Err(fault(layer, "down", format!("{other:?} has no neurons"))),
        };
        Ok(Self { layer, gate, up, down, down_name })
    }

    /// These neurons, in this order.
    ///
    /// # Panics
    /// If one is out of range.
    #[must_use]
    pub fn select(&self, neurons: &[u32]) -> Self {
        let select = |w: &Matrix| w.select(neurons);
        Self {
            layer: self.layer,
            gate: self.gate.as_ref().map(select),
            up: select(&self.up),
            down: select(&self.down),
            down_name: self.down_name,
        }
    }

    /// Rounds them to `lane`. Errors in the weights of input `c` count `importance[c]` times.
    ///
    /// # Errors
    /// If rows are no whole number of blocks, or a weight cannot be stored.
    pub fn in_lane(&self, lane: PrecisionLane, importance: &[f32]) -> Result<Self, Error> {
        let rounded = |part, w: &Matrix, importance| {
            round(lane.into(), w, importance).map_err(|problem| fault(self.layer, part, problem))
        };
        Ok(Self {
            layer: self.layer,
            gate: self.gate.as_ref().map(|w| rounded("gate", w, Some(importance))).transpose()?,
            up: rounded("up", &self.up, Some(importance))?,
            down: rounded(self.down_name, &self.down, None)?,
            down_name: self.down_name,
        })
    }
}

/// In which lanes the neurons of one layer are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NeuronLanes {
    order: Vec<u32>,
    segments: Vec<(PrecisionLane, usize)>,
    importance: Vec<f32>,
}

impl NeuronLanes {
    /// The first neurons of `order` are stored in the lane of the first segment, which says how many, the next in that of
    /// the next. `importance`, a value per input, is how much its weights matter: the mean square of the input.
    ///
    /// # Errors
    /// If `order` does not have every neuron once, the segments do not have as many neurons, or an importance is negative
    /// or not finite.
    pub fn new(
        order: Vec<u32>,
        segments: Vec<(PrecisionLane, usize)>,
        importance: Vec<f32>,
    ) -> Result<Self, Error> {
        check_order(order.len(), &order)?;
        let problem = |problem| Error::setting("lanes of neurons", problem);
        let counted = segments.iter().try_fold(0_usize, |sum, s| sum.checked_add(s.1));
        if counted != Some(order.len()) {
            let found = segments.iter().map(|s| s.1.to_string()).collect::<Vec<_>>().join(" + ");
            return Err(problem(format!("there are {} neurons, but {found} in segments", order.len())));
        }
        if let Some(i) = importance.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            return Err(problem(format!("importance {i} is {}, expected no less than 0", importance[i])));
        }
        Ok(Self { order, segments, importance })
    }

    /// The numbers that the neurons have in the file, in the order in which they are stored.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Lanes, and how many neurons each has.
    pub fn segments(&self) -> &[(PrecisionLane, usize)] {
        &self.segments
    }

    /// How much the weights of every input matter.
    pub fn importance(&self) -> &[f32] {
        &self.importance
    }

    /// Stores the neurons of `ffn`, layer number `layer`, in their lanes. Its selector goes with them.
    ///
    /// # Errors
    /// If the layer has another number of neurons or inputs, or a weight cannot be stored.
    pub fn apply(&self, layer: usize, ffn: &mut SparseFfn) -> Result<(), Error> {
        check_order(ffn.neurons(), &self.order)?;
        let records = NeuronRecords::of(layer, ffn)?;
        self.apply_with(ffn, |lane, neurons| records.select(neurons).in_lane(lane, &self.importance))
    }

    /// Like [`apply`](Self::apply), with neurons that `records(lane, neurons)` has rounded.
    ///
    /// # Errors
    /// If `records` fails, or what it gives does not fit the layer.
    pub fn apply_with(
        &self,
        ffn: &mut SparseFfn,
        records: impl Fn(PrecisionLane, &[u32]) -> Result<NeuronRecords, Error>,
    ) -> Result<(), Error> {
        let (mut gates, mut ups, mut downs) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = &self.order[..];
        for (lane, count) in self.segments.iter().filter(|s| s.1 > 0) {
            let (neurons, after) = rest.split_at(*count);
            let NeuronRecords { gate, up, down, .. } = records(*lane, neurons)?;
            gates.extend(gate);
            ups.push(up);
            downs.push(down);
            rest = after;
        }
        let weights = NeuronWeights {
            gate: ffn.gate().map(|_| SegmentedMatrix::new(gates)).transpose()?,
            up: SegmentedMatrix::new(ups)?,
            down: Down::Neurons(SegmentedMatrix::new(downs)?),
        };
        Ok(ffn.set_neurons(&self.order, weights)?)
    }
}

fn single<'a>(layer: usize, part: &str, matrix: &'a SegmentedMatrix) -> Result<&'a Matrix, Error> {
    match matrix.segments() {
        [matrix] => Ok(matrix),
        _ => Err(fault(layer, part, "is in lanes already: choose one or the other".into())),
    }
}

fn round(format: WeightFormat, matrix: &Matrix, importance: Option<&[f32]>) -> Result<Matrix, String> {
    format.round(matrix.cols(), &decoded(matrix), importance)
}

fn decoded(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    values.chunks_mut(matrix.cols()).enumerate().for_each(|(r, row)| matrix.decode_row(r, row));
    values
}

fn fault(layer: usize, part: &str, problem: String) -> Error {
    Error::Tensor { name: format!("blk.{layer}.ffn_{part}.weight"), problem }
}
