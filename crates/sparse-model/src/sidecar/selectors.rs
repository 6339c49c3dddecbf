//! The selectors of all layers, in a sidecar.

use sparse_core::{Linear, LowRankPredictor, Matrix, PredictorInput, Rule, Selector, Storage};
use sparse_gguf::{BlockFormat, Gguf, GgufWriter, Metadata, Sink};

use crate::Error;

const VERSION: u32 = 1;
/// The name of predictors as PowerInfer has them: a ReLU inside, and the residual stream as input.
const POWERINFER: &str = "low-rank-powerinfer";

/// A tensor to be written: name, dimensions, format, bytes.
pub(super) type Part = (String, Vec<usize>, BlockFormat, Vec<u8>);

/// The selectors in `gguf`. `copy(i)` makes the copy of layer i's up projection, where the model may have one: it is not
/// in the file, since rounding the weights anew takes less time than reading it.
pub(super) fn read(
    gguf: &Gguf,
    copy: impl Fn(usize) -> Option<Result<Linear, Error>>,
) -> Result<Vec<Selector>, Error> {
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
            "low-rank" | POWERINFER => Selector::LowRank {
                predictor: match name.as_str() {
                    POWERINFER => file.predictor(i)?.with_relu().with_input(PredictorInput::Own),
                    _ => file.predictor(i)?,
                },
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
            other => match (other == "copy").then(|| copy(i)).flatten() {
                Some(copy) => Selector::Copy { copy: copy?, hidden: hidden()? },
                None => {
                    let problem = format!("names an unknown selector \"{other}\"");
                    return Err(Error::metadata("sparse.selectors", problem));
                }
            },
        })
    });
    selectors.collect()
}

/// Metadata and tensors of a sidecar with these selectors.
pub(super) fn write<'a>(
    fingerprint: &str,
    selectors: impl Iterator<Item = &'a Selector>,
) -> Result<(Metadata, Vec<Part>), Error> {
    let mut meta = Metadata::new();
    meta.insert("general.architecture", "sparse");
    meta.insert("general.type", "sidecar");
    meta.insert("sparse.version", VERSION);
    meta.insert("sparse.model.fingerprint", fingerprint);
    let (mut names, mut thresholds) = (Vec::new(), Vec::new());
    let mut tensors: Vec<Part> = Vec::new();
    for (i, selector) in selectors.enumerate() {
        names.push(match selector {
            Selector::LowRank { predictor, .. } if predictor.input() == PredictorInput::Own => {
                POWERINFER.to_owned()
            }
            other => other.name().to_owned(),
        });
        thresholds.push(0.0);
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
            Selector::Intermediate { hidden } | Selector::Copy { hidden, .. } => {
                vector("ffn_hidden.threshold", hidden)
            }
            Selector::LowRank { predictor, rule: Rule::Threshold(threshold) } => {
                thresholds[i] = *threshold;
                let (p, q, bias) = predictor.parts();
                vector("ffn_predictor.bias", bias);
                for (name, m) in [("ffn_predictor_p.weight", &p), ("ffn_predictor_q.weight", &q)] {
                    let bytes = m.storage().bytes().to_vec();
                    tensors.push((format!("blk.{i}.{name}"), vec![m.cols(), m.rows()], m.format(), bytes));
                }
            }
            other => {
                let needs = "a threshold to be stored: it is for measurements";
                return Err(sparse_core::Error::Selector { selector: other.name(), needs }.into());
            }
        }
    }
    meta.insert("sparse.thresholds", thresholds);
    meta.insert("sparse.selectors", names);
    Ok((meta, tensors))
}

/// Writes a sidecar to `sink`.
pub(super) fn finish<S: Sink>(sink: S, meta: Metadata, tensors: &[Part]) -> Result<S::Done, Error> {
    let mut writer = GgufWriter::new(meta);
    for (name, dims, format, _) in tensors {
        writer.tensor(name, dims, *format)?;
    }
    let mut file = writer.start(sink)?;
    for (name, _, _, bytes) in tensors {
        file.write(name, bytes)?;
    }
    Ok(file.finish()?)
}

/// The file that selectors are read from.
pub(super) struct Tensors<'a> {
    pub(super) gguf: &'a Gguf,
}

impl Tensors<'_> {
    pub(super) fn vector(&self, name: &str) -> Result<Vec<f32>, Error> {
        let values = self.gguf.tensor(name)?.dequantize()?;
        match values.iter().position(|v| v.is_nan()) {
            None => Ok(values),
            Some(i) => Err(Error::Tensor { name: name.into(), problem: format!("value {i} is NaN") }),
        }
    }

    pub(super) fn matrix(&self, name: &str) -> Result<Matrix, Error> {
        let info = self.gguf.tensor(name)?.info;
        let problem = |problem| Error::Tensor { name: name.into(), problem };
        let &[cols, _] = &info.dims[..] else {
            return Err(problem(format!("expected two dimensions, found {:?}", info.dims)));
        };
        let (owner, range) = self.gguf.shared(name)?;
        let storage = Storage::Shared { owner, range };
        Matrix::new(info.format()?, cols, storage).map_err(|e| problem(e.to_string()))
    }

    fn predictor(&self, layer: usize) -> Result<LowRankPredictor, Error> {
        let name = |part: &str| format!("blk.{layer}.ffn_predictor{part}");
        // In memory of its own: `q` is stored by columns, and the map of the file is not wanted for long.
        let (p, q) = (self.matrix(&name("_p.weight"))?.to_memory(), self.matrix(&name("_q.weight"))?);
        let bias = self.vector(&name(".bias"))?;
        LowRankPredictor::new(p, q, bias)
            .map_err(|e| Error::Tensor { name: name(".bias"), problem: e.to_string() })
    }
}
