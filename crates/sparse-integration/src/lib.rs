#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod embedding;
mod error;

pub use embedding::{EmbeddingConfig, EmbeddingProvider, SparseEmbeddingProvider};
pub use error::Error;
/// What [`EmbeddingConfig::options`] consist of.
pub use sparse_model::{EncoderFormat, EncoderOptions, EncoderSparsity, Pooling, Prompt, Prompted};
