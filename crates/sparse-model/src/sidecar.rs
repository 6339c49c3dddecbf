//! What calibration made of a model, in one GGUF file beside it.
//!
//! Metadata: `sparse.version`, `sparse.model.fingerprint`, `sparse.model.activation`, `sparse.selectors` (a name per layer), `sparse.thresholds` (the
//! predictor's, a number per layer), `sparse.densities` (of gate, up and down, three numbers per layer), and the loss that was
//! measured. Tensors, only where the selector has them:
//!
//! ```text
//! blk.N.ffn_predictor_p.weight   [r x d]        blk.N.ffn_gate.threshold     [neurons]
//! blk.N.ffn_predictor_q.weight   [neurons x r]  blk.N.ffn_hidden.threshold   [neurons]
//! blk.N.ffn_predictor.bias       [neurons]      blk.N.ffn_hidden.mean        [neurons]
//! blk.N.ffn_heat                 [neurons]
//! screen.directions.weight       [dims x d]     screen.mean                  [d]
//! screen.spread                  [dims]         screen.lost                  [vocabulary]
//! ```
//!
//! The heat is the share of the tokens that used a neuron. The means are those of an [encoder's](EncoderSidecar) skipped neurons. The last four are the axes of a [screen](HeadScreen), whose
//! numbers are in `sparse.screen.*`. Neurons in [lanes](NeuronLanes) have `sparse.lanes.names`, `.counts` (a number per layer and lane)
//! and `.order` (of all neurons, layer by layer), and `blk.N.ffn_input.square` `[d]`, how much each input matters. Thresholds and
//! predictors are in the file's order.

#[cfg(feature = "encoder")]
mod encoder;
mod fingerprint;
mod lanes;
mod loss;
mod screen;
mod selectors;

use std::collections::HashMap;
use std::hash::Hash;
#[cfg(feature = "fs")]
use std::path::Path;

use sparse_core::{BatchTimes, Compute, Density, FfnTimes, Selector, SparseFfn};
use sparse_gguf::{BlockFormat, Gguf, Sink};

#[cfg(feature = "encoder")]
pub use encoder::{EncoderLoss, EncoderSidecar};
pub use fingerprint::fingerprint;
#[cfg(any(feature = "encoder", feature = "fs"))]
pub(crate) use fingerprint::hex;
pub use loss::{MeasuredLoss, OwnText};
pub use screen::HeadScreen;

use crate::lanes::NeuronLanes;
use crate::weights::ffn_weight;
use crate::{Error, Model};

/// Rounds of timing when a sidecar is applied: a few milliseconds per kind of layer.
const ROUNDS: usize = 5;

/// Bytes of layers that are timed in turn: more than caches hold.
const TIMED_BYTES: usize = 64 << 20;

/// Selectors for the layers of one model, and what they cost in accuracy.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// [`fingerprint`] of the model that it was made for.
    pub fingerprint: String,
    /// Name of the [activation](crate::FfnActivation) that the model was computed with, if the sidecar says so.
    pub activation: Option<String>,
    /// One per layer.
    pub selectors: Vec<Selector>,
    /// What the layers computed when that was measured, one per layer. With them, [`Placement::Measured`] leaves layers
    /// dense in which skipping is slower; without them it only measures up to which density skipping is faster.
    pub densities: Option<Vec<Density>>,
    /// The loss measured on text that calibration did not see.
    pub loss: Option<MeasuredLoss>,
    /// How the head is screened, if it is.
    pub screen: Option<HeadScreen>,
    /// In which lanes neurons are stored, one per layer, if they are not as the model's file has them.
    pub lanes: Option<Vec<NeuronLanes>>,
    /// Share of the tokens that used each neuron, layer by layer, if that was counted.
    pub heat: Option<Vec<Vec<f32>>>,
}

