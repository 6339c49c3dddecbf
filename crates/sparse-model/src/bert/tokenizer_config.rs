//! The tokenizer of a model folder, as the transformers library builds it (release 5): `tokenizer_config.json` and
//! `special_tokens_map.json` override `tokenizer.json`.

use serde_json::{Map, Value, json};
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer, TruncationDirection};

use super::text;
use crate::Error;

/// The parts of a model folder that describe its tokenizer.
pub(super) struct TokenizerFiles {
    /// `tokenizer.json`.
    pub(super) tokenizer: Value,
    /// `tokenizer_config.json`; empty if there is none.
    pub(super) settings: Map<String, Value>,
    /// `special_tokens_map.json`, which older releases wrote; empty if there is none.
    pub(super) special_tokens: Map<String, Value>,
    /// `tokenizer_class` and `model_type` of `config.json`.
    pub(super) model: Map<String, Value>,
}

/// Classes of the transformers library that build their tokenizer anew from the vocabulary of `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Bert,
    MpNet,
    XlmRoberta,
    Roberta,
    /// All others take `tokenizer.json` as it is.
    Generic,
}

impl Class {
    fn of(files: &TokenizerFiles) -> Self {
        let text = |map: &Map<String, Value>, key: &str| map.get(key)?.as_str().map(str::to_owned);
        let name = text(&files.settings, "tokenizer_class").or_else(|| text(&files.model, "tokenizer_class"));
        let class = match name {
            Some(name) => match name.strip_suffix("Fast").unwrap_or(&name) {
                "BertTokenizer"
                | "DistilBertTokenizer"
                | "ElectraTokenizer"
                | "ConvBertTokenizer"
                | "MobileBertTokenizer"
                | "RetriBertTokenizer" => Self::Bert,
                "MPNetTokenizer" => Self::MpNet,
                "XLMRobertaTokenizer" => Self::XlmRoberta,
                "RobertaTokenizer" => Self::Roberta,
                _ => Self::Generic,
            },
            None => match text(&files.model, "model_type").as_deref() {
                Some("bert" | "distilbert" | "electra" | "nomic_bert") => Self::Bert,
                Some("mpnet") => Self::MpNet,
                Some("xlm-roberta") => Self::XlmRoberta,
                Some("roberta") => Self::Roberta,
                _ => Self::Generic,
            },
        };
        // Some folders name a class that does not fit their file; release 4 of the library ignored that.
        match files.tokenizer["model"].get("type").and_then(Value::as_str) {
            Some(kind) if class.model().is_some_and(|expected| expected != kind) => {
                tracing::warn!("the tokenizer's class is for {:?}, but its model is {kind}", class);
                Self::Generic
            }
            _ => class,
        }
    }

    /// The model in `tokenizer.json` that the class is for.
    fn model(self) -> Option<&'static str> {
        match self {
            Self::Bert | Self::MpNet => Some("WordPiece"),
            Self::XlmRoberta => Some("Unigram"),
            Self::Roberta => Some("BPE"),
            Self::Generic => None,
        }
    }

    /// Special tokens of which nothing else is said.
    fn special_tokens(self) -> &'static [(&'static str, &'static str)] {
        const ROBERTA: [(&str, &str); 7] = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ];
        const MPNET: [(&str, &str); 7] = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "[UNK]"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ];
        const BERT: [(&str, &str); 5] = [
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ];
        match self {
            Self::Bert => &BERT,
            Self::MpNet => &MPNET,
            Self::XlmRoberta | Self::Roberta => &ROBERTA,
            Self::Generic => &[],
        }
    }
}

