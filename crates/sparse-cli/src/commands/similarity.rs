//! `sparse similarity`.

use std::io::{self, Write};

use serde::Serialize;
use sparse_model::Prompt;

use crate::args::SimilarityArgs;
use crate::exit::End;
use crate::{encoder, output};

#[derive(Serialize)]
struct Report {
    cosine: f32,
}

pub(crate) fn run(args: &SimilarityArgs) -> anyhow::Result<End> {
    let encoder = encoder::open(&args.encoder)?;
    let prompted = encoder.prompted(&args.prompt.or(Prompt::Default))?;
    let embeddings = prompted.embed_batch(&[&args.a, &args.b])?;
    let cosine = encoder::cosine(&encoder, &embeddings[0], &embeddings[1]);
    match args.json {
        true => output::json(&Report { cosine })?,
        false => writeln!(io::stdout().lock(), "{cosine:.4}")?,
    }
    Ok(End::Finished)
}
