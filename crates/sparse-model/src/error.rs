//! What can go wrong in this crate.

use std::path::PathBuf;

/// Errors of loading and running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not readable as GGUF, or lacks something that the model needs.
    #[error(transparent)]
    Gguf(#[from] sparse_gguf::Error),
    /// Like [`Gguf`](Self::Gguf), with the file's name.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The architecture is one that this crate does not run.
    #[error("architecture \"{0}\" is not supported (supported: llama)")]
    Architecture(String),
    /// A value in the metadata makes no sense.
    #[error("metadata {key}: {problem}")]
    Metadata {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A tensor has another shape than the metadata says.
    #[error("tensor {name}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape that the metadata implies, in ggml's order (row length first).
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a shape that its type cannot store, or another fault.
    #[error("tensor {name}: {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Weights or selectors of a feed-forward layer do not fit together.
    #[error(transparent)]
    Ffn(#[from] sparse_core::Error),
    /// A sidecar for another model.
    #[error(
        "the sidecar was made for another model file (fingerprint {}.., this model's is {}..); calibrate this one",
        .expected.get(..12).unwrap_or(.expected), .found.get(..12).unwrap_or(.found)
    )]
    Sidecar {
        /// Fingerprint in the sidecar.
        expected: String,
        /// The model's.
        found: String,
    },
    /// The tokenizer in the file cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The chat template is missing or fails.
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab} tokens")]
    TokenId {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// More tokens than the context holds.
    #[error("{needed} tokens do not fit a context of {context}; use a larger context or a shorter text")]
    ContextFull {
        /// Tokens the context would have to hold.
        needed: usize,
        /// Tokens it holds.
        context: usize,
    },
    /// There is nothing to compute from.
    #[error("no tokens: the prompt is empty and the model's vocabulary has no beginning-of-text token")]
    NoTokens,
    /// A text too short for the measurement.
    #[error("the text has {found} tokens; perplexity with windows of {context} needs at least {needed}")]
    TextTooShort {
        /// Tokens in the text.
        found: usize,
        /// Tokens needed.
        needed: usize,
        /// Window length.
        context: usize,
    },
    /// The logits are not numbers: weights are damaged or contain NaN or infinities.
    #[error("the model's output at position {position} is not finite: are its weights damaged?")]
    NotFinite {
        /// Position in the context.
        position: usize,
    },
}

impl Error {
    /// A fault in metadata `key`.
    pub(crate) fn metadata(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Metadata { key: key.into(), problem: problem.into() }
    }
}
