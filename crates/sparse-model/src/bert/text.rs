//! From text to token ids.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use sparse_gguf::Metadata;
use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, Tokenizer, TruncationDirection, TruncationParams,
    TruncationStrategy,
};

use crate::Error;
use crate::tokenizer::{TokenizerError, known_id};

/// Bytes of text per token that are tried first of a long text.
const BYTES_PER_TOKEN: usize = 8;

/// A tokenizer that cuts texts down to what the model takes.
#[derive(Debug)]
pub(super) struct TextTokens {
    tokenizer: Tokenizer,
    limit: usize,
    /// Whether the tokens before a space do not depend on what is behind it.
    separable: bool,
}

impl TextTokens {
    /// A tokenizer for a model with embeddings for `rows` tokens, cutting texts down to `limit` tokens from the side that
    /// `direction` says.
    pub(super) fn new(
        mut tokenizer: Tokenizer,
        rows: usize,
        limit: usize,
        direction: TruncationDirection,
    ) -> Result<Self, Error> {
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if highest as usize >= rows {
            return Err(Error::Vocabulary { highest, rows });
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(fault)?;
        let added = tokenizer.encode_fast("", true).map_err(fault)?.len();
        if limit <= added {
            let problem = format!("{limit} leaves no room for text: the tokenizer adds {added} to each");
            return Err(Error::setting("the number of tokens that texts are cut down to", problem));
        }
        let truncation = TruncationParams {
            max_length: limit,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction,
        };
        tokenizer.with_truncation(Some(truncation)).map_err(fault)?;
        let separable = direction == TruncationDirection::Right
            && tokenizer.get_normalizer().is_none_or(is_local)
            && tokenizer.get_pre_tokenizer().is_some_and(splits_at_spaces);
        Ok(Self { tokenizer, limit, separable })
    }

    /// Tokens that texts are cut down to.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Everything that ids depend on, as JSON.
    pub(super) fn to_json(&self) -> Result<String, Error> {
        self.tokenizer.to_string(false).map_err(fault)
    }

    /// Tokens of a prompt, with those that the tokenizer puts before it; one that it puts behind is not counted.
    pub(super) fn prompt_tokens(&self, prompt: &str) -> Result<usize, Error> {
        let ids = self.encode(prompt, "")?;
        let added = self.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let special = |id: &u32| added.get(id).is_some_and(|token| token.special);
        Ok(ids.len() - usize::from(ids.last().is_some_and(special)))
    }

    /// The ids of `prompt` and `text`, with the tokens that the model wants around them.
    ///
    /// Of a text that is far too long only the beginning is looked at.
    pub(super) fn encode(&self, prompt: &str, text: &str) -> Result<Vec<u32>, Error> {
        let text =
            if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) };
        let text: &str = &text;
        let mut len = self.limit * BYTES_PER_TOKEN;
        loop {
            let part = if self.separable { beginning(text, len) } else { text };
            let ids = self.tokenizer.encode_fast(part, true).map_err(fault)?;
            if part.len() == text.len() || ids.len() >= self.limit {
                return Ok(ids.get_ids().to_vec());
            }
            len *= 2;
        }
    }
}

/// Whether what a normalizer makes of a text before a space does not depend on what is behind it.
fn is_local(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::BertNormalizer(_) | NormalizerWrapper::Lowercase(_) => true,
        NormalizerWrapper::Sequence(all) => all.as_ref().iter().all(is_local),
        _ => false,
    }
}

/// Whether a pre-tokenizer splits at every space.
fn splits_at_spaces(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::BertPreTokenizer(_) | PreTokenizerWrapper::WhitespaceSplit(_) => true,
        PreTokenizerWrapper::Sequence(all) => all.as_ref().first().is_some_and(splits_at_spaces),
        _ => false,
    }
}

/// Has texts made lower case first, as sentence-transformers does if a folder asks for it beside the tokenizer: not if the
/// tokenizer has a step for that already. One that lowercases among other things is no such step.
pub(super) fn lowercase_first(tokenizer: &mut Tokenizer) -> Result<(), Error> {
    let mut steps = match tokenizer.get_normalizer() {
        None => Vec::new(),
        Some(NormalizerWrapper::Sequence(all)) => all.as_ref().to_vec(),
        Some(one) => vec![one.clone()],
    };
    if !steps.iter().any(|step| matches!(step, NormalizerWrapper::Lowercase(_))) {
        steps.insert(0, Lowercase.into());
        tokenizer.with_normalizer(Some(Sequence::new(steps))).map_err(fault)?;
    }
    Ok(())
}