/// Special tokens that have a meaning of their own.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl TokenizerFiles {
    /// Builds the tokenizer of a model with embeddings for `rows` tokens.
    ///
    /// # Errors
    /// If `tokenizer.json` is none, or a setting makes no sense.
    pub(super) fn build(mut self, rows: usize) -> Result<Tokenizer, Error> {
        let class = Class::of(&self);
        let added = self.added_tokens()?;
        let settings = self.merged_settings(class);
        let named = |key: &str| settings.get(key).and_then(content);
        if class != Class::Generic {
            self.rebuild(class, &settings, named("unk_token").unwrap_or_default());
        }
        let mut tokenizer = text::from_json(self.tokenizer.to_string().as_bytes())?;
        add_tokens(&mut tokenizer, rows, added, &settings)?;
        let (first, last) = match class {
            Class::Generic => return Ok(tokenizer),
            Class::XlmRoberta => ("bos_token", "eos_token"),
            _ => ("cls_token", "sep_token"),
        };
        let place = |key: &str| {
            let token = named(key).unwrap_or_default();
            let id = tokenizer.token_to_id(token).ok_or_else(|| {
                Error::setting(key.to_owned(), format!("\"{token}\" is not in the tokenizer's vocabulary"))
            })?;
            Ok::<_, Error>((token.to_owned(), id))
        };
        let around = BertProcessing::new(place(last)?, place(first)?);
        tokenizer.with_post_processor(Some(around));
        Ok(tokenizer)
    }

    /// Tokens that texts longer than the model's limit may have, if the tokenizer says.
    pub(super) fn limit(&self) -> Option<usize> {
        let limit = self.settings.get("model_max_length").or_else(|| self.settings.get("max_len"))?;
        // Tokenizers without a limit state an astronomic one.
        limit.as_f64().map(|n| n as usize)
    }

    /// The side that long texts are cut from.
    pub(super) fn truncation(&self) -> TruncationDirection {
        let of_file = || self.tokenizer["truncation"].get("direction");
        let side = self.settings.get("truncation_side").or_else(of_file).and_then(Value::as_str);
        match side {
            Some("left" | "Left") => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        }
    }

    /// Added tokens: those of the settings, or else of `tokenizer.json`.
    fn added_tokens(&self) -> Result<Vec<AddedToken>, Error> {
        let parse = |token: &Value| Ok::<_, Error>(serde_json::from_value::<Added>(token.clone())?.into());
        if let Some(Value::Object(tokens)) = self.settings.get("added_tokens_decoder") {
            let mut tokens: Vec<(u32, &Value)> = tokens
                .iter()
                .map(|(id, token)| id.parse().map(|id| (id, token)))
                .collect::<Result<_, _>>()
                .map_err(|e| Error::setting("added_tokens_decoder", format!("an id is no number: {e}")))?;
            tokens.sort_by_key(|(id, _)| *id);
            return tokens.into_iter().map(|(_, token)| parse(token)).collect();
        }
        let tokens = self.tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        tokens.iter().map(parse).collect()
    }

    /// The settings, with the special tokens of a separate file and the class's own.
    fn merged_settings(&mut self, class: Class) -> Map<String, Value> {
        let mut settings = std::mem::take(&mut self.settings);
        if !settings.contains_key("added_tokens_decoder") {
            settings.append(&mut self.special_tokens);
        }
        for (key, token) in class.special_tokens() {
            if settings.get(*key).is_none_or(Value::is_null) {
                settings.insert((*key).to_owned(), json!(token));
            }
        }
        settings
    }

    /// Puts what the class makes of `settings` in place of what `tokenizer.json` says.
    fn rebuild(&mut self, class: Class, settings: &Map<String, Value>, unknown: &str) {
        let flag = |key: &str, default| settings.get(key).and_then(Value::as_bool).unwrap_or(default);
        let parts = match class {
            Class::Bert | Class::MpNet => json!({
                "normalizer": {
                    "type": "BertNormalizer",
                    "clean_text": true,
                    "handle_chinese_chars": flag("tokenize_chinese_chars", true),
                    "strip_accents": settings.get("strip_accents").and_then(Value::as_bool),
                    "lowercase": flag("do_lower_case", true),
                },
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "model": {
                    "type": "WordPiece",
                    "unk_token": unknown,
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                },
            }),
            Class::XlmRoberta => {
                let scheme = if flag("add_prefix_space", true) { "always" } else { "never" };
                json!({
                    "normalizer": precompiled(&self.tokenizer["normalizer"]),
                    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                        {"type": "WhitespaceSplit"},
                        {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true},
                    ]},
                    "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": false},
                })
            }
            Class::Roberta => json!({
                "normalizer": null,
                "pre_tokenizer": {
                    "type": "ByteLevel", "add_prefix_space": flag("add_prefix_space", false),
                    "trim_offsets": true, "use_regex": true,
                },
                "model": {
                    "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                    "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                },
            }),
            Class::Generic => return,
        };
        let Value::Object(file) = &mut self.tokenizer else { return };
        file.insert("added_tokens".into(), json!([]));
        let Value::Object(parts) = parts else { return };
        for (key, mut part) in parts {
            if let (Some(Value::Object(old)), Value::Object(new), "model") =
                (file.get_mut(&key), &mut part, key.as_str())
            {
                for data in ["vocab", "merges"] {
                    new.extend(old.remove_entry(data));
                }
            }
            file.insert(key, part);
        }
    }
}

