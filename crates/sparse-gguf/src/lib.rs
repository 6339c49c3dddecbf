//! GGUF files: memory-mapped reading without copies, typed metadata, writing, quantising and dequantising.
#![deny(unsafe_code)]

mod cursor;
mod error;
mod gguf;
mod map;
mod metadata;
mod reader;
mod tensor;
mod types;
mod value;

pub use error::Error;
pub use gguf::{Gguf, SharedBytes};
pub use metadata::Metadata;
pub use sparse_simd::BlockFormat;
pub use tensor::{TensorInfo, TensorView};
pub use types::GgmlType;
pub use value::{Array, Value, ValueType};
