//! What can go wrong in this crate.

/// Errors of providers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] sparse_model::Error),
    /// Too many texts are waited for already.
    #[error("{waiting} texts are waited for already: try again later")]
    Busy {
        /// Texts that wait.
        waiting: usize,
    },
    /// The backend has been shut down.
    #[error("the backend has been shut down")]
    Stopped,
    /// The computation of several texts failed.
    #[error("{0}")]
    Computation(String),
    /// An error of somebody else's provider.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
