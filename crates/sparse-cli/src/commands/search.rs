//! `sparse search`.

use std::io::{self, Write};

use serde::Serialize;

use crate::args::SearchArgs;
use crate::exit::End;
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
    let docs = input::file(&args.docs)?;
    let (lines, texts): (Vec<usize>, Vec<&str>) =
        (1..).zip(docs.lines()).filter(|(_, text)| !text.trim().is_empty()).unzip();
    interrupt::handle()?;
    let query = encoder.embed(&args.query)?;
    let mut hits = Vec::with_capacity(texts.len());
    let end = encoder::embed(&encoder, &texts, |i, embedding| {
        let cosine = encoder::cosine(&encoder, &query, &embedding);
        hits.push(Hit { cosine, line: lines[i], text: texts[i] });
        Ok(())
    })?;
    if end == End::Interrupted {
        return Ok(end);
    }
    hits.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
    hits.truncate(args.top.get());
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
