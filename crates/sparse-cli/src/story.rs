//! The story model: a part of this program, so that it runs without any file.

use std::sync::Arc;

use sparse_gguf::Gguf;
use sparse_model::Sidecar;

static MODEL: &[u8] = include_bytes!("../story/story.gguf");
static SIDECAR: &[u8] = include_bytes!("../story/story.sparse.gguf");

/// The model; its weights stay where they are.
pub(crate) fn gguf() -> Result<Gguf, sparse_gguf::Error> {
    Gguf::from_shared(Arc::new(MODEL))
}

/// The selectors that calibration chose for it.
pub(crate) fn sidecar() -> Result<Sidecar, sparse_model::Error> {
    Sidecar::from_gguf(&Gguf::from_shared(Arc::new(SIDECAR))?)
}
