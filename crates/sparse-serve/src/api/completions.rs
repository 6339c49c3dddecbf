//! `/v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sparse_model::tokenizer::EncodeOptions;

use super::choices::{Choices, Form, Text, token_text};
use super::error::ApiError;
use super::options::Fields;
use super::{Shared, body};
use crate::Service;

/// Tokens to generate if a request does not say: OpenAI's number.
const DEFAULT_TOKENS: usize = 16;

#[derive(Debug, Deserialize)]
struct Completion {
    prompt: Prompt,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    best_of: Option<usize>,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(flatten)]
    fields: Fields,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

pub(super) async fn answer(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let completion: Completion = body(&service, request).await?;
    let stream = completion.fields.stream.unwrap_or(false);
    let usage = completion.fields.stream_options.as_ref().is_some_and(|o| o.include_usage);
    // Long texts take their time.
    let started = tokio::task::spawn_blocking(move || start(service, completion));
    let choices = started.await.map_err(|_| sparse_integration::Error::Stopped)??;
    choices.respond(stream, usage).await
}

fn start(service: Arc<Service>, completion: Completion) -> Result<Choices, ApiError> {
    let (limits, fields) = (&service.options.limits, &completion.fields);
    fields.check_model(service.backend.name())?;
    if completion.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::bad(Some("suffix"), "suffix is not supported"));
    }
    let n = fields.choices(limits)?;
    if completion.best_of.is_some_and(|best| best > n) {
        return Err(ApiError::bad(Some("best_of"), "best_of above n is not supported"));
    }
    let mut options = fields.options(limits, DEFAULT_TOKENS)?;
    options.logprobs = completion.logprobs;
    if completion.logprobs.is_some_and(|n| n > limits.top_logprobs) {
        let message = format!("logprobs is above {}", limits.top_logprobs);
        return Err(ApiError::bad(Some("logprobs"), message));
    }
    let tokenizer = service.backend.model().tokenizer();
    let encode = |text: &String| {
        let options =
            EncodeOptions { add_bos: true, add_eos: false, parse_special: service.options.parse_special };
        tokenizer.encode(text, options).map_err(|e| ApiError::from(sparse_model::Error::from(e)))
    };
    let prompts = match &completion.prompt {
        Prompt::Text(text) => vec![encode(text)?],
        Prompt::Texts(texts) => {
            texts.iter().take(limits.prompts + 1).map(encode).collect::<Result<_, _>>()?
        }
        Prompt::Tokens(tokens) => vec![tokens.clone()],
        Prompt::ManyTokens(prompts) => prompts.clone(),
    };
    if prompts.is_empty() || prompts.len() > limits.prompts {
        return Err(ApiError::limit("prompt", "texts", prompts.len(), limits.prompts));
    }
    let room = service.backend.context();
    if let Some(long) = prompts.iter().map(Vec::len).find(|len| *len >= room) {
        let message = format!("the prompt has {long} tokens; the context holds {room}");
        return Err(ApiError::bad(Some("prompt"), message));
    }
    let echo = completion.echo.unwrap_or(false);
    let echoed = match (echo, completion.prompt) {
        (false, _) => Vec::new(),
        (true, Prompt::Text(text)) => vec![text],
        (true, Prompt::Texts(texts)) => texts,
        (true, _) => prompts.iter().map(|tokens| tokenizer.decode(tokens, true)).collect(),
    };
    let form = Completions { echoed, n };
    Choices::start(Arc::clone(&service), Box::new(form), prompts, n, &options)
}

/// How completions look.
struct Completions {
    /// The prompts, if they are to come back.
    echoed: Vec<String>,
    /// Answers to each.
    n: usize,
}

impl Completions {
    fn echo(&self, index: usize) -> &str {
        self.echoed.get(index / self.n).map_or("", String::as_str)
    }

    fn choice(&self, service: &Service, index: usize, text: &str, piece: &Text) -> Value {
        let mut offset = piece.offset + self.echo(index).chars().count();
        let (mut tokens, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        for (token, probable) in piece.tokens.iter().filter_map(|t| Some((t, t.logprobs.as_ref()?))) {
            let (text, _) = token_text(service, token.id);
            offsets.push(offset);
            offset += text.chars().count();
            tokens.push(text);
            logprobs.push(probable.logprob);
            let top = probable.top.iter().map(|(id, p)| (token_text(service, *id).0, json!(p)));
            tops.push(top.collect::<Map<_, _>>());
        }
        let logprobs = match tokens.is_empty() {
            true => Value::Null,
            false => json!({
                "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets,
            }),
        };
        json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": piece.finish_reason() })
    }
}

impl Form for Completions {
    fn object(&self, _: bool) -> &'static str {
        "text_completion"
    }

    fn prefix(&self) -> &'static str {
        "cmpl"
    }

    fn choice(&self, service: &Service, index: usize, text: &Text) -> Value {
        self.choice(service, index, &format!("{}{}", self.echo(index), text.text), text)
    }

    fn first(&self, index: usize) -> Option<Value> {
        let echo = Some(self.echo(index)).filter(|echo| !echo.is_empty())?;
        Some(json!({ "index": index, "text": echo, "logprobs": null, "finish_reason": null }))
    }

    fn piece(&self, service: &Service, index: usize, piece: &Text) -> Value {
        self.choice(service, index, &piece.text, piece)
    }
}
