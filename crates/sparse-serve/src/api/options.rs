//! The fields that chat and completions share, and what they mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sparse_integration::{GenerateOptions, SamplerConfig};
use sparse_model::grammar::Grammar;

use super::error::ApiError;
use crate::Limits;

/// Fields of a request. Those that are not here are not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub(super) model: Option<String>,
    pub(super) n: Option<usize>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) max_tokens: Option<usize>,
    pub(super) max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    /// Not of OpenAI; as llama.cpp's server has them.
    top_k: Option<usize>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    response_format: Option<ResponseFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What the text has to match.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema {
        json_schema: JsonSchema,
    },
    /// Not of OpenAI.
    Regex {
        regex: String,
    },
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

impl Fields {
    /// The model is this server's, whatever clients call it; but a name of another model's is a mistake worth telling.
    pub(super) fn check_model(&self, name: &str) -> Result<(), ApiError> {
        match self.model.as_deref() {
            None | Some("") | Some("default") => Ok(()),
            Some(model) if model == name => Ok(()),
            Some(other) => {
                Err(ApiError::not_found(format!("there is no model \"{other}\"; this server has \"{name}\"")))
            }
        }
    }

    /// How many answers are wanted.
    pub(super) fn choices(&self, limits: &Limits) -> Result<usize, ApiError> {
        match self.n.unwrap_or(1) {
            n if n == 0 || n > limits.choices => {
                let message = format!("n is {n}, expected a number from 1 to {}", limits.choices);
                Err(ApiError::bad(Some("n"), message))
            }
            n => Ok(n),
        }
    }

    /// What to generate, at most `default` tokens if the request does not say. The answers differ by their seeds: add the
    /// number of each.
    pub(super) fn options(&self, limits: &Limits, default: usize) -> Result<GenerateOptions, ApiError> {
        let range = |param, value: Option<f32>, low: f32, high: f32| match value {
            Some(value) if !(low..=high).contains(&value) => Err(ApiError::bad(
                Some(param),
                format!("{param} is {value}, expected a number from {low} to {high}"),
            )),
            value => Ok(value),
        };
        let d = SamplerConfig::default();
        let sampler = SamplerConfig {
            temperature: range("temperature", self.temperature, 0.0, 2.0)?.unwrap_or(d.temperature),
            top_p: range("top_p", self.top_p, 0.0, 1.0)?.unwrap_or(d.top_p),
            top_k: self.top_k.unwrap_or(d.top_k),
            min_p: range("min_p", self.min_p, 0.0, 1.0)?.unwrap_or(d.min_p),
            repetition_penalty: range("repeat_penalty", self.repeat_penalty, 0.1, 10.0)?
                .unwrap_or(d.repetition_penalty),
            frequency_penalty: range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?.unwrap_or(0.0),
            presence_penalty: range("presence_penalty", self.presence_penalty, -2.0, 2.0)?.unwrap_or(0.0),
            // OpenAI's penalties look at all of the new text.
            penalty_window: usize::MAX,
            logit_bias: self.logit_bias(limits)?,
            seed: self.seed.map_or_else(random, |seed| seed as u64),
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens).unwrap_or(default);
        let mut options = GenerateOptions::new(max_tokens).sampler(sampler).stop(self.stop(limits)?);
        options.penalize_prompt = false;
        options.grammar = self.grammar(limits)?;
        Ok(options)
    }

    fn logit_bias(&self, limits: &Limits) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(biases) = &self.logit_bias else { return Ok(Vec::new()) };
        if biases.len() > limits.biases {
            return Err(ApiError::limit("logit_bias", "tokens", biases.len(), limits.biases));
        }
        let parse = |(id, bias): (&String, &f32)| {
            let id = id.parse().ok().filter(|_| (-100.0..=100.0).contains(bias));
            // OpenAI: -100 is a ban.
            let bias = if *bias <= -100.0 { f32::NEG_INFINITY } else { *bias };
            id.map(|id| (id, bias)).ok_or_else(|| {
                let message = "logit_bias maps token ids to numbers from -100 to 100";
                ApiError::bad(Some("logit_bias"), message)
            })
        };
        biases.iter().map(parse).collect()
    }

    fn stop(&self, limits: &Limits) -> Result<Vec<String>, ApiError> {
        let stops = match &self.stop {
            None => Vec::new(),
            Some(OneOrMany::One(stop)) => vec![stop.clone()],
            Some(OneOrMany::Many(stops)) => stops.clone(),
        };
        let (most, longest) = limits.stops;
        if stops.len() > most {
            return Err(ApiError::limit("stop", "texts", stops.len(), most));
        }
        if let Some(stop) = stops.iter().find(|stop| stop.is_empty() || stop.len() > longest) {
            let message = format!("stop has a text of {} bytes, expected 1 to {longest}", stop.len());
            return Err(ApiError::bad(Some("stop"), message));
        }
        Ok(stops)
    }

    fn grammar(&self, limits: &Limits) -> Result<Option<Grammar>, ApiError> {
        let grammar = match &self.response_format {
            None | Some(ResponseFormat::Text) => return Ok(None),
            Some(ResponseFormat::JsonObject) => return Ok(Some(Grammar::Json)),
            Some(ResponseFormat::JsonSchema { json_schema }) => match &json_schema.schema {
                Some(schema) => schema.to_string(),
                None => return Ok(Some(Grammar::Json)),
            },
            Some(ResponseFormat::Regex { regex }) => regex.clone(),
        };
        if grammar.len() > limits.grammar {
            return Err(ApiError::limit("response_format", "bytes", grammar.len(), limits.grammar));
        }
        Ok(Some(match &self.response_format {
            Some(ResponseFormat::Regex { .. }) => Grammar::Regex(grammar),
            _ => Grammar::JsonSchema(grammar),
        }))
    }
}

/// A number that is another one each time.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's source of randomness: every `RandomState` has new keys.
    RandomState::new().hash_one(0)
}
