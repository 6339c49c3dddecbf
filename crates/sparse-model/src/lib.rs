#![doc = include_str!("../README.md")]

#[cfg(feature = "chat")]
pub mod chat;
#[cfg(feature = "grammar")]
pub mod grammar;
pub mod lanes;
pub mod sidecar;
pub mod tokenizer;

mod activation;
mod arch;
mod attention;
#[cfg(feature = "encoder")]
mod bert;
mod check;
mod config;
mod decoder;
mod dense;
mod error;
mod feed_forward;
mod format;
mod generate;
mod head;
mod kv_cache;
mod mean;
mod memory;
mod model;
mod perplexity;
mod rope;
mod sampler;
mod sequence;
mod session;
mod short_conv;
mod weights;
mod workspace;

pub use activation::{ActivationSource, FfnActivation};
#[cfg(feature = "encoder")]
pub use bert::{
    BertConfig, EmbedStream, Encoder, EncoderFormat, EncoderOptions, EncoderSparsity, FfnTiming, ModelFiles,
    Pooling, Prompt, Prompted, ReadSeek,
};
pub use check::{ActivationScore, check_activation};
pub use config::{
    AttentionSpec, ExpertsSpec, FeedForwardSpec, LayerSpec, Mixer, ModelConfig, NormKind, QkNorm,
};
pub use error::Error;
pub use feed_forward::FeedForward;
pub use format::WeightFormat;
pub use generate::{
    Event, Generate, GenerateOptions, Generation, Generator, Next, Overflow, Stop, Token, TokenLogprobs,
    generate,
};
pub use head::HeadMode;
pub use kv_cache::KvFormat;
pub use memory::{CacheKind, MemoryBudget};
pub use model::{Model, ModelOptions};
pub use perplexity::{Perplexity, log_sum_exp, negative_log_likelihood, perplexity};
pub use rope::{RopeConfig, RopePairs, RopeScaling};
pub use sampler::{Logits, Sampler, SamplerConfig};
pub use sequence::{Sequence, SessionOptions};
pub use session::{ScreenCounts, Session};
pub use sidecar::{Placement, Sidecar};
#[doc(no_inline)]
pub use sparse_core::StoreStatistics;
#[cfg(feature = "fs")]
pub use weights::records::{RecordFile, write_records};
pub use workspace::{PartTimes, Workspace};

/// What the other crates of this workspace share. No part of the API.
#[doc(hidden)]
pub mod internal {
    #[cfg(feature = "encoder")]
    pub use crate::bert::low_bit_copy;
    pub use crate::mean::RunningMean;
    #[cfg(feature = "fs")]
    pub use crate::memory::into_memory;
    pub use crate::weights::{ffn_weight, is_expert, is_multiplied};
}
