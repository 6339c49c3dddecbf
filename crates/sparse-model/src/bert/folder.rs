//! The folder of a model as the sentence-transformers library writes it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{Tokenizer, TruncationDirection};

use super::files::{Files, in_file};
use super::head::Head;
use super::prompt::Prompts;
use super::safetensors::Safetensors;
use super::tokenizer_config::TokenizerFiles;
use super::{BertConfig, modules};
use crate::Error;

/// What a folder says about its model; the large files are only opened.
pub(super) struct Folder<'a> {
    pub(super) config: BertConfig,
    pub(super) tokenizer: Tokenizer,
    pub(super) truncation: TruncationDirection,
    pub(super) tensors: Safetensors<'a>,
    /// The file of the tensors, or the index of several.
    pub(super) tensors_path: PathBuf,
    pub(super) head: Head,
    pub(super) prompts: Prompts,
    pub(super) max_tokens: usize,
    /// Whether texts are made lower case first.
    pub(super) lowercase: bool,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

/// Names of that file in old folders.
const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

impl<'a> Folder<'a> {
    /// Reads the folder at `path` of `files`.
    pub(super) fn open(files: Files<'a>, path: &Path) -> Result<Self, Error> {
        let mut config = None;
        let (folder, head) = modules::open(files, path, |transformer| {
            let file = transformer.join("config.json");
            let read: (BertConfig, Map<String, Value>) = files
                .read(&file, |text| Ok((BertConfig::from_json(text)?, serde_json::from_slice(text)?)))?;
            Ok(config.insert(read).0.embedding)
        })?;
        let (config, model) = config.expect("the width of the transformer was asked for");
        // The library reads its own settings in its own folders only.
        let has_modules = files.exist(&path.join("modules.json"));
        let sentence = SENTENCE_CONFIGS.iter().filter(|_| has_modules);
        let mut sentence =
            sentence.map(|name| files.optional(&folder.join(name))).filter_map(Result::transpose);
        let sentence: SentenceConfig = sentence.next().transpose()?.unwrap_or_default();
        let of_tokenizer = |name: &str| files.optional(&folder.join(name)).map(Option::unwrap_or_default);
        let tokenizer_path = folder.join("tokenizer.json");
        let tokenizer = TokenizerFiles {
            tokenizer: files.read(&tokenizer_path, |text| Ok(serde_json::from_slice(text)?))?,
            settings: of_tokenizer("tokenizer_config.json")?,
            special_tokens: of_tokenizer("special_tokens_map.json")?,
            model,
        };
        let limit = sentence.max_seq_length.or(tokenizer.limit()).unwrap_or(usize::MAX);
        let truncation = tokenizer.truncation();
        let (tensors, tensors_path) = Safetensors::open_folder(files, &folder)?;
        let prompts_path = path.join("config_sentence_transformers.json");
        let prompts = if has_modules { files.optional(&prompts_path)? } else { None };
        let prompts: Prompts = prompts.unwrap_or_default();
        prompts.text(&super::Prompt::Default).map_err(|e| in_file(&prompts_path, e))?;
        let tokenizer = tokenizer.build(config.vocabulary).map_err(|e| in_file(&tokenizer_path, e))?;
        Ok(Self {
            max_tokens: limit.min(config.positions),
            config,
            tokenizer,
            truncation,
            tensors,
            tensors_path,
            head,
            prompts,
            lowercase: sentence.do_lower_case,
        })
    }
}
