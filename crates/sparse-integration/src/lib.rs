#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod embedding;
mod engine;
mod error;
mod inference;

pub use embedding::{EmbeddingConfig, EmbeddingProvider, SparseEmbeddingProvider};
pub use engine::{EngineOptions, Histogram, Request, Statistics};
pub use error::Error;
pub use inference::{InferenceBackend, Output, SparseInferenceBackend};
/// What [`EmbeddingConfig::options`] consist of.
pub use sparse_model::{EncoderFormat, EncoderOptions, EncoderSparsity, Pooling, Prompt, Prompted};
/// What texts are asked for with, and what happens then.
pub use sparse_model::{Event, GenerateOptions, Generation, KvFormat, SamplerConfig, Stop, Token};
