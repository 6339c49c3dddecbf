//! Feed-forward layers whose neurons are read when a token needs them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use sparse_simd::{BlockFormat, ColumnLayout, Columns, Rows};

use super::down::scatter;
use super::hidden_norm::HiddenNorm;
use super::rules::Rules;
use super::scratch::{Chosen, OneToken};
use super::{
    ActivationType, BatchMode, Crossover, FfnCounts, FfnScratch, Means, NeuronWeights, PredictorInput,
    Selector, SparseFfn,
};
use crate::columns::axpy;
use crate::error::same_len;
use crate::linear::add_bias;
use crate::rows::RowSet;
use crate::{Activations, Compute, Error, Held, Linear, Matrix, NeuronStore, Place, Slab, StoreError};

/// Where the neurons of a layer are: a record each, gate, `up` and `down` behind one another.
pub struct StoredNeurons {
    /// The store, which has the neurons of all layers of this shape.
    pub store: Arc<NeuronStore<Place>>,
    /// Its memory. What is [resident](StoredFfn::resident) is no part of it.
    pub slab: Arc<Slab>,
    /// Number of the layer's first record in the store.
    pub first: u32,
    /// Which of the layer's records each neuron has.
    pub records: Vec<u32>,
    /// How records have `down`.
    pub down: StoredDown,
    /// Reads all records: gate, `up` and `down` with the neurons in the model's order.
    pub whole: Box<dyn Fn() -> Result<NeuronWeights, StoreError> + Send + Sync>,
}

/// How records have a neuron's part of `down`.
#[derive(Clone, Debug)]
pub enum StoredDown {
    /// A row, as [`Down::Neurons`](crate::Down::Neurons).
    Rows {
        /// Its format.
        format: BlockFormat,
    },
    /// The codes of a column, as [`Down::Columns`](crate::Down::Columns).
    Columns {
        /// Where a copy by columns would have its parts.
        layout: ColumnLayout,
        /// What columns share, which is in memory.
        factors: Arc<[u8]>,
    },
}

impl fmt::Debug for StoredNeurons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredNeurons").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A [`SparseFfn`] whose neurons are in a [`NeuronStore`]. What it computes has the same bits.
///
/// A token's active set has to be known before it is read. So either the selector has scores of all neurons (a predictor or
/// a copy of few bits), or the projection that decides, the gate or `up` without one, is resident.
#[derive(Debug)]
pub struct StoredFfn {
    neurons: usize,
    outputs: usize,
    bytes: usize,
    gate: Option<Projection>,
    up: Projection,
    /// The projection that is computed for all neurons, in memory.
    resident: Option<Linear>,
    down_bias: Option<Vec<f32>>,
    activation: ActivationType,
    up_activation: ActivationType,
    selector: Selector,
    means: Option<Means>,
    hidden_norm: Option<HiddenNorm>,
    stored: StoredNeurons,
}

/// What is known of a projection whose rows are in records.
#[derive(Debug)]
struct Projection {
    format: BlockFormat,
    cols: usize,
    bias: Option<Vec<f32>>,
}

impl Projection {
    fn of(linear: &Linear) -> Result<Self, Error> {
        let [matrix] = linear.weight().segments() else {
            return Err(Error::Selector { selector: "lanes", needs: "neurons in memory" });
        };
        Ok(Self { format: matrix.format(), cols: matrix.cols(), bias: linear.bias().map(<[f32]>::to_vec) })
    }

    fn linear(&self, weight: impl Into<crate::SegmentedMatrix>) -> Linear {
        Linear::new(weight, self.bias.clone()).expect("the shape that it had")
    }
}

impl StoredFfn {
    /// Whether neurons of layers with `selector` may stay in a file: it tells most of them apart before they are read.
    pub fn fits(selector: &Selector) -> bool {
        matches!(
            selector,
            Selector::ExactZero | Selector::LowRank { .. } | Selector::Copy { .. } | Selector::Gate { .. }
        )
    }

    /// Whether a layer with `selector` keeps the projection that is computed first in memory. Its records in the slab
    /// then begin behind it.
    pub fn keeps_first(selector: &Selector) -> bool {
        !selector.skips_first()
    }

    /// `ffn` with its neurons where `stored` says. Of its weights it keeps what every token reads.
    ///
    /// # Errors
    /// If there is another number of records than of neurons, neurons are in lanes, or the selector
    /// [does not fit](Self::fits).
    pub fn new(ffn: &mut SparseFfn, stored: StoredNeurons) -> Result<Self, Error> {
        same_len("records of neurons", ffn.neurons(), stored.records.len())?;
        if !Self::fits(&ffn.selector) {
            let needs = "neurons in memory";
            return Err(Error::Selector { selector: ffn.selector.name(), needs });
        }
        let resident = match Self::keeps_first(&ffn.selector) {
            true => Some(in_memory(ffn.first())?),
            false => None,
        };
        Ok(Self {
            neurons: ffn.neurons(),
            outputs: ffn.outputs(),
            bytes: ffn.bytes(),
            gate: ffn.gate.as_ref().map(Projection::of).transpose()?,
            up: Projection::of(&ffn.up)?,
            resident,
            down_bias: ffn.down_bias.take(),
            activation: ffn.activation,
            up_activation: ffn.up_activation,
            selector: core::mem::replace(&mut ffn.selector, Selector::Dense),
            means: ffn.means.take(),
            hidden_norm: ffn.hidden_norm.take(),
            stored,
        })
    }

