//! `sparse calibrate`.

mod encoder;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use sparse_calibrate::{
    Candidate, Chosen, ChosenLanes, Error, HeadCalibration, HeadReport, LaneCandidate, LayerReport, Options,
    Speed, calibrate, calibrate_lanes, drawn_evenly, sampled,
};
use sparse_gguf::Gguf;
use sparse_model::Model;
use sparse_model::sidecar::MeasuredLoss;
use sparse_model::tokenizer::{EncodeOptions, Tokenizer};

use crate::args::{CalibrateArgs, Part};
use crate::exit::End;
use crate::load::Source;
use crate::output::percent;
use crate::progress::Bar;
use crate::{exit, input, interrupt, output};

/// Seed of the text that the model makes up.
const SEED: u64 = 1;
/// Largest increase of perplexity if nothing else is said.
const MAX_LOSS: f64 = 0.01;
/// Tokens of made-up text that the result is measured on, at most: each costs a decoding step.
const SAMPLED_TEST: usize = 16_384;

#[derive(Serialize)]
struct Report<'a> {
    verdict: String,
    sidecar: &'a Path,
    /// Nothing if predictors were chosen by recall.
    max_loss: Option<f64>,
    candidates: &'a [Candidate],
    chosen: Option<&'a Chosen>,
    head: Option<&'a HeadCalibration>,
}

#[derive(Serialize)]
struct LaneReport<'a> {
    verdict: String,
    sidecar: &'a Path,
    max_loss: f64,
    candidates: &'a [LaneCandidate],
    chosen: Option<&'a ChosenLanes>,
}

pub(crate) fn run(args: &CalibrateArgs) -> anyhow::Result<End> {
    if let Some(model) = args.model.model.as_deref().filter(|path| encoder::is_encoder(path)) {
        return encoder::run(args, model);
    }
    let lanes_alone = args.only == Some(Part::Lanes);
    if lanes_alone {
        exit::refuse("--only lanes", &[("--keep", args.keep), ("--recall", args.recall.is_some())])?;
    }
    let source = Source::new(args.model.model.as_deref())?;
    let gguf = source.weights(|_| false)?;
    let out = match &args.out {
        Some(out) => output::writable(out).map(|()| out.clone())?,
        None => source.sidecar_place()?,
    };
    interrupt::handle()?;
    let mut bar = Bar::default();
    let options = Options {
        max_loss: args.max_loss.unwrap_or(MAX_LOSS),
        recall: args.recall,
        window: args.ctx,
        tune_tokens: args.tune_tokens,
        test_tokens: args.test_tokens,
        ranks: args.ranks.iter().copied().map(NonZeroUsize::get).collect(),
        threads: args.compute.threads(),
        keep: args.keep,
        fit_tokens: args.fit_tokens,
        ffn: args.only != Some(Part::Head),
        head: args.only != Some(Part::Ffn),
        continuations: args.continuations,
    };
    if lanes_alone {
        return lanes(args, source, &gguf, &out, &options);
    }
    // What is not looked at stays as it was.
    let before = if args.only.is_some() { source.sidecar()? } else { None };
    let lanes_end = options.ffn && before.as_ref().is_some_and(|before| before.lanes.is_some());
    let result = texts(args, &gguf, &options, &mut bar)
        .and_then(|(text, test)| Ok(calibrate(&gguf, before, &text, test.as_deref(), &options, &mut bar)?));
    bar.finish();
    let calibration = match result {
        Err(e) if matches!(e.downcast_ref(), Some(Error::Interrupted)) => return Ok(End::Interrupted),
        other => other.with_context(|| format!("cannot calibrate {source}"))?,
    };
    calibration.sidecar.save(&out).with_context(|| format!("cannot write `{}`", out.display()))?;
    let report = Report {
        verdict: calibration.verdict(),
        sidecar: &out,
        max_loss: args.recall.is_none().then_some(options.max_loss),
        candidates: &calibration.candidates,
        chosen: calibration.chosen.as_ref(),
        head: calibration.head.as_ref(),
    };
    match args.json {
        true => output::json(&report)?,
        false => print(&report)?,
    }
    if lanes_end {
        eprintln!(
            "the lanes that the sidecar had were chosen beside other selectors and are gone: choose them anew with --only lanes"
        );
    }
    Ok(End::Finished)
}

