//! `sparse search`.

use std::io::{self, Write};

use serde::Serialize;
use sparse_precision::{LaneIndex, Nearest};

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
    let mut index = LaneIndex::new(args.lane, encoder.dimension())?;
    let end = encoder::embed(&encoder, &texts, |_, embedding| Ok(index.push(&embedding)?))?;
    if end == End::Interrupted {
        return Ok(end);
    }
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