    /// Number of neurons.
    pub fn neurons(&self) -> usize {
        self.neurons
    }

    /// The selector.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Bytes that computing a token with all neurons reads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The projection that is computed for all neurons, if there is one: it is in memory.
    pub fn resident(&self) -> Option<&Linear> {
        self.resident.as_ref()
    }

    /// The matrix that is always multiplied as a whole, if there is one, to be [interleaved](crate::interleave).
    pub fn whole_matrix_mut(&mut self) -> Option<&mut Matrix> {
        // Without a gate, a layer with a row of `down` per neuron has the bits of single rows.
        let rows = self.gate.is_none() && matches!(self.stored.down, StoredDown::Rows { .. });
        self.resident.as_mut().filter(|_| !rows).and_then(Linear::matrix_mut)
    }

    /// Whether the layer's predictor has an [input of its own](PredictorInput::Own).
    pub fn has_predictor_input(&self) -> bool {
        matches!(&self.selector, Selector::LowRank { predictor, .. } if predictor.input() == PredictorInput::Own)
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            gated: self.gate.is_some(),
            neurons: self.neurons,
            activation: self.activation,
            up_activation: self.up_activation,
            selector: &self.selector,
            means: self.means.as_ref().map(|means| &*means.values),
            hidden_norm: self.hidden_norm.as_ref(),
        }
    }

    /// Has the store read ahead what the predictor would choose by `x`, about what this layer will be given: while
    /// guesses turn out right, and for one token.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn read_ahead(&self, compute: &Compute, x: &Activations, scratch: &mut FfnScratch) {
        let predicts = matches!(self.selector, Selector::LowRank { .. } | Selector::Copy { .. });
        if x.tokens() != 1 || !predicts || self.has_predictor_input() || !self.stored.store.guesses_pay() {
            return;
        }
        self.rules().predict(compute, x, scratch);
        self.selector.candidates(self.neurons, &scratch.scores[..self.neurons], &mut scratch.one.active);
        let unit = |j: &u32| self.stored.first + self.stored.records[*j as usize];
        self.stored.store.expect([].into_iter(), scratch.one.active.iter().map(unit));
    }

    /// Computes the layer as [`SparseFfn::forward`] does with the usual [`Crossover`].
    ///
    /// # Errors
    /// If neurons cannot be read; then `out` is of no meaning.
    ///
    /// # Panics
    /// If the shapes do not match, or `scratch` has not enough room.
    pub fn forward(
        &self,
        compute: &Compute,
        x: &Activations,
        batch: BatchMode,
        scratch: &mut FfnScratch,
        out: &mut [f32],
    ) -> Result<FfnCounts, StoreError> {
        if matches!((x.tokens(), batch), (2.., BatchMode::Dense) | (_, BatchMode::Masked)) {
            return Ok(self.in_memory(batch)?.forward(compute, x, batch, scratch, out));
        }
        self.rules().predict(compute, x, scratch);
        let FfnScratch { scores, one, by_active, .. } = scratch;
        let scores =
            |token: usize| scores.get(token * self.neurons..(token + 1) * self.neurons).unwrap_or_default();
        *by_active = true;
        let mut counts = FfnCounts::default();
        if x.tokens() == 1 {
            counts += self.sparse(compute, (x, scores(0)), one, out)?;
        } else {
            let mut input = core::mem::take(&mut one.x);
            input.reshape(1, x.cols());
            for (t, (x, out)) in x.x().chunks(x.cols()).zip(out.chunks_mut(self.outputs)).enumerate() {
                input.x_mut().copy_from_slice(x);
                input.quantize(compute.kernels);
                counts += self.sparse(compute, (&input, scores(t)), one, out)?;
            }
            one.x = input;
        }
        add_bias(compute, self.down_bias.as_deref(), out);
        add_bias(compute, self.means.as_ref().map(|means| &*means.folded), out);
        Ok(counts)
    }

    /// The layer with all its weights in memory, for a batch that computes all of them.
    fn in_memory(&self, batch: BatchMode) -> Result<SparseFfn, StoreError> {
        let NeuronWeights { gate, up, down } = (self.stored.whole)()?;
        let masked = batch == BatchMode::Masked;
        // What is in memory may be interleaved, and batches of interleaved rows have bits of their own.
        let first = || self.resident.clone();
        let (gate, up) = match &self.gate {
            Some(known) => (first().or(gate.map(|weight| known.linear(weight))), self.up.linear(up)),
            None => (None, first().unwrap_or_else(|| self.up.linear(up))),
        };
        Ok(SparseFfn {
            gate,
            up,
            down,
            down_bias: self.down_bias.clone(),
            activation: self.activation,
            up_activation: self.up_activation,
            selector: if masked { self.selector.clone() } else { Selector::Dense },
            means: self.means.clone().filter(|_| masked),
            hidden_norm: self.hidden_norm.clone(),
            crossover: Crossover::default(),
        })
    }

    /// One token, `x`, whose neurons the selector gives `scores`, if it has any.
    fn sparse(
        &self,
        compute: &Compute,
        (x, scores): (&Activations, &[f32]),
        s: &mut OneToken,
        out: &mut [f32],
    ) -> Result<FfnCounts, StoreError> {
        let (neurons, gated) = (self.neurons, self.gate.is_some());
        s.reserve(neurons);
        s.places.resize(neurons.max(s.places.len()), 0);
        let OneToken { up, hidden, active, values, places, row_places, .. } = s;
        let taken = RefCell::new(Taken { stored: &self.stored, held: None, places, row_places });
        // Parts of records that are in memory come before those in the slab.
        let skipped = usize::from(self.resident.is_some());
        let rows = |projection: &Projection, part: usize, active: &[u32], out: &mut [f32]| {
            let mut taken = taken.borrow_mut();
            taken.take(active)?;
            let slab = self.stored.slab.read();
            let slab = Rows::new(projection.format, projection.cols, slab.part(part - skipped))
                .expect("rooms have whole rows");
            let out = &mut out[..active.len()];
            RowSet { slab, places: taken.row_places }.products(compute, x, out);
            if let Some(bias) = &projection.bias {
                out.iter_mut().zip(active).for_each(|(y, j)| *y += bias[*j as usize]);
            }
            Ok(active.len() * slab.row_bytes())
        };
        let chosen = Chosen { active, values: &mut values[..neurons], up: &mut up[..neurons] };
        let mut counts = self.rules().choose(
            compute,
            scores,
            chosen,
            |active, out| match &self.resident {
                Some(first) => {
                    first.forward(compute, x, out);
                    Ok(first.weight().bytes())
                }
                None => rows(self.gate.as_ref().unwrap_or(&self.up), 0, active, out),
            },
            |active, out| rows(&self.up, usize::from(gated), active, out),
        )?;
        let mut taken = taken.into_inner();
        taken.take(active)?;
        let slab = self.stored.slab.read();
        let down = slab.part(1 + usize::from(gated) - skipped);
        match &self.stored.down {
            StoredDown::Rows { format } => {
                let slab = Rows::new(*format, self.outputs, down).expect("rooms have whole rows");
                counts.bytes += (active.len() * slab.row_bytes()) as u64;
                let set = RowSet { slab, places: taken.row_places };
                set.weighted_sum(compute, &values[..active.len()], out);
            }
            StoredDown::Columns { layout, factors } => {
                hidden.x_mut().fill(0.0);
                scatter(active, values, hidden.x_mut());
                hidden.quantize(compute.kernels);
                counts.bytes += layout.bytes_of(active) as u64;
                if active.len() == neurons {
                    // In memory, all columns are added in another order.
                    drop(slab);
                    (self.stored.whole)()?.down.forward(compute, hidden, out);
                } else {
                    let columns = Columns::apart(*layout, factors, down, &taken.places[..neurons]);
                    axpy(columns.expect("rooms have whole columns"), compute, active, hidden, out);
                }
            }
        }
        Ok(counts)
    }
}

