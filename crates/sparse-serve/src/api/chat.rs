//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use sparse_model::chat::{Json, RenderOptions, final_channel};

use super::choices::{Choices, Form, Text, token_text};
use super::error::ApiError;
use super::options::Fields;
use super::{Shared, body};
use crate::Service;

#[derive(Debug, Deserialize)]
struct Conversation {
    messages: Vec<Value>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    /// Not of OpenAI: variables for the chat template.
    #[serde(default)]
    chat_template_kwargs: Option<std::collections::BTreeMap<String, Value>>,
    #[serde(flatten)]
    fields: Fields,
}

pub(super) async fn answer(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let conversation: Conversation = body(&service, request).await?;
    let stream = conversation.fields.stream.unwrap_or(false);
    let usage = conversation.fields.stream_options.as_ref().is_some_and(|o| o.include_usage);
    // Templates and long texts take their time.
    let started = tokio::task::spawn_blocking(move || start(service, &conversation));
    let choices = started.await.map_err(|_| sparse_integration::Error::Stopped)??;
    choices.respond(stream, usage).await
}

fn start(service: Arc<Service>, conversation: &Conversation) -> Result<Choices, ApiError> {
    let (limits, fields) = (&service.options.limits, &conversation.fields);
    fields.check_model(service.backend.name())?;
    if conversation.messages.is_empty() {
        return Err(ApiError::bad(Some("messages"), "messages is empty"));
    }
    if conversation.messages.len() > limits.messages {
        return Err(ApiError::limit("messages", "messages", conversation.messages.len(), limits.messages));
    }
    let mut options = fields.options(limits, usize::MAX)?;
    let n = fields.choices(limits)?;
    options.logprobs = match (conversation.logprobs, conversation.top_logprobs) {
        (Some(true), top) => Some(top.unwrap_or(0)),
        (_, None | Some(0)) => None,
        _ => return Err(ApiError::bad(Some("top_logprobs"), "top_logprobs needs logprobs: true")),
    };
    if options.logprobs.is_some_and(|n| n > limits.top_logprobs) {
        let message = format!(
            "top_logprobs is {}, expected at most {}",
            options.logprobs.unwrap_or(0),
            limits.top_logprobs
        );
        return Err(ApiError::bad(Some("top_logprobs"), message));
    }
    let messages = conversation.messages.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let mut render = RenderOptions::default();
    render.add_generation_prompt = true;
    render.literal_input = !service.options.parse_special;
    let none = conversation.tool_choice.as_ref().is_some_and(|choice| choice == "none");
    if let Some(tools) = conversation.tools.as_ref().filter(|tools| !tools.is_empty() && !none) {
        if tools.len() > limits.tools {
            return Err(ApiError::limit("tools", "tools", tools.len(), limits.tools));
        }
        render.tools = Some(tools.iter().map(Json::from_serialize).collect());
    }
    for (name, value) in conversation.chat_template_kwargs.iter().flatten() {
        render.variables.insert(name.clone(), Json::from_serialize(value));
    }
    let model = service.backend.model();
    let template =
        model.chat_templates().get(None, render.tools.is_some()).map_err(sparse_model::Error::from)?;
    let prompt = template.encode(model.tokenizer(), &messages, &render)?;
    let room = service.backend.context();
    if prompt.tokens.len() >= room {
        let message =
            format!("the conversation has {} tokens; the context holds {room}", prompt.tokens.len());
        return Err(ApiError::bad(Some("messages"), message));
    }
    Choices::start(Arc::clone(&service), Box::new(Chat), vec![prompt.tokens], n, &options)
}

/// A message as templates know it: parts of text are joined, arguments of tool calls are objects, and of answers in
/// channels only the final one is left.
fn message(message: &Value) -> Result<Value, ApiError> {
    let bad = |problem| ApiError::bad(Some("messages"), problem);
    let Value::Object(fields) = message else { return Err(bad("a message is not an object")) };
    if !fields.get("role").is_some_and(Value::is_string) {
        return Err(bad("a message has no role"));
    }
    let mut fields = fields.clone();
    let content = match fields.get("content") {
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text") | None, Some(text)) => Ok(text.to_owned()),
                _ => Err(bad("a part of a message is not text: this model reads nothing else")),
            };
            Value::String(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.concat())
        }
        Some(Value::String(text)) => Value::String(text.clone()),
        Some(Value::Null) | None => Value::String(String::new()),
        Some(_) => return Err(bad("a message's content is neither text nor parts of it")),
    };
    let content = match content {
        Value::String(text) if fields.get("role").is_some_and(|role| role == "assistant") => {
            Value::String(final_channel(&text).to_owned())
        }
        content => content,
    };
    fields.insert("content".into(), content);
    if let Some(Value::Array(calls)) = fields.get_mut("tool_calls") {
        for call in calls {
            // Clients send the arguments as JSON in a string; templates print them as JSON.
            if let Some(arguments) = call.pointer_mut("/function/arguments")
                && let Some(Ok(object)) = arguments.as_str().map(serde_json::from_str::<Value>)
            {
                *arguments = object;
            }
        }
    }
    Ok(Value::Object(fields))
}

/// How chat answers look.
struct Chat;

impl Chat {
    fn logprobs(service: &Service, text: &Text) -> Value {
        let entry = |id, logprob: f32| {
            let (token, bytes) = token_text(service, id);
            json!({ "token": token, "logprob": logprob, "bytes": bytes })
        };
        let entries = text.tokens.iter().filter_map(|token| {
            let probable = token.logprobs.as_ref()?;
            let mut own = entry(token.id, probable.logprob);
            own["top_logprobs"] = probable.top.iter().map(|(id, logprob)| entry(*id, *logprob)).collect();
            Some(own)
        });
        let entries: Vec<Value> = entries.collect();
        if entries.is_empty() { Value::Null } else { json!({ "content": entries, "refusal": null }) }
    }
}

impl Form for Chat {
    fn object(&self, piece: bool) -> &'static str {
        if piece { "chat.completion.chunk" } else { "chat.completion" }
    }

    fn prefix(&self) -> &'static str {
        "chatcmpl"
    }

    fn choice(&self, service: &Service, index: usize, text: &Text) -> Value {
        json!({
            "index": index,
            "message": { "role": "assistant", "content": text.text, "refusal": null },
            "logprobs": Self::logprobs(service, text),
            "finish_reason": text.finish_reason(),
        })
    }

    fn first(&self, index: usize) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        Some(json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }))
    }

    fn piece(&self, service: &Service, index: usize, piece: &Text) -> Value {
        let delta = if piece.text.is_empty() { json!({}) } else { json!({ "content": piece.text }) };
        json!({
            "index": index,
            "delta": delta,
            "logprobs": Self::logprobs(service, piece),
            "finish_reason": piece.finish_reason(),
        })
    }
}
