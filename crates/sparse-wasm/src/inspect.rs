//! What is in a GGUF file, and what computes it.

use serde_json::{Value as Json, json};
use sparse_gguf::{Array, Gguf, Value};
use sparse_simd::Kernels;
use wasm_bindgen::prelude::*;

use crate::ModelBytes;
use crate::error::Error;

/// Items of an array that are shown.
const SHOWN: usize = 16;

/// The vectors that this build computes with: `simd128` or `scalar`.
#[wasm_bindgen(js_name = simdLevel)]
pub fn simd_level() -> String {
    Kernels::get().level().to_string()
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

/// A metadata value: of long arrays the length and the first items.
fn value(value: &Value) -> Json {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::F32(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::String(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F64(v) => json!(v),
        Value::Array(v) => array(v),
    }
}

fn array(array: &Array) -> Json {
    macro_rules! first {
        ($($kind:ident),*) => {
            match array {
                $(Array::$kind(items) => json!(items[..items.len().min(SHOWN)]),)*
                Array::Array(_) => json!([]),
            }
        };
    }
    let first = first!(U8, I8, U16, I16, U32, I32, F32, Bool, String, U64, I64, F64);
    json!({ "type": array.ty().name(), "length": array.len(), "first": first })
}
