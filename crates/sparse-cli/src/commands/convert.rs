//! `sparse convert`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sparse_core::Selector;
use sparse_gguf::{Gguf, ResumableFile};
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{Error, HeadMode, Model, ModelOptions, Placement, RecordFile, Session, write_records};

use crate::args::{ConvertArgs, Sparse, SparseArgs};
use crate::exit::End;
use crate::load::Source;
use crate::{exit, input, interrupt, load, output};

/// Tokens that neurons are watched for, and how many belong together.
const TOKENS: usize = 1024;
const WINDOW: usize = 128;

#[derive(Serialize)]
struct Report<'a> {
    model: &'a Path,
    out: &'a Path,
    bytes: u64,
    /// Bytes that an interrupted run had written.
    resumed_bytes: u64,
    layers: usize,
    /// What says which neurons are hot: `sidecar` or `text`.
    heat: Option<&'static str>,
    seconds: f64,
}

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<End> {
    let Some(path) = args.model.model.as_deref() else {
        return Err(exit::usage(
            "name the model's file with --model: the story model is inside this program",
        ));
    };
    interrupt::handle()?;
    let start = Instant::now();
    // Its tensors are read once, from the map.
    let mut gguf = Gguf::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    args.activation.set(&mut gguf)?;
    let model = Model::from_gguf_with(&gguf, &ModelOptions::new(args.compute.threads()))
        .with_context(|| format!("cannot use `{}`", path.display()))?;
    let (heat, source) = match (Source::File(path).sidecar()?.and_then(|sidecar| sidecar.heat), &args.text) {
        (_, Some(text)) => match measured(args, path, text)? {
            Some(heat) => (Some(heat), Some("text")),
            None => return Ok(End::Interrupted),
        },
        (Some(heat), None) => (Some(heat), Some("sidecar")),
        (None, None) => (None, None),
    };
    let (out, bar) = (RecordFile::beside(path), bar());
    let written = write(&model, heat.as_deref(), &out, args.restart, &bar);
    bar.finish_and_clear();
    let resumed_bytes = match written {
        Err(_) if interrupt::requested() => {
            let unfinished = ResumableFile::unfinished(&out);
            eprintln!("`{}` is not finished: the same command continues it", unfinished.display());
            return Ok(End::Interrupted);
        }
        other => other.with_context(|| format!("cannot write `{}`", out.display()))?,
    };
    let report = Report {
        model: path,
        bytes: out.metadata()?.len(),
        resumed_bytes,
        layers: model.config().layers.len(),
        heat: source,
        seconds: start.elapsed().as_secs_f64(),
        out: &out,
    };
    match args.json {
        true => output::json(&report)?,
        false => print(&report)?,
    }
    Ok(End::Finished)
}

fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let hot = match report.heat {
        Some(source) => format!("the hottest first, as the {source} has it"),
        None => "in the model's order: nothing says which are hot (--text FILE would)".to_owned(),
    };
    let continued = match report.resumed_bytes {
        0 => String::new(),
        bytes => format!("; an earlier run had written {:.1} MB of it", bytes as f64 / 1e6),
    };
    writeln!(
        io::stdout(),
        "wrote `{}`: {:.1} MB, the neurons of {} layers, {hot}{continued}",
        report.out.display(),
        report.bytes as f64 / 1e6,
        report.layers
    )?;
    Ok(())
}

/// How far writing is, on stderr if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    // The template is a constant without faults; an unstyled bar would do as well.
    if let Ok(style) = ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar:.dim} {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Writes the records to `out`, and returns how many bytes of them an interrupted run had written. After an error that
/// another run would meet again, nothing is left.
fn write(
    model: &Model,
    heat: Option<&[Vec<f32>]>,
    out: &Path,
    restart: bool,
    bar: &ProgressBar,
) -> Result<u64, Error> {
    let mut progress = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        match interrupt::requested() {
            true => Err(Error::Io(io::ErrorKind::Interrupted.into())),
            false => Ok(()),
        }
    };
    if restart {
        ResumableFile::discard(out).map_err(Error::Io)?;
    }
    let file = ResumableFile::open(out).map_err(Error::Io)?;
    let written = write_records(model, heat, file, &mut progress);
    if written.is_err() && !interrupt::requested() {
        // The error that led here is the one to report.
        let _ = ResumableFile::discard(out);
    }
    written
}

/// Share of the tokens of `text` that used each neuron, layer by layer; `None` after Ctrl-C.
fn measured(args: &ConvertArgs, path: &Path, text: &Path) -> anyhow::Result<Option<Vec<Vec<f32>>>> {
    let text = input::file(text)?;
    let sidecar = Source::File(path).sidecar()?.is_some();
    let choice = |sparse| SparseArgs {
        sparse,
        head: HeadMode::Dense,
        brief: true,
        activation: args.activation,
        ..SparseArgs::default()
    };
    let load = |sparse| load::model(Some(path), &choice(sparse), &args.compute, Placement::AsCalibrated);
    let model = match sidecar {
        true => load(Some(Sparse::Sidecar))?.model,
        false => match load(Some(Sparse::ExactZero)) {
            Ok(loaded) => loaded.model,
            Err(error) => {
                return Err(error.context("no neuron of this model is left out: calibrate it first"));
            }
        },
    };
    let skips = model.ffns().all(|ffn| !matches!(ffn.selector(), Selector::Dense));
    ensure!(skips, "some layers of this model leave no neurons out: nothing is hot there");
    let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
    let tokens = model.tokenizer().encode(&text, options)?;
    ensure!(tokens.len() >= WINDOW, "{} tokens of text are too few: it takes {WINDOW}", tokens.len());
    Ok(heat(&model, &tokens[..tokens.len().min(TOKENS)])?)
}

fn heat(model: &Arc<Model>, tokens: &[u32]) -> Result<Option<Vec<Vec<f32>>>, Error> {
    let mut counts: Vec<Vec<f32>> = model.feed_forwards().map(|ffn| vec![0.0; ffn.neurons()]).collect();
    let mut session = Session::new(model, WINDOW)?;
    session.keep_neurons(true);
    for window in tokens.chunks(WINDOW) {
        session.clear();
        for token in window {
            session.forward(&[*token])?;
            for (counts, values) in counts.iter_mut().zip(session.neurons()) {
                counts.iter_mut().zip(values).for_each(|(count, h)| *count += f32::from(u8::from(*h != 0.0)));
            }
            if interrupt::requested() {
                return Ok(None);
            }
        }
    }
    counts.iter_mut().flatten().for_each(|count| *count /= tokens.len() as f32);
    Ok(Some(counts))
}
