//! What a user can choose when loading an encoder.

use std::fmt;
#[cfg(feature = "fs")]
use std::path::PathBuf;
use std::str::FromStr;

use sparse_gguf::BlockFormat;

use crate::{Error, WeightFormat};

/// How an encoder's weights are stored in memory; they are converted when they are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncoderFormat {
    /// As they are: 32-bit floats. The reference.
    F32,
    /// Integers of 8 bits.
    #[default]
    Int8,
    /// Blocks with scales of their own.
    Blocks(WeightFormat),
}

impl EncoderFormat {
    /// Blocks for rows of `cols` values where a format has packed panels for whole products.
    pub(super) fn blocks(self, cols: usize) -> WeightFormat {
        match self {
            Self::F32 => BlockFormat::F32.into(),
            Self::Int8 if !cols.is_multiple_of(32) => BlockFormat::F16.into(),
            Self::Int8 => BlockFormat::Q8_0.into(),
            Self::Blocks(format) => format,
        }
    }
}

impl fmt::Display for EncoderFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.pad("f32"),
            Self::Int8 => f.pad("int8"),
            Self::Blocks(format) => format.fmt(f),
        }
    }
}

impl FromStr for EncoderFormat {
    type Err = Error;

    /// `f32`, `int8`, or the name of a [`WeightFormat`], in any case.
    fn from_str(name: &str) -> Result<Self, Error> {
        match name.to_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => name
                .parse()
                .map(Self::Blocks)
                .map_err(|problem| Error::setting("the encoder's format", format!("{problem}, f32, int8"))),
        }
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first one: that of the token `[CLS]`.
    Cls,
    /// The largest of each value.
    Max,
    /// Their sum over the square root of their number.
    MeanSqrtLen,
    /// Their mean, weighted by position from 1 on.
    WeightedMean,
    /// The last one.
    LastToken,
}

/// What an encoder's feed-forward layers may leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncoderSparsity {
    /// Nothing.
    #[default]
    Dense,
    /// What this file of `sparse calibrate` says, in those layers and up to that number of tokens computed together with
    /// which it is faster on this machine; loading the model measures that. The embedding of a text then depends, within
    /// the loss that calibration measured, on how many tokens it is computed with.
    #[cfg(feature = "fs")]
    Sidecar(PathBuf),
    /// What this file says, whether it is faster or not: to see what it costs. Embeddings depend on nothing but the text where
    /// predictors are stored in integers. Where the width or a rank is no multiple of 32, calibration stores them in floats, whose
    /// products with few and with many tokens add in another order: a neuron whose score is at the threshold may then be
    /// computed with some neighbors and left out with others.
    #[cfg(feature = "fs")]
    Always(PathBuf),
    /// Nothing for now, but every layer is ready for selectors: what calibration starts from
    /// ([`Encoder::ffns_mut`](crate::Encoder::ffns_mut)). Slower, and the weights of the layers are in memory twice.
    Prepared,
}

/// How to load an encoder. What is `None` is left to the model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncoderOptions {
    /// Storage of the weights.
    pub format: EncoderFormat,
    /// Storage of the feed-forward layers' weights, if it is to be another.
    pub feed_forward: Option<EncoderFormat>,
    /// Threads to compute on, 1 if zero.
    pub threads: usize,
    /// Tokens that a text is cut down to, those that the tokenizer adds included.
    pub max_tokens: Option<usize>,
    /// How the vectors of a text's tokens become one. It has to give as many values as the model's own pooling where a dense
    /// layer follows.
    pub pooling: Option<Pooling>,
    /// Whether embeddings are scaled to length 1.
    pub normalize: Option<bool>,
    /// Neurons to leave out.
    pub sparsity: EncoderSparsity,
}

impl Default for EncoderOptions {
    /// Int8 on one thread, the rest as the model's files say.
    fn default() -> Self {
        Self {
            format: EncoderFormat::default(),
            feed_forward: None,
            threads: 1,
            max_tokens: None,
            pooling: None,
            normalize: None,
            sparsity: EncoderSparsity::Dense,
        }
    }
}