/// The neurons of a token, in memory.
struct Taken<'a> {
    stored: &'a StoredNeurons,
    held: Option<Held<Place>>,
    /// By number of the neuron.
    places: &'a mut Vec<u32>,
    row_places: &'a mut Vec<u32>,
}

impl Taken<'_> {
    /// Looks up where the neurons `active` are. The first call has them read; others are for some of the same.
    fn take(&mut self, active: &[u32]) -> Result<(), StoreError> {
        if self.held.is_none() {
            let StoredNeurons { store, first, records, .. } = self.stored;
            let held = self.held.insert(Held::default());
            store.get_all(active.iter().map(|j| first + records[*j as usize]), held)?;
            for (j, place) in active.iter().zip(held.iter()) {
                self.places[*j as usize] = place.number();
            }
        }
        self.row_places.clear();
        self.row_places.extend(active.iter().map(|j| self.places[*j as usize]));
        Ok(())
    }
}

/// The map with its weights in memory of their own: they may be in a file.
fn in_memory(linear: &Linear) -> Result<Linear, Error> {
    let [matrix] = linear.weight().segments() else {
        return Err(Error::Selector { selector: "lanes", needs: "neurons in memory" });
    };
    Linear::new(matrix.to_memory(), linear.bias().map(<[f32]>::to_vec))
}
