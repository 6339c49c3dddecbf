//! What a user can choose when loading an encoder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sparse_gguf::BlockFormat;
use sparse_precision::PrecisionLane;

use crate::Error;

/// How an encoder's weights are stored in memory; they are converted when they are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncoderFormat {
    /// As they are: 32-bit floats. The reference.
    F32,
    /// Integers of 8 bits.
    #[default]
    Int8,
    /// Blocks of a GGUF format that [`sparse_gguf::quantise`] writes, such as Q8_0 or Q4_0.
    Blocks(BlockFormat),
    /// Blocks of a precision lane, with scales searched for the least error.
    Lane(PrecisionLane),
}

impl fmt::Display for EncoderFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::Int8 => f.write_str("int8"),
            Self::Blocks(format) => f.write_str(format.name()),
            Self::Lane(lane) => fmt::Display::fmt(lane, f),
        }
    }
}

impl FromStr for EncoderFormat {
    type Err = Error;

    /// `f32`, `int8`, or the name of a lane or of a block format, in any case.
    fn from_str(name: &str) -> Result<Self, Error> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let blocks = BlockFormat::GGML.into_iter().find(|format| is(format.name())).map(Self::Blocks);
        let lane =
            name.parse().ok().filter(|lane: &PrecisionLane| *lane != PrecisionLane::Float).map(Self::Lane);
        match blocks.or(lane) {
            _ if is("f32") => Ok(Self::F32),
            _ if is("int8") => Ok(Self::Int8),
            Some(format) => Ok(format),
            None => Err(Error::setting(
                "the weights' format",
                format!(
                    "\"{name}\" is unknown; there are f32, int8, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, Bit3, Bit5 and Bit7"
                ),
            )),
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
    Sidecar(PathBuf),
    /// What this file says, whether it is faster or not: to see what it costs. Embeddings depend on nothing but the text.
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
    /// How the vectors of a text's tokens become one.
    pub pooling: Option<Pooling>,
    /// Whether embeddings are scaled to length 1.
    pub normalise: Option<bool>,
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
            normalise: None,
            sparsity: EncoderSparsity::Dense,
        }
    }
}
