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
    #[error("architecture \"{found}\" is not supported (supported: {supported})")]
    Architecture {
        /// The architecture.
        found: String,
        /// Those that are.
        supported: String,
    },
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
        /// The shape that the model's configuration implies. The row length is first for language models, and last
        /// for encoders.
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
    /// Neuron records of another model.
    #[error(
        "`{}` has the neurons of another model file (fingerprint {}.., this model's is {}..): run `sparse convert` again",
        path.display(), .expected.get(..12).unwrap_or(.expected), .found.get(..12).unwrap_or(.found)
    )]
    Records {
        /// The file of records.
        path: PathBuf,
        /// Fingerprint in it.
        expected: String,
        /// The model's.
        found: String,
    },
    /// A sidecar for the same model computed with another activation.
    #[error(
        "the sidecar was made with activation {expected}, but the model is computed with {found}; calibrate anew, or \
         name the other activation"
    )]
    SidecarActivation {
        /// The sidecar's.
        expected: String,
        /// The model's.
        found: String,
    },
    /// The tokenizer in the file cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The chat template is missing or fails.
    #[cfg(feature = "chat")]
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
    /// A prompt cache cannot be used.
    #[error("the prompt cache {problem}")]
    PromptCache {
        /// Why.
        problem: String,
    },
    /// What a text has to match is malformed, matches nothing, or cannot be followed.
    #[error("the {kind} {problem}")]
    Grammar {
        /// JSON schema, regular expression or grammar.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
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
    /// Keys and values of a context that do not fit the memory.
    #[error("there is not enough memory for the keys and values of {context} tokens; use a smaller context")]
    ContextMemory {
        /// Tokens of the context.
        context: usize,
    },
    /// A layer keeps a summary of the tokens before, which cannot be taken back.
    #[error(
        "the session at token {at} cannot go back to {to}: this model's layers do not keep all tokens; take a \
         snapshot there before going on, or go back to 0"
    )]
    CannotRewind {
        /// Tokens computed.
        at: usize,
        /// Tokens to keep.
        to: usize,
    },
    /// Weights that are read when they are needed cannot be read. The tokens that needed them were not computed.
    #[error(transparent)]
    Store(#[from] sparse_core::StoreError),
    /// More weights than the memory budget has to keep in memory.
    #[error(
        "a memory budget of {} is too small for the weights of this model: it needs at least {} ({problem})",
        mebibytes(*budget), mebibytes(*minimum)
    )]
    MemoryBudget {
        /// The budget, in bytes.
        budget: usize,
        /// Bytes that would do.
        minimum: usize,
        /// What takes so much.
        problem: String,
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
    /// A file that a model folder must have is not there.
    #[error(
        "there is no such file; a model folder has config.json, tokenizer.json and model.safetensors, and modules.json with the \
         folders it names: get the whole of it, and save weights in other formats as safetensors"
    )]
    MissingFile,
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file of a model folder is not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file is not readable as safetensors.
    #[cfg(feature = "encoder")]
    #[error(transparent)]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A safetensors file ends too soon.
    #[error("the file is truncated: expected at least {expected} bytes, found {found}; get it again")]
    Truncated {
        /// Bytes that its header asks for.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A setting of a model folder, or of a caller, makes no sense or is not supported.
    #[error("{what}: {problem}")]
    Setting {
        /// Which one.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer of a model folder cannot be used.
    #[error("the tokenizer cannot be used: {0}")]
    TokenizerFile(String),
    /// Tokenizer and weights belong to different models.
    #[error(
        "the tokenizer has ids up to {highest}, but there are embeddings for {rows} tokens: it belongs to another model"
    )]
    Vocabulary {
        /// The tokenizer's highest id.
        highest: u32,
        /// Rows of the token embedding.
        rows: usize,
    },
    /// An embedding is not made of numbers: weights are damaged.
    #[error("the embedding of text {text} of the batch is not finite: are the weights damaged?")]
    EmbeddingNotFinite {
        /// Which text of the batch, from 0.
        text: usize,
    },
}

/// Bytes as files of settings and command lines write them, rounded up.
fn mebibytes(bytes: usize) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}

impl Error {
    /// A fault in metadata `key`.
    pub(crate) fn metadata(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Metadata { key: key.into(), problem: problem.into() }
    }

    /// A fault in a setting.
    pub(crate) fn setting(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Setting { what: what.into(), problem: problem.into() }
    }
}