/// Which layers of a sparse model leave neurons out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Those in which that is faster on this machine. Loading times them, which needs a clock, and a busy machine may
    /// decide otherwise.
    Measured,
    /// Those that the sidecar chose: the same on every machine. Loading needs no clock.
    AsCalibrated,
}

impl Sidecar {
    /// Reads a sidecar.
    ///
    /// # Errors
    /// If the file cannot be read, is no sidecar, or is damaged.
    #[cfg(feature = "fs")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let in_file = |source| Error::File { path: path.to_owned(), source: Box::new(source) };
        Gguf::open(path).map_err(Error::from).and_then(|gguf| Self::from_gguf(&gguf)).map_err(in_file)
    }

    /// Reads a sidecar from a parsed file.
    ///
    /// # Errors
    /// If the file is no sidecar, or is damaged.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let meta = gguf.metadata();
        let selectors = selectors::read(gguf, |_| None)?;
        let layers = selectors.len();
        let lanes = lanes::read(gguf, selectors.len())?;
        let loss = MeasuredLoss::read(meta)?;
        let densities =
            meta.opt_f32s("sparse.densities")?.map(|d| densities(d, selectors.len())).transpose()?;
        let fingerprint = meta.string("sparse.model.fingerprint")?.to_owned();
        let activation = meta.opt_string("sparse.model.activation")?.map(str::to_owned);
        Ok(Self {
            fingerprint,
            activation,
            selectors,
            densities,
            loss,
            screen: HeadScreen::read(gguf)?,
            lanes,
            heat: heat(gguf, layers)?,
        })
    }

    /// The selectors that `model`, opened from `gguf`, has, and nothing else.
    pub fn of(gguf: &Gguf, model: &Model) -> Self {
        Self {
            fingerprint: fingerprint(gguf),
            activation: Some(model.config().activation().to_string()),
            selectors: model.ffns().map(|ffn| ffn.selector().clone()).collect(),
            densities: None,
            loss: None,
            screen: None,
            lanes: None,
            heat: None,
        }
    }

    /// The sidecar, if it was made for the model in `gguf`.
    ///
    /// # Errors
    /// If it was made for another.
    pub fn check(self, gguf: &Gguf) -> Result<Self, Error> {
        match fingerprint(gguf) {
            found if found != self.fingerprint => Err(Error::Sidecar { expected: self.fingerprint, found }),
            _ => Ok(self),
        }
    }

    /// Whether [`apply`](Self::apply) stores the weights of the model's tensor called `name` in another way, so that they are
    /// not wanted for long as the file has them ([`Gguf::read`]).
    pub fn stores_anew(&self, name: &str) -> bool {
        ffn_weight(name).is_some_and(|(layer, part)| {
            let skips = self.selectors.get(layer).is_some_and(|s| !matches!(s, Selector::Dense));
            self.lanes.is_some() || skips && part == "down"
        })
    }

    /// Writes the sidecar; whatever was at `path` stays until the new file is complete.
    ///
    /// # Errors
    /// If the file cannot be written, or a selector is one for measurements only.
    #[cfg(feature = "fs")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.write(sparse_gguf::PendingFile::create(path)?)
    }

    /// Writes the sidecar to a sink, such as a `Vec<u8>`.
    ///
    /// # Errors
    /// If the sink fails, or a selector is one for measurements only.
    pub fn write<S: Sink>(&self, sink: S) -> Result<S::Done, Error> {
        let (mut meta, mut tensors) = selectors::write(&self.fingerprint, self.selectors.iter())?;
        if let Some(activation) = &self.activation {
            meta.insert("sparse.model.activation", activation.as_str());
        }
        if let Some(loss) = &self.loss {
            loss.write(&mut meta);
        }
        if let Some(densities) = &self.densities {
            let numbers: Vec<f32> = densities.iter().flat_map(|d| [d.gate, d.up, d.down]).collect();
            meta.insert("sparse.densities", numbers);
        }
        if let Some(screen) = &self.screen {
            screen.write(&mut meta, &mut tensors);
        }
        if let Some(lanes) = &self.lanes {
            lanes::write(lanes, &mut meta, &mut tensors);
        }
        for (i, heat) in self.heat.iter().flatten().enumerate() {
            let bytes = heat.iter().flat_map(|heat| heat.to_le_bytes()).collect();
            tensors.push((heat_name(i), vec![heat.len()], BlockFormat::F32, bytes));
        }
        selectors::finish(sink, meta, &tensors)
    }

    /// Gives the selectors, the lanes and the screen to `model`, opened from `gguf`, and [prepares](prepare) its layers.
    /// Logs a warning for everything that [speaks against](MeasuredLoss::concerns) the sidecar.
    ///
    /// # Errors
    /// If the sidecar was made for another model or another activation, or its lanes or its screen do not fit.
    pub fn apply(self, gguf: &Gguf, model: &mut Model, placement: Placement) -> Result<(), Error> {
        let this = self.check(gguf)?;
        let found = model.config().activation().to_string();
        if let Some(expected) = this.activation.filter(|expected| *expected != found) {
            return Err(Error::SidecarActivation { expected, found });
        }
        let layers = model.ffns().count();
        if this.selectors.len() != layers {
            let problem = format!("has {} layers, but the model has {layers}", this.selectors.len());
            return Err(Error::metadata("sparse.selectors", problem));
        }
        for (ffn, selector) in model.ffns_mut().zip(this.selectors) {
            ffn.set_selector(selector)?;
        }
        if let Some(lanes) = &this.lanes {
            if model.has_records() {
                let problem =
                    "stores neurons in lanes, but under a memory budget records have them as the model does";
                return Err(Error::metadata("sparse.lanes.names", problem));
            }
            lanes::apply(lanes, model)?;
        }
        if let Some(screen) = this.screen {
            screen.apply(model)?;
        }
        for concern in this.loss.iter().flat_map(MeasuredLoss::concerns) {
            tracing::warn!("the sidecar: {concern}");
        }
        match placement {
            // Neurons stay in their file.
            _ if model.has_records() => {}
            Placement::Measured => {
                let slower = prepare(model, this.densities.as_deref())?;
                tracing::debug!(slower, "layers that stay dense, since skipping is slower on this machine");
            }
            Placement::AsCalibrated => sort_by_columns(model)?,
        }
        Ok(())
    }
}

