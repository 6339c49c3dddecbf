//! The tests of whole models in one program, which is linked once.

mod architectures;
#[cfg(feature = "fs")]
mod bert;
#[cfg(feature = "fs")]
mod bert_properties;
mod chat;
mod experts;
mod generate;
mod gpt_oss;
#[cfg(feature = "grammar")]
mod grammar;
mod lenient;
mod llama;
#[cfg(feature = "fs")]
mod memory;
#[cfg(feature = "fs")]
mod neurons;
#[cfg(feature = "fs")]
mod prompt_cache;
mod screen;
mod session;
#[cfg(feature = "fs")]
mod sidecar;
#[cfg(feature = "fs")]
mod sparse_encoder;
mod story;
mod ternary;
mod together;
mod tokenizer;
mod tokenizer_errors;
mod tokenizer_properties;
