#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod cursor;
mod error;
mod gguf;
mod map;
mod metadata;
mod quantize;
mod reader;
mod tensor;
mod types;
mod value;
mod writer;

pub use error::Error;
pub use gguf::{Gguf, SharedBytes};
pub use metadata::Metadata;
pub use quantize::{quantize, quantize_into};
pub use sparse_simd::{BlockFormat, layout};
pub use tensor::{TensorInfo, TensorView};
pub use types::GgmlType;
pub use value::{Array, Value, ValueType};
pub use writer::{GgufWriter, PendingFile, Sink, TensorWriter};
