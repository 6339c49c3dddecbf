//! `sparse embed`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use sparse_gguf::{PendingFile, Sink};
use sparse_model::{Prompt, Prompted};

use crate::args::EmbedArgs;
use crate::exit::{self, End};
use crate::{encoder, input, interrupt, npy};

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    embedding: &'a [f32],
}

pub(crate) fn run(args: &EmbedArgs) -> anyhow::Result<End> {
    if args.npy && args.out.is_none() && io::stdout().is_terminal() {
        return Err(exit::usage(
            "--npy is no text for a terminal: name a file with --out FILE, or redirect stdout",
        ));
    }
    let encoder = encoder::open(&args.encoder)?;
    let prompted = encoder.prompted(&args.prompt.or(Prompt::Default))?;
    let lines;
    let texts: Vec<&str> = match &args.file {
        None if !args.texts.is_empty() => args.texts.iter().map(String::as_str).collect(),
        file => {
            lines = input::file(file.as_deref().unwrap_or(Path::new("-")))?;
            lines.lines().collect()
        }
    };
    interrupt::handle()?;
    let Some(path) = &args.out else {
        return write(args, &prompted, &texts, BufWriter::new(io::stdout().lock()));
    };
    let written = || format!("cannot write `{}`", path.display());
    let mut file = PendingFile::create(path).with_context(written)?;
    let end = write(args, &prompted, &texts, &mut file).with_context(written)?;
    if end == End::Finished {
        file.commit().with_context(written)?;
    }
    Ok(end)
}

/// Embeds `texts` and writes the embeddings to `out`.
fn write(
    args: &EmbedArgs,
    encoder: &Prompted<'_>,
    texts: &[&str],
    mut out: impl Write,
) -> anyhow::Result<End> {
    if args.npy {
        npy::write_header(&mut out, texts.len(), encoder.dimension())?;
        let end = encoder::embed(encoder, texts, |_, embedding| {
            Ok(embedding.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?)
        })?;
        out.flush()?;
        return Ok(end);
    }
    let end = encoder::embed(encoder, texts, |i, embedding| {
        if args.json {
            let line = Line { text: texts[i], embedding: &embedding };
            serde_json::to_writer(&mut out, &line).map_err(io::Error::from)?;
        } else {
            for (i, value) in embedding.iter().enumerate() {
                write!(out, "{}{value}", if i == 0 { "" } else { " " })?;
            }
        }
        Ok(writeln!(out)?)
    })?;
    out.flush()?;
    Ok(end)
}
