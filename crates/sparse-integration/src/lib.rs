//! Local models behind the interfaces that other programs expect.
//!
//! - [`EmbeddingProvider`]: text in, one vector per text out, whoever computes it.
//! - [`InferenceBackend`]: tokens in, text out.
//! - [`SparseInferenceBackend`]: one that runs a GGUF model on this machine's CPU, many texts at once.
//! - [`SparseEmbeddingProvider`]: one that runs a sentence-transformers model on this machine's CPU.
//!
//! ```no_run
//! use sparse_integration::{EmbeddingConfig, SparseEmbeddingProvider};
//!
//! # fn main() -> Result<(), sparse_integration::Error> {
//! let config = EmbeddingConfig::new("models/all-MiniLM-L6-v2");
//! let provider = SparseEmbeddingProvider::new(config)?;
//! let embedding = provider.embed("Hello world")?;
//! assert_eq!(embedding.len(), provider.dimension());
//! # Ok(())
//! # }
//! ```
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
