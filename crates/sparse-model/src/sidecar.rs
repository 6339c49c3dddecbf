//! What calibration made of a model, in one GGUF file beside it.
//!
//! Metadata: `sparse.version`, `sparse.model.fingerprint`, `sparse.selectors` (a name per layer), `sparse.thresholds` (the
//! predictor's, a number per layer), and the loss that was measured. Tensors, only where the selector has them:
//!
//! ```text
//! blk.N.ffn_predictor_p.weight   [r x d]        blk.N.ffn_gate.threshold     [neurons]
//! blk.N.ffn_predictor_q.weight   [neurons x r]  blk.N.ffn_hidden.threshold   [neurons]
//! blk.N.ffn_predictor.bias       [neurons]
//! screen.directions.weight       [dims x d]     screen.mean                  [d]
//! screen.spread                  [dims]         screen.lost                  [vocabulary]
//! ```
//!
//! The last four are the axes of a [screen](HeadScreen), whose numbers are in `sparse.screen.*`. Neurons in
//! [lanes](NeuronLanes) have `sparse.lanes.names`, `.counts` (a number per layer and lane) and `.order` (of all neurons, layer by
//! layer), and `blk.N.ffn_input.square` `[d]`, how much each input matters. Thresholds and predictors are in the file's order.

mod lanes;
mod screen;

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use sparse_core::{FfnTimes, LowRankPredictor, Matrix, Rule, Selector, SparseFfn, Storage};
use sparse_gguf::{BlockFormat, Gguf, GgufWriter, Metadata};

pub use screen::HeadScreen;

use crate::lanes::NeuronLanes;
use crate::{Error, Model};

const VERSION: u32 = 1;
/// Bytes at the beginning and at the end of each tensor that go into the fingerprint.
const SAMPLE: usize = 1024;
/// Rounds of timing when a sidecar is applied: a few milliseconds per kind of layer.
const ROUNDS: usize = 5;

/// Selectors for the layers of one model, and what they cost in accuracy.
#[derive(Debug)]
pub struct Sidecar {
    /// [`fingerprint`] of the model that it was made for.
    pub fingerprint: String,
    /// One per layer.
    pub selectors: Vec<Selector>,
    /// The loss measured on text that calibration did not see.
    pub loss: Option<MeasuredLoss>,
    /// How the head is screened, if it is.
    pub screen: Option<HeadScreen>,
    /// In which lanes neurons are stored, one per layer, if they are not as the model's file has them.
    pub lanes: Option<Vec<NeuronLanes>>,
}

/// Loss of a sparse model against the dense one, on the same text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredLoss {
    /// Relative increase of perplexity: 0.01 is 1 %.
    pub perplexity_increase: f64,
    /// Standard error of that, from paired differences.
    pub standard_error: f64,
    /// Mean Kullback-Leibler divergence from the dense model's predictions, in nats.
    pub kl: f64,
    /// Share of the tokens whose most probable continuation is the same.
    pub top1: f64,
    /// Tokens scored.
    pub tokens: usize,
}

impl MeasuredLoss {
    /// Upper end of the 95 % confidence interval of the perplexity increase.
    pub fn upper(&self) -> f64 {
        self.perplexity_increase + 1.96 * self.standard_error
    }
}

