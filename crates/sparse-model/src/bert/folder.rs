//! The folder of a model as the sentence-transformers library writes it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use super::safetensors::Safetensors;
use super::{BertConfig, Pooling, text};
use crate::Error;

/// What a folder says about its model; the large files are only opened.
pub(super) struct Folder {
    pub(super) config: BertConfig,
    pub(super) tokenizer: Tokenizer,
    pub(super) tensors: Safetensors,
    pub(super) tensors_path: PathBuf,
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
    pub(super) max_tokens: usize,
    pub(super) lowercase: bool,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

impl Folder {
    /// Reads the folder at `path`. One without `modules.json` is a plain transformer: the mean of its tokens' vectors is the
    /// embedding, as the sentence-transformers library has it, and is not scaled.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let modules = match optional::<Vec<Module>>(&path.join("modules.json"))? {
            Some(modules) => Modules::new(path, modules)?,
            None => Modules { transformer: path.to_owned(), pooling: Pooling::Mean, normalize: false },
        };
        let folder = &modules.transformer;
        let config = folder.join("config.json");
        let config = read(&config, BertConfig::from_json)?;
        let sentence: SentenceConfig =
            optional(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
        // Tokenizers without a limit state an astronomic one.
        let settings: Map<String, Value> =
            optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let of_tokenizer = settings.get("model_max_length").and_then(Value::as_u64);
        let of_tokenizer = of_tokenizer.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let max_tokens = sentence.max_seq_length.unwrap_or(of_tokenizer).min(config.positions);
        let tokenizer = read(&folder.join("tokenizer.json"), text::from_json)?;
        let tensors_path = folder.join("model.safetensors");
        let tensors = Safetensors::open(&tensors_path).map_err(|e| in_file(&tensors_path, e))?;
        Ok(Self {
            config,
            tokenizer,
            tensors,
            tensors_path,
            pooling: modules.pooling,
            normalize: modules.normalize,
            max_tokens,
            lowercase: sentence.do_lower_case,
        })
    }
}

/// What follows on what.
struct Modules {
    transformer: PathBuf,
    pooling: Pooling,
    normalize: bool,
}

impl Modules {
    fn new(folder: &Path, modules: Vec<Module>) -> Result<Self, Error> {
        let path = folder.join("modules.json");
        let wrong = |problem: String| in_file(&path, Error::setting("modules", problem));
        // Releases differ in where the classes live, but not in their names.
        let names: Vec<_> = modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
        let normalize = match names[..] {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            _ => {
                let problem = format!(
                    "are {}, which is not supported (supported: Transformer, Pooling and perhaps Normalize)",
                    names.join(", ")
                );
                return Err(wrong(problem));
            }
        };
        let inside = |module: &Module| {
            let part = Path::new(&module.path);
            match part.components().all(|c| matches!(c, Component::Normal(_))) {
                true => Ok(folder.join(part)),
                false => Err(wrong(format!("lead out of the folder, to \"{}\"", module.path))),
            }
        };
        let pooling = read(&inside(&modules[1])?.join("config.json"), pooling)?;
        Ok(Self { transformer: inside(&modules[0])?, pooling, normalize })
    }
}

/// Reads the configuration of a pooling module: `pooling_mode`, or older releases' flags, of which one is set.
fn pooling(text: &[u8]) -> Result<Pooling, Error> {
    let config: Map<String, Value> = serde_json::from_slice(text)?;
    let mut modes: Vec<&str> = config
        .iter()
        .filter(|(_, value)| value == &&Value::Bool(true))
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
        .collect();
    modes.extend(config.get("pooling_mode").and_then(Value::as_str));
    match modes[..] {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        _ => {
            let problem =
                format!("is \"{}\", which is not supported (supported: mean, cls)", modes.join(", "));
            Err(Error::setting("pooling_mode", problem))
        }
    }
}

/// What `parse` makes of a file.
fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
    fs::read(path).map_err(Error::from).and_then(|text| parse(&text)).map_err(|e| in_file(path, e))
}

/// What a JSON file holds, if it is there.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        _ => read(path, |text| Ok(serde_json::from_slice(text)?)).map(Some),
    }
}

/// The error with the file's name, and with advice if the file is not there.
pub(super) fn in_file(path: &Path, error: Error) -> Error {
    let source = match error {
        Error::Io(e) if e.kind() == io::ErrorKind::NotFound => Error::MissingFile,
        other => other,
    };
    Error::File { path: path.to_owned(), source: Box::new(source) }
}
