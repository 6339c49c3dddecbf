//! `sparse calibrate --only lanes`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use sparse_calibrate::{ChosenLanes, Error, LaneCandidate, Options, Text, calibrate_lanes};
use sparse_gguf::Gguf;

use super::tables::{print_loss, print_speed};
use crate::args::CalibrateArgs;
use crate::exit::End;
use crate::load::Source;
use crate::output;
use crate::progress::Bar;

#[derive(Serialize)]
struct Report<'a> {
    verdict: String,
    sidecar: &'a Path,
    max_loss: f64,
    candidates: &'a [LaneCandidate],
    chosen: Option<&'a ChosenLanes>,
}

/// Chooses lanes for the neurons.
pub(super) fn run(
    args: &CalibrateArgs,
    source: Source<'_>,
    gguf: &Gguf,
    out: &Path,
    text: Text<'_>,
    options: &Options,
) -> anyhow::Result<End> {
    let before = source.sidecar()?;
    let mut bar = Bar::lines();
    let result = calibrate_lanes(gguf, before, text, options, &mut bar);
    bar.finish();
    let found = match result {
        Err(Error::Interrupted) => return Ok(super::interrupted(&bar, out)),
        other => other.with_context(|| format!("cannot calibrate {source}"))?,
    };
    let report = Report {
        verdict: found.verdict(),
        sidecar: out,
        max_loss: options.max_loss,
        candidates: &found.candidates,
        chosen: found.chosen.as_ref().ok(),
    };
    let saved = found.sidecar.save(out).with_context(|| format!("cannot write `{}`", out.display()));
    match args.json {
        true => output::json(&report)?,
        false => print(&report)?,
    }
    saved?;
    let loss = found.chosen.iter().map(|chosen| &chosen.loss);
    loss.flat_map(|loss| loss.concerns()).for_each(|concern| output::warn(&concern));
    if !args.json {
        println!("written to {}\n{}", out.display(), super::command(args, out));
    }
    Ok(End::Finished)
}

fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let header = ["NEURONS", ">LOSS", ">AT MOST", ">FFN BYTES", ">BITS"];
    let rows = report.candidates.iter().map(|c| {
        [
            c.name.clone(),
            format!("{:.2} %", 100.0 * c.loss.increase()),
            format!("{:.2} %", 100.0 * c.loss.upper()),
            format!("{:.1} KB", c.bytes as f64 / 1e3),
            format!("{:.2}", c.bits),
        ]
    });
    writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
    if let Some(chosen) = report.chosen {
        let header = ["LAYER", ">BIT7", ">BIT5", ">BIT3"];
        let rows = chosen.neurons.iter().enumerate().map(|(i, [bit7, bit5, bit3])| {
            [i.to_string(), bit7.to_string(), bit5.to_string(), bit3.to_string()]
        });
        writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
        print_loss(&mut out, &chosen.loss)?;
        writeln!(
            out,
            "Feed-forward weights: {:.1} KB, {:.1} KB in the file; a token reads {:.1} KB.",
            chosen.bytes as f64 / 1e3,
            chosen.file_bytes as f64 / 1e3,
            chosen.bytes_per_token / 1e3
        )?;
        print_speed(&mut out, "as in the file", "in lanes", &chosen.speed)?;
        writeln!(out)?;
    }
    writeln!(out, "{}", report.verdict)?;
    Ok(())
}
