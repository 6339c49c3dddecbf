//! What the server answers.

mod chat;
mod choices;
mod completions;
mod embeddings;
mod error;
mod metrics;
mod options;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Service;
use error::ApiError;

/// A shared [`Service`], as handlers get it.
type Shared = State<Arc<Service>>;

pub(crate) fn router(service: Arc<Service>) -> Router {
    let v1 = Router::new()
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/completions", post(completions::answer))
        .route("/v1/embeddings", post(embeddings::answer))
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/metrics", get(metrics::answer))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), authorize));
    Router::new()
        .route("/health", get(health))
        .merge(v1)
        .fallback(|| async { ApiError::not_found("there is no such path") })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .with_state(service)
}

/// Lets requests through that have the key, if there is one.
async fn authorize(State(service): Shared, request: Request, next: Next) -> Response {
    let Some(key) = &service.options.key else { return next.run(request).await };
    let given = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    // Without a stop at the first difference, time tells nothing about the key.
    let differ =
        key.len() != given.len() || key.bytes().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b)) != 0;
    match differ {
        true => ApiError::unauthorized().into_response(),
        false => next.run(request).await,
    }
}

/// The JSON in a request's body, whatever its content type.
async fn body<T: DeserializeOwned>(service: &Service, request: Request) -> Result<T, ApiError> {
    let limits = &service.options.limits;
    let length = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body as u64) {
        return Err(ApiError::too_large(limits.body));
    }
    let bytes = tokio::time::timeout(limits.read, read(request.into_body(), limits.body));
    let bytes = bytes.await.map_err(|_| ApiError::timeout())??;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = T::deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|e| ApiError::bad(None, format!("the body is not the JSON that is expected: {e}")))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = source {
            if cause.to_string().contains("length limit") {
                return ApiError::too_large(limit);
            }
            source = cause.source();
        }
        ApiError::bad(None, "the body ended before it was complete")
    })
}

async fn health() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

async fn models(State(service): Shared) -> Response {
    let embeddings = service.options.embeddings.iter().map(|e| e.name().to_owned());
    let names = [service.backend.name().to_owned()].into_iter().chain(embeddings);
    let data: Vec<_> = names.map(|name| describe(&service, &name)).collect();
    Json(json!({ "object": "list", "data": data })).into_response()
}

async fn model(State(service): Shared, axum::extract::Path(id): axum::extract::Path<String>) -> Response {
    let embeddings = service.options.embeddings.as_ref().map(|e| e.name());
    match id == service.backend.name() || embeddings == Some(&id) {
        true => Json(describe(&service, &id)).into_response(),
        false => ApiError::not_found(format!("there is no model \"{id}\"")).into_response(),
    }
}

fn describe(service: &Service, name: &str) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": service.created, "owned_by": "local" })
}