/// The first table of characters among the normalizers of a file.
fn precompiled(normalizer: &Value) -> Value {
    let all = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    all.iter().find(|n| n["type"] == "Precompiled").cloned().unwrap_or(Value::Null)
}

/// An added token as files store it.
#[derive(serde::Deserialize)]
#[serde(default)]
struct Added {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl Default for Added {
    fn default() -> Self {
        Self {
            content: String::new(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: false,
        }
    }
}

impl From<Added> for AddedToken {
    fn from(token: Added) -> Self {
        Self::from(token.content, token.special)
            .single_word(token.single_word)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .normalized(token.normalized)
    }
}

/// The text of a token: a string, or an object with one.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Adds `added`, and the special tokens that the settings name: of these only such as have an embedding.
fn add_tokens(
    tokenizer: &mut Tokenizer,
    rows: usize,
    added: Vec<AddedToken>,
    settings: &Map<String, Value>,
) -> Result<(), Error> {
    let fault = |e: tokenizers::Error| Error::TokenizerFile(e.to_string());
    let split = settings.get("split_special_tokens").and_then(Value::as_bool).unwrap_or(false);
    tokenizer.set_encode_special_tokens(split);
    let named: Vec<&Value> = NAMED.iter().filter_map(|key| settings.get(*key)).collect();
    let is_named = |text: &str| named.iter().any(|token| content(token) == Some(text));
    let mut seen = Vec::new();
    let tokens = added.into_iter().map(|mut token| {
        token.special |= is_named(&token.content);
        seen.push(token.content.clone());
        token
    });
    tokenizer.add_tokens(tokens).map_err(fault)?;
    let lists = ["additional_special_tokens", "extra_special_tokens"].map(|key| settings.get(key));
    let more = lists.into_iter().flatten().flat_map(|list| match list {
        Value::Array(tokens) => tokens.iter().collect::<Vec<_>>(),
        Value::Object(tokens) => tokens.values().collect(),
        _ => Vec::new(),
    });
    let own = settings.iter().filter(|(key, value)| {
        key.ends_with("_token") && !NAMED.contains(&key.as_str()) && content(value).is_some()
    });
    for token in named.iter().copied().chain(more).chain(own.map(|(_, value)| value)) {
        let Some(text) = content(token).filter(|text| !text.is_empty()) else { continue };
        let without_row = tokenizer.token_to_id(text).is_none() && tokenizer.get_vocab_size(true) >= rows;
        if without_row || seen.iter().any(|known| known == text) {
            continue;
        }
        seen.push(text.to_owned());
        let token = match token {
            Value::Object(_) => {
                let token: AddedToken = serde_json::from_value::<Added>(token.clone())?.into();
                token.special(true)
            }
            _ => AddedToken::from(text, true),
        };
        tokenizer.add_tokens([token]).map_err(fault)?;
    }
    Ok(())
}
