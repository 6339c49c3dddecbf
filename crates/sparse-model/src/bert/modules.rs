//! `modules.json` of a sentence-transformers folder: what makes an embedding of the vectors of a text's tokens.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sparse_simd::Activation;

use super::Pooling;
use super::files::{Files, in_file, inside};
use super::head::{Head, Projection, Residual, Step};
use super::safetensors::Safetensors;
use crate::Error;

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `config.json` of a dense module.
#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: Option<String>,
    #[serde(default = "sentence")]
    module_input_name: String,
    module_output_name: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

/// What the library calls the vector that becomes the embedding.
const SENTENCE: &str = "sentence_embedding";

fn sentence() -> String {
    SENTENCE.into()
}

/// The folder of the transformer in the model's folder at `path`, and what follows on it. `width` is that of the
/// transformer whose folder it is given.
///
/// A folder without `modules.json` is a plain transformer: the mean of its tokens' vectors is the embedding, as the
/// sentence-transformers library has it, and is not scaled.
pub(super) fn open(
    files: Files<'_>,
    path: &Path,
    width: impl FnOnce(&Path) -> Result<usize, Error>,
) -> Result<(PathBuf, Head), Error> {
    let list = path.join("modules.json");
    let Some(modules) = files.optional::<Vec<Module>>(&list)? else {
        let head = Head::new(width(path)?, vec![Pooling::Mean]);
        return Ok((path.to_owned(), head));
    };
    let wrong = |problem: String| in_file(&list, Error::setting("modules", problem));
    // Releases differ in where the classes live, but not in their names.
    let names: Vec<_> = modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
    let known = |name: &&str| matches!(*name, "Dense" | "LayerNorm" | "Normalize" | "Dropout");
    if !names.starts_with(&["Transformer", "Pooling"]) || !names.iter().skip(2).all(known) {
        return Err(wrong(format!(
            "are {}, which is not supported (supported: Transformer, Pooling, and any of Dense, LayerNorm, Normalize \
             and Dropout)",
            names.join(", ")
        )));
    }
    let inside = |module: &Module| inside(path, &module.path).map_err(wrong);
    let transformer = inside(&modules[0])?;
    let mut head = files
        .read(&inside(&modules[1])?.join("config.json"), |text| {
            let (pooling, include_prompt) = pooling(text)?;
            Ok((Head::new(0, pooling), include_prompt))
        })
        .and_then(|(head, include_prompt)| {
            let width = width(&transformer)?;
            Ok(Head { width, include_prompt, ..head })
        })?;
    for (module, name) in modules.iter().zip(names).skip(2) {
        let dimension = head.dimension();
        let step = match name {
            "Dense" => Step::Dense(dense(files, &inside(module)?, dimension)?),
            "LayerNorm" => layer_norm(files, &inside(module)?, dimension)?,
            "Normalize" => Step::Normalize,
            // Leaves something out in training only.
            _ => continue,
        };
        head.steps.push(step);
    }
    Ok((transformer, head))
}

/// Reads the configuration of a pooling module, and whether the prompt's tokens count.
fn pooling(text: &[u8]) -> Result<(Vec<Pooling>, bool), Error> {
    const MODES: [(&str, &str, Pooling); 6] = [
        ("cls", "pooling_mode_cls_token", Pooling::Cls),
        ("max", "pooling_mode_max_tokens", Pooling::Max),
        ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
        ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
    ];
    let config: Map<String, Value> = serde_json::from_slice(text)?;
    let include_prompt = config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
    let supported = || MODES.map(|mode| mode.0).join(", ");
    let unknown = |found: &str| {
        let problem = format!("is \"{found}\", which is not supported (supported: {})", supported());
        Error::setting("pooling_mode", problem)
    };
    let by_name = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        let mode =
            MODES.iter().find(|mode| mode.0 == name || mode.1.strip_prefix("pooling_mode_") == Some(name));
        mode.map(|mode| mode.2).ok_or_else(|| unknown(name))
    };
    let modes = match config.get("pooling_mode") {
        Some(Value::Array(names)) if !names.is_empty() => {
            names.iter().map(by_name).collect::<Result<_, _>>()?
        }
        Some(name) => vec![by_name(name)?],
        // Older releases have a flag for each.
        None => {
            let set = |key: &str| config.get(key) == Some(&Value::Bool(true));
            let mut flags = config.keys().filter(|key| key.starts_with("pooling_mode_"));
            if let Some(key) = flags.find(|key| set(key) && MODES.iter().all(|m| m.1 != **key)) {
                return Err(unknown(key));
            }
            let modes: Vec<_> = MODES.iter().filter(|mode| set(mode.1)).map(|mode| mode.2).collect();
            if modes.is_empty() { vec![Pooling::Mean] } else { modes }
        }
    };
    Ok((modes, include_prompt))
}