/// Chooses lanes for the neurons.
fn lanes(
    args: &CalibrateArgs,
    source: Source<'_>,
    gguf: &Gguf,
    out: &Path,
    options: &Options,
) -> anyhow::Result<End> {
    let mut bar = Bar::default();
    let before = source.sidecar()?;
    let result = texts(args, gguf, options, &mut bar).and_then(|(text, test)| {
        Ok(calibrate_lanes(gguf, before, &text, test.as_deref(), options, &mut bar)?)
    });
    bar.finish();
    let found = match result {
        Err(e) if matches!(e.downcast_ref(), Some(Error::Interrupted)) => return Ok(End::Interrupted),
        other => other.with_context(|| format!("cannot calibrate {source}"))?,
    };
    found.sidecar.save(out).with_context(|| format!("cannot write `{}`", out.display()))?;
    let report = LaneReport {
        verdict: found.verdict(),
        sidecar: out,
        max_loss: options.max_loss,
        candidates: &found.candidates,
        chosen: found.chosen.as_ref().ok(),
    };
    match args.json {
        true => output::json(&report)?,
        false => print_lanes(&report)?,
    }
    Ok(End::Finished)
}

fn print_lanes(report: &LaneReport<'_>) -> anyhow::Result<()> {
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
    writeln!(out, "{}\nwritten to {}", report.verdict, report.sidecar.display())?;
    Ok(())
}

/// The tokens to calibrate on, and those to measure on if they are other ones.
fn texts(
    args: &CalibrateArgs,
    gguf: &Gguf,
    options: &Options,
    bar: &mut Bar,
) -> anyhow::Result<(Vec<u32>, Option<Vec<u32>>)> {
    let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
    let tokens = |file: &Path| -> anyhow::Result<Vec<u32>> {
        let text = input::file(file)?;
        Ok(tokenizer.encode(&text, EncodeOptions { add_special: false, parse_special: true })?)
    };
    if let Some(file) = &args.text {
        return Ok((tokens(file)?, args.test.as_deref().map(tokens).transpose()?));
    }
    let test = options.test_tokens.min(SAMPLED_TEST);
    let length = options.fit_tokens + options.tune_tokens + test;
    if options.recall.is_some() {
        return Ok((drawn_evenly(&tokenizer, length, SEED), None));
    }
    let model = Arc::new(Model::from_gguf(gguf, options.threads)?);
    Ok((sampled(&model, length, options.window, SEED, bar)?, None))
}

fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if !report.candidates.is_empty() {
        print_ffn(&mut out, report)?;
    }
    if let Some(head) = report.head {
        print_head(&mut out, head)?;
    }
    writeln!(out, "{}\nwritten to {}", report.verdict, report.sidecar.display())?;
    Ok(())
}

/// The screens of the head.
fn print_head(out: &mut impl Write, head: &HeadCalibration) -> anyhow::Result<()> {
    screens(out, &head.candidates)?;
    if let Some(speed) = &head.speed {
        print_speed(out, "whole head", "screened", speed)?;
    }
    if let Some(c) = &head.continuations {
        writeln!(out, "{} of {} greedy continuations of {} tokens are the same.", c.same, c.texts, c.tokens)?;
    }
    writeln!(out)?;
    Ok(())
}

