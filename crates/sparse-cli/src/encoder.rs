//! Embedding models, as the commands use them.

use anyhow::Context;
use sparse_model::{Encoder, EncoderOptions, EncoderSparsity, Prompted};

use crate::args::EncoderArgs;
use crate::exit::{self, End};
use crate::progress::Bar;

/// Opens the model that the command line names.
pub(crate) fn open(args: &EncoderArgs) -> anyhow::Result<Encoder> {
    let path = args.model.as_deref().ok_or_else(|| {
        exit::usage("no embedding model: name a folder or GGUF file with --model PATH or SPARSE_ENCODER (`cargo xtask fetch minilm` fetches one)")
    })?;
    let mut options = EncoderOptions::default();
    options.format = args.format;
    options.threads = args.compute.threads();
    options.max_tokens = (args.max_tokens > 0).then_some(args.max_tokens);
    options.sparsity = match &args.sparse {
        None => EncoderSparsity::Dense,
        Some(file) if args.sparse_always => EncoderSparsity::Always(file.clone()),
        Some(file) => EncoderSparsity::Sidecar(file.clone()),
    };
    let encoder = Encoder::open(path, &options).context("cannot load the embedding model")?;
    tracing::info!(level = %encoder.compute().kernels.level(), sparse_up_to_tokens = ?encoder.sparse_tokens(), "encoder loaded");
    Ok(encoder)
}

/// Calls `each(i, embedding)` for all `texts`, in order, with a progress bar if they are many. Ctrl-C ends it.
pub(crate) fn embed(
    encoder: &Prompted<'_>,
    texts: &[&str],
    mut each: impl FnMut(usize, Vec<f32>) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let mut bar = Bar::default();
    bar.begin("embedding", texts.len());
    for (i, embedding) in encoder.embed_stream(texts).enumerate() {
        let embedding = embedding.with_context(|| format!("cannot embed text {}", i + 1))?;
        each(i, embedding)?;
        if bar.step().is_break() {
            bar.finish();
            return Ok(End::Interrupted);
        }
    }
    bar.finish();
    Ok(End::Finished)
}

/// The cosine of the angle between two embeddings; 0 if one is all zeros.
pub(crate) fn cosine(encoder: &Encoder, a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| encoder.compute().kernels.dot_f32(a, b);
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}
