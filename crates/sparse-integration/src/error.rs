//! What can go wrong in this crate.

/// Errors of providers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] sparse_model::Error),
    /// An error of somebody else's provider.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