/// A table of screens.
pub(super) fn screens(out: &mut impl Write, screens: &[HeadReport]) -> anyhow::Result<()> {
    let header = [
        "SCREEN",
        ">MARGINS",
        ">SAME TOP",
        ">MISSED MASS",
        ">BYTES",
        "",
        ">ROWS",
        ">WHOLE",
        ">TOP-P: BYTES",
        ">ROWS",
        ">WHOLE",
    ];
    let rows = screens.iter().map(|s| {
        [
            s.name.clone(),
            format!("{:.2} {:.2}", s.margin_best, s.margin_mass),
            format!("{:.3} %", 100.0 * s.agreement),
            format!("{:.3} %", 100.0 * s.missed_mass),
            percent(s.best.bytes),
            format!("(scan {})", percent(s.screen_share)),
            format!("{:.0}", s.best.rows),
            format!("{:.2} %", 100.0 * s.best.fallbacks),
            percent(s.mass.bytes),
            format!("{:.0}", s.mass.rows),
            format!("{:.2} %", 100.0 * s.mass.fallbacks),
        ]
    });
    writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
    let tokens = screens.first().map_or(0, |s| s.tokens);
    writeln!(out, "{tokens} tokens that nothing was fitted to; bytes are shares of the head's.")?;
    Ok(())
}

/// A layer of the chosen configuration: number, selector, densities of `up` and `down`, recall, kept energy, bytes.
fn layer(l: &LayerReport) -> [String; 8] {
    [
        l.layer.to_string(),
        l.selector.to_owned(),
        percent(l.up_density),
        percent(l.down_density),
        percent(l.recall),
        percent(l.kept_energy),
        format!("{:.1}", l.bytes / 1e3),
        percent(l.bytes / l.dense_bytes as f64),
    ]
}

/// What was tried for the feed-forward layers.
fn print_ffn(out: &mut impl Write, report: &Report<'_>) -> anyhow::Result<()> {
    let header = ["TRIED", ">LOSS", ">AT MOST", ">OF DENSE BYTES", ">OF DENSE TIME"];
    let rows = report.candidates.iter().map(|c| {
        let loss = |f: &dyn Fn(&sparse_calibrate::Loss) -> f64| {
            c.loss.as_ref().map_or_else(|| "-".into(), |l| format!("{:.2} %", 100.0 * f(l)))
        };
        if c.loss.is_none() && c.name != "dense" {
            let over = report.max_loss.map_or_else(|| "-".into(), |most| format!("over {}", percent(most)));
            return [c.name.clone(), over, "-".into(), "-".into(), "-".into()];
        }
        [
            c.name.clone(),
            loss(&sparse_calibrate::Loss::increase),
            loss(&sparse_calibrate::Loss::upper),
            percent(c.bytes_share),
            percent(c.time_share),
        ]
    });
    writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
    if let Some(chosen) = report.chosen {
        let header = [
            "LAYER",
            "SELECTOR",
            ">GATE",
            ">UP",
            ">DOWN",
            ">RECALL",
            ">KEPT ENERGY",
            ">KL",
            ">KB/TOKEN",
            ">OF DENSE",
        ];
        let rows = chosen.layers.iter().map(|l| {
            let [layer, selector, rest @ ..] = layer(l);
            let [up, down, recall, energy, bytes, share] = rest;
            let kl = l.kl.map_or_else(|| "-".into(), |kl| format!("{kl:.5}"));
            [layer, selector, percent(l.gate_density), up, down, recall, energy, kl, bytes, share]
        });
        writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
        print_loss(out, &chosen.loss)?;
        print_speed(out, "dense", "sparse", &chosen.speed)?;
    }
    writeln!(out)?;
    Ok(())
}

fn print_loss(out: &mut impl Write, loss: &MeasuredLoss) -> io::Result<()> {
    writeln!(
        out,
        "On {} tokens that nothing was fitted to: perplexity {:+.2} % ± {:.2} %, KL {:.4}, same top token {:.1} %.",
        loss.tokens,
        100.0 * loss.perplexity_increase,
        100.0 * loss.standard_error,
        loss.kl,
        100.0 * loss.top1
    )
}

/// `before` and `after` say what was timed by turns.
fn print_speed(out: &mut impl Write, before: &str, after: &str, speed: &Speed) -> io::Result<()> {
    writeln!(
        out,
        "Decoding with {} threads: {before} {:.1} tokens/s, {after} {:.1}, ratio {:.2} ({:.2}..{:.2}).",
        speed.threads,
        speed.dense_tokens_per_s,
        speed.sparse_tokens_per_s,
        speed.gain,
        speed.lowest_gain,
        speed.highest_gain
    )
}
