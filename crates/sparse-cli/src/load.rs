//! Opening model files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sparse_gguf::Gguf;
use sparse_model::sidecar::HeadScreen;
use sparse_model::tokenizer::Tokenizer;
use sparse_model::{Model, Sidecar};
use tracing::info;

use crate::args::{ComputeArgs, ModelArgs, SparseArgs};
use crate::exit;

/// A model that is ready to run.
pub(crate) struct Loaded {
    pub(crate) model: Arc<Model>,
    /// What the file calls the model, or the file's own name.
    pub(crate) name: String,
    pub(crate) time: Duration,
}

/// Opens the model that the arguments name, with the selectors of a sidecar if there is one.
pub(crate) fn model(
    args: &ModelArgs,
    sparse: Option<&SparseArgs>,
    compute: &ComputeArgs,
) -> anyhow::Result<Loaded> {
    let start = Instant::now();
    let path = path(args)?;
    let threads = compute.threads();
    let gguf = gguf(path)?;
    let mut model =
        Model::from_gguf(&gguf, threads).with_context(|| format!("cannot use `{}`", path.display()))?;
    if let Some(sidecar) = sparse.and_then(|s| s.sparse.as_deref()) {
        Sidecar::open(sidecar)?
            .apply(&gguf, &mut model)
            .with_context(|| format!("cannot use `{}` for `{}`", sidecar.display(), path.display()))?;
    }
    if sparse.is_some_and(|s| s.screen) && model.screen().is_none() {
        HeadScreen::default().apply(&mut model)?;
    }
    let file_name = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let name = model.name().map_or_else(file_name, str::to_owned);
    let time = start.elapsed();
    info!(%name, level = %model.compute().kernels.level(), threads, ?time, "model loaded");
    Ok(Loaded { model: Arc::new(model), name, time })
}

/// Opens the tokenizer alone of the model that the arguments name.
pub(crate) fn tokenizer(args: &ModelArgs) -> anyhow::Result<Tokenizer> {
    let path = path(args)?;
    let gguf = gguf(path)?;
    Tokenizer::from_metadata(gguf.metadata())
        .with_context(|| format!("cannot use the tokenizer in `{}`", path.display()))
}

/// Opens a GGUF file of any kind.
pub(crate) fn gguf(path: &Path) -> anyhow::Result<Gguf> {
    match Gguf::open(path) {
        // This error names the file itself.
        Err(e @ sparse_gguf::Error::Open { .. }) => Err(e.into()),
        other => other.with_context(|| format!("cannot read `{}`", path.display())),
    }
}

pub(crate) fn path(args: &ModelArgs) -> anyhow::Result<&Path> {
    args.model.as_deref().ok_or_else(|| {
        exit::usage(
            "no model given: name a GGUF file with --model FILE or in the variable SPARSE_MODEL\n\n  \
             In the source tree, `cargo xtask fetch smollm2` gets a small one.",
        )
    })
}
