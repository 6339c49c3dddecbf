#![doc = include_str!("../README.md")]

mod bytes;
mod embedding;
mod engine;
mod error;
mod inspect;
mod lanes;
mod options;
mod text;

pub use bytes::ModelBytes;
pub use embedding::EmbeddingModel;
pub use engine::{SparseEngineWasm, create_sparse_engine, infer};
pub use error::panic_message;
pub use inspect::{inspect_gguf, simd_level};
pub use lanes::{LaneIndex, angular_distance, lane_decode, lane_encode, pi_jitter, pi_order};
pub use text::{TextGeneration, TextModel};