/// Tells a model file from every other: a hash of its metadata, of the names, types and shapes of its tensors, and of
/// samples of their data.
pub fn fingerprint(gguf: &Gguf) -> String {
    let mut hash = Sha256::new();
    for (key, value) in gguf.metadata().iter() {
        hash.update(format!("{key}={value:?}\n"));
    }
    for info in gguf.tensors() {
        hash.update(format!("{} {:?} {:?}\n", info.name, info.ty, info.dims));
        let data = &gguf.bytes();
        let data = &(**data).as_ref()[info.range()];
        hash.update(&data[..data.len().min(SAMPLE)]);
        hash.update(&data[data.len().saturating_sub(SAMPLE)..]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Sidecar {
    /// Reads a sidecar.
    ///
    /// # Errors
    /// If the file cannot be read, is no sidecar, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let in_file = |source| Error::File { path: path.to_owned(), source: Box::new(source) };
        Gguf::open(path).map_err(Error::from).and_then(|gguf| Self::from_gguf(&gguf)).map_err(in_file)
    }

    /// Like [`open`](Self::open), from a parsed file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let meta = gguf.metadata();
        let missing = |key| Error::metadata(key, "is missing: this is no sidecar of `sparse calibrate`");
        let version = meta.opt_u32("sparse.version")?.ok_or_else(|| missing("sparse.version"))?;
        if version != VERSION {
            let problem = format!("is {version}, but only {VERSION} is known; calibrate again");
            return Err(Error::metadata("sparse.version", problem));
        }
        let names = meta.opt_strings("sparse.selectors")?.ok_or_else(|| missing("sparse.selectors"))?;
        let thresholds = meta.opt_f32s("sparse.thresholds")?.unwrap_or_default();
        if let Some(i) = thresholds.iter().position(|t| t.is_nan()) {
            return Err(Error::metadata("sparse.thresholds", format!("value {i} is NaN")));
        }
        let file = Tensors { gguf };
        let selectors = names.iter().enumerate().map(|(i, name)| {
            let gate = || file.vector(&format!("blk.{i}.ffn_gate.threshold"));
            let hidden = || file.vector(&format!("blk.{i}.ffn_hidden.threshold"));
            Ok(match name.as_str() {
                "dense" => Selector::Dense,
                "exact-zero" => Selector::ExactZero,
                "low-rank" => Selector::LowRank {
                    predictor: file.predictor(i)?,
                    rule: Rule::Threshold(*thresholds.get(i).ok_or_else(|| missing("sparse.thresholds"))?),
                },
                "gate" => Selector::Gate {
                    gate: gate()?,
                    hidden: match gguf.info(&format!("blk.{i}.ffn_hidden.threshold")) {
                        Some(_) => Some(hidden()?),
                        None => None,
                    },
                },
                "intermediate" => Selector::Intermediate { hidden: hidden()? },
                other => {
                    return Err(Error::metadata(
                        "sparse.selectors",
                        format!("names an unknown selector \"{other}\""),
                    ));
                }
            })
        });
        let selectors: Vec<_> = selectors.collect::<Result<_, Error>>()?;
        let lanes = lanes::read(gguf, selectors.len())?;
        let number = |key: &str| meta.opt_f32(&format!("sparse.loss.{key}"));
        let loss = match (number("perplexity_increase")?, meta.opt_usize("sparse.loss.tokens")?) {
            (Some(increase), Some(tokens)) => Some(MeasuredLoss {
                perplexity_increase: increase.into(),
                standard_error: number("standard_error")?.unwrap_or(f32::NAN).into(),
                kl: number("kl")?.unwrap_or(f32::NAN).into(),
                top1: number("top1")?.unwrap_or(f32::NAN).into(),
                tokens,
            }),
            _ => None,
        };
        let fingerprint = meta.string("sparse.model.fingerprint")?.to_owned();
        Ok(Self { fingerprint, selectors, loss, screen: HeadScreen::read(gguf)?, lanes })
    }

    /// Writes the sidecar; whatever was at `path` stays until the new file is complete.
    ///
    /// # Errors
    /// If the file cannot be written, or a selector is one for measurements only.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut meta = Metadata::new();
        meta.insert("general.architecture", "sparse");
        meta.insert("general.type", "sidecar");
        meta.insert("sparse.version", VERSION);
        meta.insert("sparse.model.fingerprint", self.fingerprint.as_str());
        let names: Vec<String> = self.selectors.iter().map(|s| s.name().to_owned()).collect();
        meta.insert("sparse.selectors", names);
        if let Some(loss) = &self.loss {
            for (key, value) in [
                ("perplexity_increase", loss.perplexity_increase),
                ("standard_error", loss.standard_error),
                ("kl", loss.kl),
                ("top1", loss.top1),
            ] {
                meta.insert(format!("sparse.loss.{key}"), value as f32);
            }
            meta.insert("sparse.loss.tokens", loss.tokens as u64);
        }
        let mut thresholds = vec![0.0_f32; self.selectors.len()];
        let mut tensors = Vec::new();
        for (i, selector) in self.selectors.iter().enumerate() {
            let mut vector = |name: &str, values: &[f32]| {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                tensors.push((format!("blk.{i}.{name}"), vec![values.len()], BlockFormat::F32, bytes));
            };
            match selector {
                Selector::Dense | Selector::ExactZero => {}
                Selector::Gate { gate, hidden } => {
                    vector("ffn_gate.threshold", gate);
                    if let Some(hidden) = hidden {
                        vector("ffn_hidden.threshold", hidden);
                    }
                }
                Selector::Intermediate { hidden } => vector("ffn_hidden.threshold", hidden),
                Selector::LowRank { predictor, rule: Rule::Threshold(threshold) } => {
                    thresholds[i] = *threshold;
                    let (p, q, bias) = predictor.parts();
                    vector("ffn_predictor.bias", bias);
                    for (name, m) in [("ffn_predictor_p.weight", &p), ("ffn_predictor_q.weight", &q)] {
                        let bytes = m.storage().bytes().to_vec();
                        tensors.push((
                            format!("blk.{i}.{name}"),
                            vec![m.cols(), m.rows()],
                            m.format(),
                            bytes,
                        ));
                    }
                }
                other => {
                    let needs = "a threshold to be stored: it is for measurements";
                    return Err(sparse_core::Error::Selector { selector: other.name(), needs }.into());
                }
            }
        }
        meta.insert("sparse.thresholds", thresholds);
        if let Some(screen) = &self.screen {
            screen.write(&mut meta, &mut tensors);
        }
        if let Some(lanes) = &self.lanes {
            lanes::write(lanes, &mut meta, &mut tensors);
        }
        let mut writer = GgufWriter::new(meta);
        for (name, dims, format, _) in &tensors {
            writer.tensor(name, dims, *format)?;
        }
        let mut file = writer.create(path)?;
        for (name, _, _, bytes) in &tensors {
            file.write(name, bytes)?;
        }
        file.finish()?;
        Ok(())
    }

    /// Gives the selectors, the lanes and the screen to `model`, opened from `gguf`, sorts the weights of its sparse layers by columns,
    /// and measures from which density on skipping is slower than computing everything on this machine.
    ///
    /// # Errors
    /// If the sidecar was made for another model, or its lanes or its screen do not fit.
    pub fn apply(self, gguf: &Gguf, model: &mut Model) -> Result<(), Error> {
        let found = fingerprint(gguf);
        if found != self.fingerprint || self.selectors.len() != model.ffns().len() {
            return Err(Error::Sidecar { expected: self.fingerprint, found });
        }
        for (ffn, selector) in model.ffns_mut().zip(self.selectors) {
            ffn.set_selector(selector)?;
        }
        if let Some(lanes) = &self.lanes {
            lanes::apply(lanes, model)?;
        }
        if let Some(screen) = self.screen {
            screen.apply(model)?;
        }
        prepare(model)
    }
}