fn heat_name(layer: usize) -> String {
    format!("blk.{layer}.ffn_heat")
}

/// Share of the tokens that used each neuron, in a file that has it for all of so many layers.
fn heat(gguf: &Gguf, layers: usize) -> Result<Option<Vec<Vec<f32>>>, Error> {
    let read = |i| {
        let (name, file) = (heat_name(i), selectors::Tensors { gguf });
        let heat = file.vector(&name)?;
        match heat.iter().all(|heat| (0.0..=1.0).contains(heat)) {
            true => Ok(heat),
            false => Err(Error::Tensor { name, problem: "has values that are no shares from 0 to 1".into() }),
        }
    };
    let known = layers > 0 && gguf.info(&heat_name(0)).is_some();
    known.then(|| (0..layers).map(read).collect()).transpose()
}

/// The densities of so many layers, three numbers each.
fn densities(numbers: &[f32], layers: usize) -> Result<Vec<Density>, Error> {
    let problem = |problem| Err(Error::metadata("sparse.densities", problem));
    if numbers.len() != 3 * layers {
        return problem(format!("has {} numbers, but {layers} layers need three each", numbers.len()));
    }
    if let Some(i) = numbers.iter().position(|d| !(0.0..=1.0).contains(d)) {
        return problem(format!("number {i} is {}, not a share from 0 to 1", numbers[i]));
    }
    Ok(numbers
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[gate, up, down]| Density { gate: *gate, up: *up, down: *down })
        .collect())
}

