//! Options as JavaScript writes them.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{EncoderOptions, GenerateOptions, HeadMode, Overflow, Pooling, SamplerConfig};

use crate::error::Error;

/// Reads options; an unknown name is an error.
pub(crate) fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|e| Error::option(format!("the options: {e}")))
}

/// `TextModelOptions` of `index.d.ts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct TextOptions {
    /// Tokens that a prompt and its continuation may have.
    pub(crate) context: Option<usize>,
    /// Compute all neurons, in the way that is fastest for that.
    pub(crate) dense: bool,
    /// Name of an activation, if it is not for the file to say.
    pub(crate) activation: Option<String>,
    /// `auto`, `dense` or `screened`.
    pub(crate) head: Option<String>,
}

impl TextOptions {
    pub(crate) fn head(&self) -> Result<HeadMode, Error> {
        match &self.head {
            None => Ok(HeadMode::Dense),
            Some(name) => name.parse().map_err(|e| Error::option(format!("head: {e}"))),
        }
    }
}

/// `GenerateOptions` of `index.d.ts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Generate {
    max_tokens: usize,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    seed: u64,
    stop: Vec<String>,
    ignore_end: bool,
    /// Forget the older half of the text when the context is full, instead of ending.
    shift: bool,
    /// Keep what the last call computed of the same beginning.
    pub(crate) reuse: bool,
    /// Parts that the neurons of a layer are reported in; 0 is none.
    pub(crate) firing: usize,
}

impl Default for Generate {
    fn default() -> Self {
        let (options, sampler) = (GenerateOptions::default(), SamplerConfig::default());
        Self {
            max_tokens: options.max_tokens,
            temperature: sampler.temperature,
            top_k: sampler.top_k,
            top_p: sampler.top_p,
            min_p: sampler.min_p,
            repetition_penalty: sampler.repetition_penalty,
            frequency_penalty: sampler.frequency_penalty,
            presence_penalty: sampler.presence_penalty,
            seed: sampler.seed,
            stop: Vec::new(),
            ignore_end: false,
            shift: false,
            reuse: false,
            firing: 0,
        }
    }
}

impl Generate {
    pub(crate) fn options(&self) -> GenerateOptions {
        let sampler = SamplerConfig {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
            ..SamplerConfig::default()
        };
        let mut options = GenerateOptions::new(self.max_tokens)
            .sampler(sampler)
            .ignore_end(self.ignore_end)
            .stop(self.stop.iter().cloned());
        if self.shift {
            options.overflow = Overflow::Shift { keep: 0 };
        }
        // Several tokens at once have no active set of their own.
        options.lookup = self.firing == 0;
        options
    }
}

/// `EmbeddingModelOptions` of `index.d.ts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct EmbeddingOptions {
    /// `int8` or `f32`.
    format: Option<String>,
    max_tokens: Option<usize>,
    normalize: Option<bool>,
    pooling: Option<String>,
}

impl EmbeddingOptions {
    pub(crate) fn options(&self) -> Result<EncoderOptions, Error> {
        let mut options = EncoderOptions::default();
        (options.max_tokens, options.normalize) = (self.max_tokens, self.normalize);
        if let Some(format) = &self.format {
            options.format = format.parse()?;
        }
        options.pooling = match self.pooling.as_deref() {
            None => None,
            Some("mean") => Some(Pooling::Mean),
            Some("cls") => Some(Pooling::Cls),
            Some("last") => Some(Pooling::LastToken),
            Some(other) => {
                return Err(Error::option(format!("pooling: expected mean, cls or last, found {other}")));
            }
        };
        Ok(options)
    }
}

/// How `tokenize` treats the names of control tokens.
pub(crate) fn encode_options(parse_special: bool) -> EncodeOptions {
    EncodeOptions { parse_special, ..EncodeOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_names_that_are_wrong_are_refused() {
        let generate: Generate =
            parse(r#"{"maxTokens": 5, "topK": 1, "stop": ["\n"], "firing": 8}"#).unwrap();
        let options = generate.options();
        assert_eq!((options.max_tokens, options.sampler.top_k, options.lookup), (5, 1, false));
        assert_eq!((options.stop.as_slice(), options.sampler.temperature), (&["\n".to_owned()][..], 0.8));
        let error = parse::<Generate>(r#"{"maxtokens": 5}"#).unwrap_err();
        assert!(error.code == "option" && error.message.contains("maxtokens"), "{error:?}");
        assert!(parse::<Generate>(r#"{"maxTokens": -1}"#).is_err());
        assert!(parse::<TextOptions>(r#"{"head": "none"}"#).unwrap().head().is_err());
        assert!(parse::<EmbeddingOptions>(r#"{"format": "int9"}"#).unwrap().options().is_err());
        assert!(parse::<EmbeddingOptions>(r#"{"pooling": "sum"}"#).unwrap().options().is_err());
        assert_eq!(parse::<EmbeddingOptions>(r#"{"format": "f32"}"#).unwrap().options().unwrap().threads, 1);
    }
}
