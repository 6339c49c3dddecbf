//! What can go wrong.

use sparse_model::Model;
use thiserror::Error;

/// A calibration that came to no end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The model fails, or the sidecar cannot be written.
    #[error(transparent)]
    Model(#[from] sparse_model::Error),
    /// A selector does not fit a layer.
    #[error(transparent)]
    Ffn(#[from] sparse_core::Error),
    /// Weights of a predictor cannot be stored.
    #[error(transparent)]
    Gguf(#[from] sparse_gguf::Error),
    /// The text is too short to be fitted to and measured on.
    #[error(
        "the text has {found} tokens, but calibration needs at least {needed}: {windows} windows of {window}; use a longer text or smaller windows"
    )]
    TextTooShort {
        /// Tokens in the text.
        found: usize,
        /// Tokens needed.
        needed: usize,
        /// Windows needed.
        windows: usize,
        /// Tokens per window.
        window: usize,
    },
    /// Too few sentences to be fitted to and measured on.
    #[error(
        "the text has {found} lines that are not empty, but calibration needs at least {needed}: a sentence per line"
    )]
    TooFewSentences {
        /// Sentences in the text.
        found: usize,
        /// Sentences needed.
        needed: usize,
    },
    /// A model whose layers have experts.
    #[error(
        "the layers of this model are mixtures of experts, whose router chooses for every token: {what} is for layers of one network{advice}"
    )]
    Experts {
        /// What was asked for.
        what: &'static str,
        /// What to do instead, if there is something.
        advice: &'static str,
    },
    /// An option makes no sense.
    #[error("{option} is {value}, expected {expected}")]
    Option {
        /// Which.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// [`Progress`](crate::Progress) asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Fails if `model` has experts: `what` is for layers of one network.
pub(crate) fn one_network(model: &Model, what: &'static str, advice: &'static str) -> Result<(), Error> {
    if model.config().has_experts() { Err(Error::Experts { what, advice }) } else { Ok(()) }
}