/// Sorts the weights of the layers that are not dense by columns, and measures their crossover.
///
/// # Errors
/// If a layer is too large to address.
pub fn prepare(model: &mut Model) -> Result<(), Error> {
    let sparse = |ffn: &SparseFfn| !matches!(ffn.selector(), Selector::Dense);
    // Layers of the same kind are timed together.
    let kind = |ffn: &SparseFfn| (ffn.inputs(), ffn.neurons(), ffn.up().weight().bytes(), ffn.down().bytes());
    for ffn in model.ffns_mut().filter(|ffn| sparse(ffn)) {
        ffn.sort_by_columns()?;
    }
    let mut kinds: HashMap<_, Vec<&SparseFfn>> = HashMap::new();
    for ffn in model.ffns().filter(|ffn| sparse(ffn)) {
        kinds.entry(kind(ffn)).or_default().push(ffn);
    }
    let crossovers: HashMap<_, _> = kinds
        .into_iter()
        .map(|(kind, ffns)| (kind, FfnTimes::measure(model.compute(), &ffns, ROUNDS).crossover()))
        .collect();
    for ffn in model.ffns_mut() {
        if let Some(crossover) = crossovers.get(&kind(ffn)) {
            ffn.set_crossover(*crossover);
        }
    }
    Ok(())
}

/// The file that selectors are read from.
struct Tensors<'a> {
    gguf: &'a Gguf,
}

impl Tensors<'_> {
    fn vector(&self, name: &str) -> Result<Vec<f32>, Error> {
        let values = self.gguf.tensor(name)?.dequantise()?;
        match values.iter().position(|v| v.is_nan()) {
            None => Ok(values),
            Some(i) => Err(Error::Tensor { name: name.into(), problem: format!("value {i} is NaN") }),
        }
    }

    fn matrix(&self, name: &str) -> Result<Matrix, Error> {
        let info = self.gguf.tensor(name)?.info;
        let problem = |problem| Error::Tensor { name: name.into(), problem };
        let &[cols, _] = &info.dims[..] else {
            return Err(problem(format!("expected two dimensions, found {:?}", info.dims)));
        };
        let storage = Storage::Shared { owner: self.gguf.bytes(), range: info.range() };
        Matrix::new(info.format()?, cols, storage).map_err(|e| problem(e.to_string()))
    }

    fn predictor(&self, layer: usize) -> Result<LowRankPredictor, Error> {
        let name = |part: &str| format!("blk.{layer}.ffn_predictor{part}");
        let (p, q) = (self.matrix(&name("_p.weight"))?, self.matrix(&name("_q.weight"))?);
        let bias = self.vector(&name(".bias"))?;
        LowRankPredictor::new(p, q, bias)
            .map_err(|e| Error::Tensor { name: name(".bias"), problem: e.to_string() })
    }
}
