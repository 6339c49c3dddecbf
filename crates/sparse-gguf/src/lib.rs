#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod cursor;
mod error;
mod file;
mod gguf;
mod i2_s;
#[cfg(feature = "mmap")]
mod map;
mod metadata;
mod parts;
#[cfg(feature = "write")]
mod pending;
mod quantize;
mod reader;
#[cfg(feature = "write")]
mod resumable;
mod tensor;
mod types;
mod value;
mod writer;

pub use error::Error;
pub use file::release;
pub use gguf::{Gguf, SharedBytes};
pub use i2_s::i2_s_to_tq2_0;
pub use metadata::Metadata;
#[cfg(feature = "write")]
pub use pending::PendingFile;
pub use quantize::{quantize, quantize_into};
#[cfg(feature = "write")]
pub use resumable::ResumableFile;
pub use sparse_simd::{BlockFormat, layout};
pub use tensor::{TensorInfo, TensorView};
pub use types::GgmlType;
pub use value::{Array, Value, ValueType};
pub use writer::{GgufWriter, Sink, TensorWriter};
