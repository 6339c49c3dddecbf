//! Errors as JavaScript gets them: an `Error` with a `code` that programs can tell apart.

use std::cell::RefCell;
use std::panic;

use js_sys::{Error as JsError, Reflect};
use sparse_model::Error as ModelError;
use wasm_bindgen::prelude::*;

/// An error on its way to JavaScript.
#[derive(Debug)]
pub(crate) struct Error {
    /// One of the codes of `SparseErrorCode` in `index.d.ts`.
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn new(code: &'static str, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }

    /// A setting that makes no sense.
    pub(crate) fn option(message: impl ToString) -> Self {
        Self::new("option", message)
    }
}

impl From<Error> for JsValue {
    fn from(e: Error) -> Self {
        let error = JsError::new(&e.message);
        // Fails for frozen objects alone.
        let _ = Reflect::set(&error, &"code".into(), &e.code.into());
        error.into()
    }
}

impl From<ModelError> for Error {
    fn from(e: ModelError) -> Self {
        Self::new(code(&e), e)
    }
}

impl From<sparse_gguf::Error> for Error {
    fn from(e: sparse_gguf::Error) -> Self {
        Self::new("format", e)
    }
}

impl From<sparse_precision::Error> for Error {
    fn from(e: sparse_precision::Error) -> Self {
        Self::option(e)
    }
}

fn code(e: &ModelError) -> &'static str {
    match e {
        ModelError::File { source, .. } => code(source),
        ModelError::Architecture { .. } => "unsupported",
        ModelError::Sidecar { .. } | ModelError::SidecarActivation { .. } => "sidecar",
        ModelError::Chat(_) => "chat-template",
        ModelError::MissingFile => "missing-file",
        ModelError::ContextFull { .. } => "context-full",
        ModelError::ContextMemory { .. } => "memory",
        ModelError::NotFinite { .. } | ModelError::EmbeddingNotFinite { .. } => "not-finite",
        ModelError::Setting { .. } | ModelError::TokenId { .. } | ModelError::NoTokens => "option",
        _ => "format",
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a panic says: JavaScript sees nothing but that the program stopped.
#[wasm_bindgen(start)]
fn start() {
    panic::set_hook(Box::new(|info| PANIC.set(Some(info.to_string()))));
}

/// What the panic that stopped the program said.
#[wasm_bindgen(js_name = panicMessage)]
pub fn panic_message() -> Option<String> {
    PANIC.take()
}