/// The text up to the first space that has `len` bytes before it.
fn beginning(text: &str, len: usize) -> &str {
    // Not all white space separates words: of the control characters, BERT's tokenizer drops all but these.
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let rest = text.as_bytes().get(len..).unwrap_or_default();
    match rest.iter().position(space) {
        Some(i) => &text[..len + i],
        None => text,
    }
}

fn fault(error: tokenizers::Error) -> Error {
    Error::TokenizerFile(error.to_string())
}

/// The tokenizer in the text of a `tokenizer.json`.
pub(super) fn from_json(text: &[u8]) -> Result<Tokenizer, Error> {
    Tokenizer::from_bytes(text).map_err(fault)
}

/// The word-piece tokenizer of a GGUF file.
///
/// llama.cpp writes a piece that begins a word with U+2581 before it, one that continues a word as it is, without its `##`,
/// and control tokens as they are; files from before 2025 write unused ones as they are, too. Texts are cut into words and
/// pieces as BERT does, and the names of control tokens in a text are those tokens, as in the transformers library.
pub(super) fn from_metadata(meta: &Metadata) -> Result<Tokenizer, Error> {
    const CONTROL: i32 = 3;
    let model = meta.string("tokenizer.ggml.model")?;
    if model != "bert" {
        return Err(TokenizerError::Model { found: model.to_owned(), supported: "bert" }.into());
    }
    let tokens = meta.strings("tokenizer.ggml.tokens")?;
    let types = meta.opt_i32s("tokenizer.ggml.token_type")?;
    if let Some(types) = types.as_deref().filter(|types| types.len() != tokens.len()) {
        let (key, found) = ("tokenizer.ggml.token_type", types.len());
        return Err(TokenizerError::Length { key, found, tokens: tokens.len() }.into());
    }
    let is_control = |id: usize| types.as_deref().is_some_and(|types| types[id] == CONTROL);
    let piece = |id: usize| {
        let text = &tokens[id];
        let name = text.len() > 2 && text.starts_with('[') && text.ends_with(']');
        match text.strip_prefix('\u{2581}').filter(|rest| !rest.is_empty()) {
            _ if is_control(id) || name => text.clone(),
            Some(word) => word.to_owned(),
            None => format!("##{text}"),
        }
    };
    let mut vocabulary = Map::new();
    for id in 0..tokens.len() {
        if let Some(Value::Number(first)) = vocabulary.insert(piece(id), id.into()) {
            let first = first.as_u64().unwrap_or_default() as u32;
            return Err(TokenizerError::Duplicate { text: piece(id), first, second: id as u32 }.into());
        }
    }
    let special = |key: &'static str, other: &'static str, default: u32| {
        let known = |key: &str| known_id(meta, key, tokens.len());
        let id = known(key)?.or(known(other)?).unwrap_or(default);
        match (id as usize) < tokens.len() {
            true => Ok((id, piece(id as usize))),
            false => Err(Error::from(TokenizerError::SpecialId { key, id, tokens: tokens.len() })),
        }
    };
    // llama.cpp's defaults: BERT's own vocabulary.
    let (cls_id, cls) = special("tokenizer.ggml.cls_token_id", "tokenizer.ggml.bos_token_id", 101)?;
    // The misspelt key is the one in use.
    let (sep_id, sep) = special("tokenizer.ggml.seperator_token_id", "tokenizer.ggml.eos_token_id", 102)?;
    let (_, unknown) = special("tokenizer.ggml.unknown_token_id", "tokenizer.ggml.unk_token_id", 100)?;
    let controls = (0..tokens.len()).filter(|&id| is_control(id)).map(|id| {
        json!({
            "id": id, "content": tokens[id], "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": controls.collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": meta.opt_bool("tokenizer.ggml.normalizer.strip_accents")?,
            "lowercase": meta.opt_bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id]},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    });
    from_json(tokenizer.to_string().as_bytes())
}