/// Reads a dense module for vectors of `inputs` values.
fn dense(files: Files<'_>, folder: &Path, inputs: usize) -> Result<Projection, Error> {
    let path = folder.join("config.json");
    let (config, activation) = files.read(&path, |text| {
        let config: DenseConfig = serde_json::from_slice(text)?;
        for name in [Some(&config.module_input_name), config.module_output_name.as_ref()] {
            if let Some(name) = name.filter(|name| *name != SENTENCE) {
                let problem = format!("\"{name}\" is not supported (supported: {SENTENCE})");
                return Err(Error::setting("a dense module's input or output", problem));
            }
        }
        if config.in_features != inputs || config.out_features == 0 {
            let problem = format!(
                "{} in, {} out, but the module before it gives {inputs}",
                config.in_features, config.out_features
            );
            return Err(Error::setting("a dense module's features", problem));
        }
        let activation = activation(config.activation_function.as_deref())?;
        Ok((config, activation))
    })?;
    let outputs = config.out_features;
    tensors(files, folder, |values| {
        let residual = match config.use_residual {
            false => Residual::None,
            true if inputs == outputs => Residual::Input,
            true => Residual::Matrix(values("residual.weight", &[outputs, inputs])?),
        };
        Ok(Projection {
            inputs,
            weight: values("linear.weight", &[outputs, inputs])?,
            bias: config.bias.then(|| values("linear.bias", &[outputs])).transpose()?,
            activation,
            residual,
        })
    })
}

/// Reads the norm of a vector of `width` values.
fn layer_norm(files: Files<'_>, folder: &Path, width: usize) -> Result<Step, Error> {
    tensors(files, folder, |values| {
        Ok(Step::LayerNorm { weight: values("norm.weight", &[width])?, bias: values("norm.bias", &[width])? })
    })
}

/// Gives `make` a function that reads a tensor of a module's file.
fn tensors<T>(
    files: Files<'_>,
    folder: &Path,
    make: impl FnOnce(&dyn Fn(&str, &[usize]) -> Result<Vec<f32>, Error>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (file, path) = Safetensors::open_folder(files, folder)?;
    make(&|name, dims| file.values(name, dims)).map_err(|e| in_file(&path, e))
}

/// The function of that name in PyTorch.
fn activation(name: Option<&str>) -> Result<Option<Activation>, Error> {
    Ok(match name {
        None => Some(Activation::Tanh),
        // The library runs no code of others unless asked, and takes its default instead.
        Some(name) if !name.starts_with("torch.") => {
            tracing::warn!(
                "activation function \"{name}\" is not PyTorch's: tanh is used, as sentence-transformers does"
            );
            Some(Activation::Tanh)
        }
        Some(name) => match name.rsplit('.').next().unwrap_or_default() {
            "Identity" => None,
            "Tanh" => Some(Activation::Tanh),
            "ReLU" => Some(Activation::Relu),
            "GELU" => Some(Activation::Gelu),
            "SiLU" => Some(Activation::Silu),
            "Sigmoid" => Some(Activation::Sigmoid),
            other => {
                let problem = format!(
                    "\"{other}\" is not supported (supported: Identity, Tanh, ReLU, GELU, SiLU, Sigmoid)"
                );
                return Err(Error::setting("activation_function", problem));
            }
        },
    })
}
