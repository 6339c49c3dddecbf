//! Texts that are put before others, to tell an encoder what they are for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::text::TextTokens;
use super::{EmbedStream, Encoder};
use crate::Error;

/// What stands before a text when it is embedded.
///
/// Models that were trained with prompts name them in `config_sentence_transformers.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prompt {
    /// The model's default prompt; nothing if it has none.
    #[default]
    Default,
    /// Nothing.
    None,
    /// The model's prompt `query`, for what is searched for; nothing if it has none.
    Query,
    /// The model's prompt `document`, `passage` or `corpus`, for what is searched in: the first that it has; nothing if it
    /// has none.
    Document,
    /// The model's prompt of that name.
    Named(String),
    /// This text.
    Text(String),
}

/// The prompts of a model: `config_sentence_transformers.json`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Prompts {
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

impl Prompts {
    /// The text of a prompt.
    pub(super) fn text<'a>(&'a self, prompt: &'a Prompt) -> Result<&'a str, Error> {
        let get = |name: &str| self.prompts.get(name).map(|text| text.as_deref().unwrap_or_default());
        Ok(match prompt {
            Prompt::Default => match &self.default_prompt_name {
                Some(name) => self.named(name)?,
                None => "",
            },
            Prompt::None => "",
            Prompt::Query => get("query").unwrap_or_default(),
            Prompt::Document => {
                ["document", "passage", "corpus"].into_iter().find_map(get).unwrap_or_default()
            }
            Prompt::Named(name) => self.named(name)?,
            Prompt::Text(text) => text,
        })
    }

    fn named(&self, name: &str) -> Result<&str, Error> {
        match self.prompts.get(name) {
            Some(text) => Ok(text.as_deref().unwrap_or_default()),
            // Every model has these two, if only empty ones.
            None if matches!(name, "query" | "document") => Ok(""),
            None => {
                let names: Vec<&str> = self.names().collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(Error::setting(
                    "prompt",
                    format!("the model has none named \"{name}\" (it has: {known})"),
                ))
            }
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.prompts.keys().map(String::as_str)
    }
}

/// A prompt, ready to be used.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    pub(super) text: Arc<str>,
    /// Tokens of it, with those that the tokenizer puts before it.
    pub(super) tokens: usize,
}

impl Prefix {
    pub(super) fn new(text: &str, tokenizer: &TextTokens) -> Result<Self, Error> {
        let tokens = if text.is_empty() { 0 } else { tokenizer.prompt_tokens(text)? };
        Ok(Self { text: text.into(), tokens })
    }
}

/// An encoder that puts a prompt before every text: what [`Encoder::prompted`] returns.
#[derive(Clone, Debug)]
pub struct Prompted<'a> {
    encoder: &'a Encoder,
    prefix: Prefix,
}

impl<'a> Prompted<'a> {
    pub(super) fn new(encoder: &'a Encoder, prefix: Prefix) -> Self {
        Self { encoder, prefix }
    }

    /// The prompt's text.
    pub fn text(&self) -> &str {
        &self.prefix.text
    }

    /// The encoder itself.
    pub fn encoder(&self) -> &'a Encoder {
        self.encoder
    }

    /// Values of an embedding.
    pub fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    /// The ids of the prompt and `text`, cut down to [`Encoder::max_tokens`].
    ///
    /// # Errors
    /// If the tokenizer fails, which those of BERT models do not.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encoder.text().encode(&self.prefix.text, text)
    }

    /// As [`Encoder::embed`].
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        let mut embeddings = self.encoder.window(&self.prefix, &[text])?;
        Ok(embeddings.pop().expect("an embedding per text"))
    }

    /// As [`Encoder::embed_batch`].
    ///
    /// # Errors
    /// As [`Encoder::embed`], if any text's fails.
    pub fn embed_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_stream(texts).collect()
    }

    /// As [`Encoder::embed_stream`].
    pub fn embed_stream<I>(&self, texts: I) -> EmbedStream<'a, I::IntoIter>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        EmbedStream::new(self.encoder, self.prefix.clone(), texts.into_iter())
    }
}
