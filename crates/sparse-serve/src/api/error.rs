//! Errors as OpenAI's clients understand them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sparse_integration::Error;

/// What a client is told.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    /// The field that is to blame.
    param: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None }
    }

    /// A mistake in the request.
    pub(crate) fn bad(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// A field above its limit.
    pub(crate) fn limit(param: &'static str, what: &str, found: usize, limit: usize) -> Self {
        Self::bad(Some(param), format!("{param} has {found} {what}; at most {limit} are allowed"))
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "the key is missing or wrong: send it as Authorization: Bearer KEY",
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes"))
    }

    pub(crate) fn timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        let error =
            json!({ "message": self.message, "type": kind, "param": self.param, "code": Value::Null });
        json!({ "error": error })
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        use sparse_model::Error as Model;
        let status = match &error {
            Error::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Error::Model(
                Model::ContextFull { .. }
                | Model::Chat(_)
                | Model::Grammar { .. }
                | Model::NoTokens
                | Model::Setting { .. }
                | Model::TokenId { .. }
                | Model::Tokenizer(_),
            ) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let param = matches!(error, Error::Model(Model::Grammar { .. })).then_some("response_format");
        Self { param, ..Self::new(status, error.to_string()) }
    }
}

impl From<sparse_model::Error> for ApiError {
    fn from(error: sparse_model::Error) -> Self {
        Error::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
