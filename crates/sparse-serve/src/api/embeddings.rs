//! `/v1/embeddings`.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{Shared, body};

#[derive(Debug, Deserialize)]
struct Embeddings {
    input: Input,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    /// Token ids, which only the model that they were made for could read.
    Other(serde::de::IgnoredAny),
}

pub(super) async fn answer(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let asked: Embeddings = body(&service, request).await?;
    let limits = &service.options.limits;
    let Some(provider) = service.options.embeddings.clone() else {
        return Err(ApiError::not_found("this server has no embedding model"));
    };
    let name = provider.name().to_owned();
    match asked.model.as_deref() {
        None | Some("" | "default") => {}
        Some(model) if model == name => {}
        Some(other) => {
            let message = format!("there is no embedding model \"{other}\"; this server has \"{name}\"");
            return Err(ApiError::not_found(message));
        }
    }
    let texts = match asked.input {
        Input::Text(text) => vec![text],
        Input::Texts(texts) => texts,
        Input::Other(_) => {
            return Err(ApiError::bad(Some("input"), "input is neither a text nor a list of texts"));
        }
    };
    if texts.is_empty() || texts.len() > limits.inputs {
        return Err(ApiError::limit("input", "texts", texts.len(), limits.inputs));
    }
    if asked.dimensions.is_some_and(|d| d != provider.dimension()) {
        let message = format!("this model's embeddings have {} dimensions", provider.dimension());
        return Err(ApiError::bad(Some("dimensions"), message));
    }
    let base64 = match asked.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("encoding_format is \"{other}\", expected float or base64");
            return Err(ApiError::bad(Some("encoding_format"), message));
        }
    };
    let embedded = tokio::task::spawn_blocking(move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        provider
            .embed_batch(&texts)
            .map(|embeddings| (embeddings, texts.iter().map(|t| t.len()).sum::<usize>()))
    });
    let (embeddings, bytes) = embedded.await.map_err(|_| sparse_integration::Error::Stopped)??;
    let data: Vec<Value> = embeddings
        .iter()
        .enumerate()
        .map(|(index, embedding)| {
            let embedding = match base64 {
                false => json!(embedding),
                true => {
                    let bytes: Vec<u8> = embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
                    json!(STANDARD.encode(bytes))
                }
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    // The provider does not say how many tokens there were: four bytes are about one.
    let tokens = bytes.div_ceil(4);
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Ok(Json(json!({ "object": "list", "data": data, "model": name, "usage": usage })).into_response())
}
