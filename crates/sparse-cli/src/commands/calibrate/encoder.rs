//! `sparse calibrate` of a sentence encoder.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use sparse_calibrate::{
    EncoderCandidate, EncoderChosen, Error, SentenceOptions, TimeShare, calibrate_encoder,
};
use sparse_gguf::Gguf;

use super::tables::layer;
use crate::args::CalibrateArgs;
use crate::exit::{self, End};
use crate::output::{self, percent};
use crate::progress::Bar;
use crate::{input, interrupt, sidecars};

/// Largest loss if nothing else is said.
const MAX_LOSS: f64 = 0.03;

#[derive(Serialize)]
struct Report<'a> {
    verdict: String,
    sidecar: &'a Path,
    max_loss: f64,
    candidates: &'a [EncoderCandidate],
    chosen: Option<&'a EncoderChosen>,
}

/// Whether a path is that of an encoder: a folder, or a GGUF file of architecture `bert`.
pub(super) fn is_encoder(path: &Path) -> bool {
    let bert = |gguf: Gguf| matches!(gguf.metadata().string("general.architecture"), Ok("bert"));
    path.is_dir() || Gguf::open(path).is_ok_and(bert)
}

pub(super) fn run(args: &CalibrateArgs, model: &Path) -> anyhow::Result<End> {
    let given = [
        ("--only", args.only.is_some()),
        ("--test", args.test.is_some()),
        ("--recall", args.recall.is_some()),
        ("--keep", args.keep),
    ];
    exit::refuse("a sentence encoder", &given)?;
    let out = super::place(args, || sidecars::place(model))?;
    let text = args.text.as_deref().ok_or_else(|| {
        exit::usage(
            "an encoder cannot make up text itself: name a file of sentences, one per line, with --text FILE",
        )
    })?;
    let text = input::file(text)?;
    let sentences: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    interrupt::handle()?;
    let mut bar = Bar::lines();
    let options = SentenceOptions {
        max_loss: args.max_loss.unwrap_or(MAX_LOSS),
        ranks: args.ranks.iter().copied().map(NonZeroUsize::get).collect(),
        format: args.format,
        threads: args.compute.threads(),
        ..SentenceOptions::default()
    };
    let result = calibrate_encoder(model, &sentences, &options, &mut bar);
    bar.finish();
    let calibration = match result {
        Err(Error::Interrupted) => return Ok(super::interrupted(&bar, &out)),
        other => other.with_context(|| format!("cannot calibrate `{}`", model.display()))?,
    };
    let saved = calibration.sidecar.save(&out).with_context(|| format!("cannot write `{}`", out.display()));
    let report = Report {
        verdict: calibration.verdict(),
        sidecar: &out,
        max_loss: options.max_loss,
        candidates: &calibration.candidates,
        chosen: calibration.chosen.as_ref(),
    };
    match args.json {
        true => output::json(&report)?,
        false => print(&report)?,
    }
    saved?;
    if !args.json {
        let (model, file) = (output::shell(model), output::shell(&out));
        println!(
            "written to {}\nuse it with: sparse embed -m {model} --sparse {file} \"Some text\"",
            out.display()
        );
    }
    Ok(End::Finished)
}

fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let header = [
        "TRIED",
        ">LOSS AT MOST",
        ">UP",
        ">DOWN",
        ">OF DENSE BYTES",
        ">OF DENSE TIME AT 1",
        ">4",
        ">16",
        ">64",
        ">256",
    ];
    let rows = report.candidates.iter().map(|c| {
        let [one, four, more, many, most] = times(&c.times);
        let loss = match c.loss {
            Some(loss) => format!("{loss:.4}"),
            None => format!("over {:.4}", report.max_loss),
        };
        let [up, down, bytes] = [c.up_density, c.down_density, c.bytes_share].map(|share| match c.loss {
            Some(_) => percent(share),
            None => "-".into(),
        });
        [c.name.clone(), loss, up, down, bytes, one, four, more, many, most]
    });
    writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
    writeln!(out, "Time of the feed-forward layers for so many tokens computed together, one thread.\n")?;
    if let Some(chosen) = report.chosen {
        let header =
            ["LAYER", "SELECTOR", ">UP", ">DOWN", ">RECALL", ">KEPT ENERGY", ">KB/TOKEN", ">OF DENSE"];
        writeln!(out, "{}\n", output::table(header, chosen.layers.iter().map(layer)).trim_fmt())?;
        writeln!(
            out,
            "On {} sentences that nothing was fitted to: 1 - cosine to the dense embedding {:.4} ± {:.4}.\n",
            chosen.sentences, chosen.loss, chosen.standard_error
        )?;
    }
    writeln!(out, "{}", report.verdict)?;
    Ok(())
}

/// The shares of the five sizes; nothing if nothing was timed.
fn times(times: &[TimeShare]) -> [String; 5] {
    std::array::from_fn(|i| times.get(i).map_or_else(|| "-".into(), |time| format!("{:.2}", time.share)))
}
