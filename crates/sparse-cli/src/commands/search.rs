//! `sparse search`.

use std::io::{self, Write};

use serde::Serialize;
use sparse_model::{Encoder, Prompt, Prompted};
use sparse_precision::{LaneIndex, Nearest};

use crate::args::SearchArgs;
use crate::exit::End;
use crate::index::Index;
use crate::{encoder, input, interrupt, output};

#[derive(Serialize)]
struct Hit<'a> {
    cosine: f32,
    /// Counted from 1.
    line: usize,
    text: &'a str,
}

pub(crate) fn run(args: &SearchArgs) -> anyhow::Result<End> {
    let encoder = encoder::open(&args.encoder)?;
    let queries = encoder.prompted(&args.prompt.or(Prompt::Query))?;
    let documents = encoder.prompted(&args.document_prompt())?;
    let docs = input::file(&args.docs)?;
    let (lines, texts): (Vec<usize>, Vec<&str>) =
        (1..).zip(docs.lines()).filter(|(_, text)| !text.trim().is_empty()).unzip();
    interrupt::handle()?;
    let query = queries.embed(&args.query)?;
    let (embeddings, end) = embeddings(args, &encoder, &documents, &texts)?;
    if end == End::Interrupted {
        return Ok(end);
    }
    let mut index = LaneIndex::new(args.lane, encoder.dimension())?;
    embeddings.iter().try_for_each(|embedding| index.push(embedding))?;
    let nearest = index.nearest(encoder.compute().kernels, &query, args.top.get())?;
    let hit = |n: Nearest| Hit { cosine: n.cosine, line: lines[n.index], text: texts[n.index] };
    let hits: Vec<Hit<'_>> = nearest.into_iter().map(hit).collect();
    if args.json {
        output::json(&hits)?;
    } else {
        let rows = hits.iter().map(|hit| {
            let text = output::for_terminal(hit.text).into_owned();
            [format!("{:.4}", hit.cosine), hit.line.to_string(), text]
        });
        writeln!(io::stdout().lock(), "{}", output::table([">COSINE", ">LINE", "TEXT"], rows).trim_fmt())?;
    }
    Ok(end)
}

/// The embeddings of `texts`, from the index as far as it has them. What it lacks is added to it, also if Ctrl-C ends the
/// work before all are known; then only some are returned.
fn embeddings(
    args: &SearchArgs,
    encoder: &Encoder,
    documents: &Prompted<'_>,
    texts: &[&str],
) -> anyhow::Result<(Vec<Vec<f32>>, End)> {
    let Some(path) = &args.index else { return embed_all(documents, texts) };
    // A NUL cannot be in the space's name, so that the two cannot run into each other.
    let space = format!("{}\0{}", encoder.embedding_space()?, documents.text());
    let index = Index::open(path, &space, encoder.dimension())?;
    let missing: Vec<&str> = texts.iter().copied().filter(|text| index.get(text).is_none()).collect();
    tracing::info!(known = texts.len() - missing.len(), embedded = missing.len(), "documents of the index");
    let pending = (!index.holds_exactly(texts)).then(|| index.start()).transpose()?;
    let (computed, end) = embed_all(documents, &missing)?;
    let mut computed = computed.into_iter();
    let mut all = Vec::new();
    for text in texts {
        match index.get(text) {
            Some(known) => all.push((*text, known.to_vec())),
            None => all.extend(computed.next().map(|embedding| (*text, embedding))),
        }
    }
    if let Some(file) = pending {
        let documents: Vec<(&str, &[f32])> = all.iter().map(|(text, e)| (*text, e.as_slice())).collect();
        index.write(file, &documents)?;
    }
    Ok((all.into_iter().map(|(_, embedding)| embedding).collect(), end))
}

/// The embeddings of `texts`, or of the first of them if Ctrl-C ends the work.
fn embed_all(documents: &Prompted<'_>, texts: &[&str]) -> anyhow::Result<(Vec<Vec<f32>>, End)> {
    let mut computed = Vec::new();
    let end = encoder::embed(documents, texts, |_, embedding| {
        computed.push(embedding);
        Ok(())
    })?;
    Ok((computed, end))
}
