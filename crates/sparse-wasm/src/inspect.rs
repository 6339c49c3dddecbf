//! What is in a GGUF file, and what computes it.

use serde_json::{Value as Json, json};
use sparse_gguf::{Gguf, Value, ValueType};
use sparse_simd::{Kernels, Level};
use wasm_bindgen::prelude::*;

use crate::ModelBytes;
use crate::error::Error;

/// Items of an array that are shown.
const SHOWN: usize = 16;

/// The vectors that this build computes with: `relaxed-simd`, `simd128` or `scalar`.
#[wasm_bindgen(js_name = simdLevel)]
pub fn simd_level() -> String {
    match Kernels::get().level() {
        // Not a level of its own: a module has it or has not.
        Level::Simd128 if cfg!(feature = "relaxed-simd") => "relaxed-simd".into(),
        level => level.to_string(),
    }
}

/// What is in a GGUF file, as JSON: `GgufInfo` of `index.d.ts`.
///
/// # Errors
/// `format` if it is damaged or no GGUF file.
#[wasm_bindgen(js_name = inspectGguf)]
pub fn inspect_gguf(bytes: ModelBytes) -> Result<String, JsValue> {
    let gguf = Gguf::from_bytes(bytes.into_vec()).map_err(Error::from)?;
    let meta = gguf.metadata();
    let text = |key: &str| meta.opt_string(key).ok().flatten();
    let metadata: serde_json::Map<_, _> = meta.iter().map(|(key, v)| (key.to_owned(), value(v))).collect();
    let tensors: Vec<_> = gguf
        .tensors()
        .map(|t| {
            json!({
                "name": t.name, "type": t.ty.name(), "shape": t.dims, "bytes": t.range().len(),
                "readable": t.ty.format().is_some(),
            })
        })
        .collect();
    let info = json!({
        "version": gguf.version(),
        "architecture": text("general.architecture"),
        "name": text("general.name"),
        "bytes": gguf.file_len(),
        "parameters": gguf.tensors().map(|t| t.elements()).sum::<usize>(),
        "metadata": metadata,
        "tensors": tensors,
    });
    Ok(info.to_string())
}

/// A metadata value: of arrays the type, the length and the first items, none of arrays of arrays.
fn value(value: &Value) -> Json {
    match value {
        Value::Array(array) => {
            let shown = if array.ty() == ValueType::Array { 0 } else { SHOWN };
            json!({ "type": array.ty().name(), "length": array.len(), "first": array.first_as_json(shown) })
        }
        value => value.to_json(SHOWN),
    }
}