/// Sorts the weights of the layers that are not dense by columns, and measures from which density on skipping is slower than
/// computing everything on this machine. Where the densities to be expected are given, layers that are slower at them than the
/// dense layer that they were before become that again, and batches so small that skipping is faster skip; returns how many
/// layers became dense.
///
/// # Errors
/// If a layer is too large to address.
pub fn prepare(model: &mut Model, densities: Option<&[Density]>) -> Result<usize, Error> {
    // Layers of the same kind are timed together.
    let kind = |ffn: &SparseFfn| {
        let bytes = [ffn.up().weight().bytes(), ffn.down().bytes(), ffn.selector().bytes()];
        (ffn.inputs(), ffn.neurons(), bytes)
    };
    let kinds: Vec<_> = model.ffns().map(|ffn| sparse(ffn).then(|| kind(ffn))).collect();
    let dense = timed(model, &kinds, |ffns| dense_time(model.compute(), ffns));
    sort_by_columns(model)?;
    // As they will run.
    model.interleave_ffns(sparse);
    let times = timed(model, &kinds, |ffns| {
        let selector = FfnTimes::selector(model.compute(), ffns, ROUNDS);
        (FfnTimes::measure(model.compute(), ffns, ROUNDS), selector)
    });
    // Nothing is known of tokens whose densities are not.
    let batches = densities
        .map(|_| timed(model, &kinds, |ffns| BatchTimes::measure(model.compute(), ffns, ROUNDS)))
        .unwrap_or_default();
    let mut slower = 0;
    for (i, ffn) in model.ffns_mut().enumerate() {
        let Some(kind) = kinds[i] else { continue };
        let (times, selector) = &times[&kind];
        let mut crossover = times.crossover();
        if let Some(densities) = densities {
            let alone = selector + times.layer_at(densities[i]);
            if alone >= dense[&kind] {
                ffn.set_selector(Selector::Dense)?;
                ffn.sort_by_rows();
                slower += 1;
                continue;
            }
            crossover.tokens = batches[&kind].crossover(alone);
        }
        tracing::debug!(layer = i, ?crossover, "faster up to");
        ffn.set_crossover(crossover);
    }
    Ok(slower)
}

/// Seconds that layers of one kind take for a token if they leave nothing out and are stored for that.
fn dense_time(compute: &Compute, ffns: &[&SparseFfn]) -> f64 {
    let mut bytes = 0;
    let enough = |ffn: &&&SparseFfn| {
        let before = bytes;
        bytes += ffn.bytes();
        before < TIMED_BYTES
    };
    let mut copies: Vec<_> = ffns.iter().take_while(enough).map(|ffn| ffn.dense_copy()).collect();
    sparse_core::interleave(compute, copies.iter_mut().flat_map(SparseFfn::whole_matrices_mut), |_| ());
    FfnTimes::dense(compute, &copies.iter().collect::<Vec<_>>(), 1, ROUNDS)
}

/// Stores the layers that leave neurons out so that a neuron's part of `down` is contiguous.
fn sort_by_columns(model: &mut Model) -> Result<(), Error> {
    for ffn in model.ffns_mut().filter(|ffn| sparse(ffn)) {
        ffn.sort_by_columns()?;
    }
    Ok(())
}

fn sparse(ffn: &SparseFfn) -> bool {
    !matches!(ffn.selector(), Selector::Dense)
}

/// What `time` says of the layers of each kind.
fn timed<K: Copy + Eq + Hash, T>(
    model: &Model,
    kinds: &[Option<K>],
    time: impl Fn(&[&SparseFfn]) -> T,
) -> HashMap<K, T> {
    let mut of_kind: HashMap<K, Vec<&SparseFfn>> = HashMap::new();
    for (ffn, kind) in model.ffns().zip(kinds) {
        if let Some(kind) = kind {
            of_kind.entry(*kind).or_default().push(ffn);
        }
    }
    of_kind.into_iter().map(|(kind, ffns)| (kind, time(&ffns))).collect()
}
