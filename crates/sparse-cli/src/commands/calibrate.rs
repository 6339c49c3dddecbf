//! `sparse calibrate`.

mod encoder;
mod lanes;
mod tables;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use sparse_calibrate::{Calibration, Candidate, Chosen, Error, HeadCalibration, Options, Text, calibrate};
use sparse_core::Selector;
use sparse_gguf::Gguf;
use sparse_model::tokenizer::{EncodeOptions, Tokenizer};

use crate::args::{CalibrateArgs, Part};
use crate::exit::End;
use crate::load::Source;
use crate::progress::Bar;
use crate::{exit, input, interrupt, output};

pub(super) use tables::screens;

/// Bytes of text that have a token, at most, on the average.
const BYTES: usize = 16;

#[derive(Serialize)]
struct Report<'a> {
    verdict: String,
    sidecar: &'a Path,
    /// Nothing if predictors were chosen by recall.
    max_loss: Option<f64>,
    concerns: &'a [String],
    candidates: &'a [Candidate],
    chosen: Option<&'a Chosen>,
    head: Option<&'a HeadCalibration>,
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
    let out = place(args, || source.sidecar_place())?;
    let mut gguf = source.weights(None, |_| false)?;
    args.activation.set(&mut gguf)?;
    interrupt::handle()?;
    let defaults = Options::default();
    let options = Options {
        max_loss: args.max_loss.unwrap_or(defaults.max_loss),
        recall: args.recall,
        window: args.ctx,
        tune_tokens: args.tune_tokens,
        test_tokens: args.test_tokens,
        ranks: args.ranks.iter().copied().map(NonZeroUsize::get).collect(),
        threads: args.compute.threads(),
        time: args.minutes,
        keep: args.keep,
        fit_tokens: args.fit_tokens,
        ffn: args.only != Some(Part::Head),
        head: args.only != Some(Part::Ffn),
        continuations: args.continuations,
        ..defaults
    };
    let texts = Texts::read(args, &gguf, &options)?;
    if lanes_alone {
        return lanes::run(args, source, &gguf, &out, texts.text(args), &options);
    }
    // What is not looked at stays as it was.
    let before = if args.only.is_some() { source.sidecar()? } else { None };
    let lanes_end = options.ffn && before.as_ref().is_some_and(|before| before.lanes.is_some());
    let mut bar = Bar::lines();
    let result = calibrate(&gguf, before, texts.text(args), &options, &mut bar);
    bar.finish();
    let calibration = match result {
        Err(Error::Interrupted) => return Ok(interrupted(&bar, &out)),
        other => other.with_context(|| format!("cannot calibrate {source}"))?,
    };
    let report = Report {
        verdict: calibration.verdict(),
        sidecar: &out,
        max_loss: args.recall.is_none().then_some(options.max_loss),
        concerns: &calibration.concerns,
        candidates: &calibration.candidates,
        chosen: calibration.chosen.as_ref(),
        head: calibration.head.as_ref(),
    };
    let saved = calibration.sidecar.save(&out).with_context(|| format!("cannot write `{}`", out.display()));
    // The result of minutes is shown even if it cannot be kept.
    match args.json {
        true => output::json(&report)?,
        false => tables::print(&report)?,
    }
    saved?;
    calibration.concerns.iter().for_each(|concern| output::warn(concern));
    if lanes_end {
        output::warn(
            "the lanes that the sidecar had were chosen beside other selectors and are gone: choose them anew with --only lanes",
        );
    }
    if !args.json {
        println!("written to {}\n{}", out.display(), usage(args, &out, &calibration));
    }
    Ok(End::Finished)
}

/// Where the sidecar goes; fails if nothing can be written there, or if it is what is read.
fn place(args: &CalibrateArgs, usual: impl FnOnce() -> anyhow::Result<PathBuf>) -> anyhow::Result<PathBuf> {
    let Some(out) = &args.out else { return usual() };
    output::replaces_none(out, &[args.model.model.as_deref(), args.text.as_deref(), args.test.as_deref()])?;
    output::writable(out)?;
    Ok(out.clone())
}

/// Says what is kept of work that was interrupted.
fn interrupted(bar: &Bar, out: &Path) -> End {
    let kept = if out.exists() { "stays as it was" } else { "was not made" };
    let stage = if bar.stage().is_empty() { "the beginning" } else { bar.stage() };
    eprintln!("interrupted at \"{stage}\": nothing is kept, `{}` {kept}", out.display());
    End::Interrupted
}

/// How to use what was made.
fn usage(args: &CalibrateArgs, out: &Path, calibration: &Calibration) -> String {
    let sidecar = &calibration.sidecar;
    let dense = sidecar.selectors.iter().all(|s| matches!(s, Selector::Dense));
    if dense && sidecar.screen.is_none() && sidecar.lanes.is_none() {
        return "use the model as it is: nothing is left out".into();
    }
    command(args, out)
}

/// The command that uses the sidecar at `out`.
fn command(args: &CalibrateArgs, out: &Path) -> String {
    let model =
        args.model.model.as_deref().map_or_else(String::new, |model| format!(" -m {}", output::shell(model)));
    let sidecar = match &args.out {
        Some(_) => output::shell(out),
        None => "sidecar".into(),
    };
    format!("use it with: sparse generate{model} --sparse {sidecar} \"Once upon a time\"")
}

/// The tokens of the files to calibrate and to measure on.
struct Texts {
    text: Option<Vec<u32>>,
    test: Option<Vec<u32>>,
}

impl Texts {
    /// Reads the files, of long ones only as much as is looked at.
    fn read(args: &CalibrateArgs, gguf: &Gguf, options: &Options) -> anyhow::Result<Self> {
        let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
        let read = |file: &Option<PathBuf>, tokens: usize| -> anyhow::Result<Option<Vec<u32>>> {
            let Some(file) = file else { return Ok(None) };
            let mut text = input::file(file)?;
            let most = text.len().min(tokens.saturating_mul(BYTES));
            text.truncate((0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            Ok(Some(
                tokenizer
                    .encode(&text, EncodeOptions { add_bos: false, add_eos: false, parse_special: true })?,
            ))
        };
        let Options { fit_tokens, tune_tokens, test_tokens, .. } = *options;
        let all = [fit_tokens, tune_tokens, test_tokens].into_iter().fold(0, usize::saturating_add);
        Ok(Self { text: read(&args.text, all)?, test: read(&args.test, test_tokens)? })
    }

    fn text(&self, args: &CalibrateArgs) -> Text<'_> {
        match (&self.text, args.recall) {
            (Some(text), _) => Text::Given { text, test: self.test.as_deref() },
            (None, Some(_)) => Text::Even,
            (None, None) => Text::Own,
        }
    }
}
