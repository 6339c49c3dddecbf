//! `sparse inspect`.

mod summary;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use console::style;
use indicatif::{DecimalBytes, HumanCount};
use serde_json::json;
use sparse_gguf::{Gguf, GgufWriter, TensorInfo, Value};
use sparse_model::{ActivationScore, check_activation};
use sparse_simd::{Kernels, Level};

use crate::args::{ActivationArgs, ComputeArgs, InspectArgs, find};
use crate::exit::{self, End};
use crate::load::Source;
use crate::output;
use summary::{Group, Summary};

/// Standard errors from which on the second activation is worse by more than chance: the one-sided
/// level of 1 %.
const CLEAR: f64 = 2.33;
/// Longest text of a value in the metadata list.
const MAX_VALUE: usize = 100;
/// Items of longer arrays that JSON shows.
const MAX_ITEMS: usize = 16;

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<End> {
    if args.cpu {
        cpu(args.json)?;
    } else {
        let usual = std::env::var_os("SPARSE_MODEL").map(|name| find(PathBuf::from(name)));
        let usual = usual.transpose().map_err(exit::usage)?;
        file(args, Source::new(args.file.as_deref().or(usual.as_deref()))?)?;
    }
    Ok(End::Finished)
}

fn file(args: &InspectArgs, source: Source<'_>) -> anyhow::Result<()> {
    let mut gguf = source.gguf()?;
    if let (Some(_), Some(out)) = (args.set_activation, &args.out) {
        ActivationArgs { activation: args.set_activation }.set(&mut gguf)?;
        return copy(&gguf, out).with_context(|| format!("cannot write `{}`", out.display()));
    }
    if args.check_activation {
        return activations(args, source, &gguf);
    }
    if args.json {
        return file_as_json(&gguf);
    }
    let mut out = io::stdout().lock();
    if args.metadata {
        let rows = gguf
            .metadata()
            .iter()
            .map(|(key, value)| [key.escape_debug().to_string(), value.type_name(), short(value)]);
        writeln!(out, "{}", output::table(["KEY", "TYPE", "VALUE"], rows).trim_fmt())?;
    }
    if args.tensors {
        if args.metadata {
            writeln!(out)?;
        }
        let rows = gguf.tensors().map(|t| {
            [t.name.escape_debug().to_string(), t.ty.to_string(), shape(t), t.range().len().to_string()]
        });
        writeln!(out, "{}", output::table(["TENSOR", "TYPE", "SHAPE", ">BYTES"], rows).trim_fmt())?;
    }
    if !args.metadata && !args.tensors {
        print_summary(&mut out, source, &gguf)?;
    }
    Ok(())
}

/// Writes the file as it is in memory.
fn copy(gguf: &Gguf, out: &Path) -> anyhow::Result<()> {
    let mut writer = GgufWriter::like(gguf).create(out)?;
    for tensor in gguf.views() {
        writer.write(&tensor.info.name, tensor.data)?;
    }
    writer.finish()?;
    Ok(())
}

/// Which activation fits the weights best.
fn activations(args: &InspectArgs, source: Source<'_>, gguf: &Gguf) -> anyhow::Result<()> {
    let scores = check_activation(gguf, ComputeArgs::default().threads())
        .with_context(|| format!("cannot score {source}"))?;
    if args.json {
        let score = |s: &ActivationScore| {
            json!({
                "activation": s.activation.to_string(),
                "perplexity": s.perplexity.is_finite().then_some(s.perplexity),
                "behind": s.behind.is_finite().then_some(s.behind),
            })
        };
        return output::json(&scores.iter().map(score).collect::<Vec<_>>());
    }
    let rows = scores
        .iter()
        .map(|s| [s.activation.to_string(), format!("{:.2}", s.perplexity), format!("{:.1}", s.behind)]);
    let mut out = io::stdout().lock();
    writeln!(out, "{}", output::table(["ACTIVATION", ">PERPLEXITY", ">BEHIND"], rows).trim_fmt())?;
    let [best, second, ..] = &scores[..] else { return Ok(()) };
    if second.behind < CLEAR {
        writeln!(out, "\nNo activation is clearly the best: this says nothing.")?;
    } else {
        writeln!(out, "\nThe weights were trained with {0}: --activation {0}", best.activation)?;
    }
    Ok(())
}

fn print_summary(out: &mut impl Write, source: Source<'_>, gguf: &Gguf) -> io::Result<()> {
    let s = Summary::new(gguf);
    let file_name = source.file_name();
    let title = s.name.as_deref().unwrap_or(&file_name);
    writeln!(out, "{}", style(title.escape_debug()).bold())?;
    let architecture = s.architecture.as_deref().unwrap_or("of no named architecture");
    let bytes = DecimalBytes(s.file_bytes);
    let files = if s.files > 1 { format!(" in {} files", s.files) } else { String::new() };
    writeln!(out, "{}, GGUF version {}, {bytes}{files}\n", architecture.escape_debug(), s.gguf_version)?;
    for (label, value) in &s.facts {
        writeln!(out, "{label:<14} {value}")?;
    }
    let header = |what| [what, ">TENSORS", ">WEIGHTS", ">BYTES", ">BITS EACH", ">SHARE"];
    let row = |g: &Group| row(g, s.total.bytes);
    let parts = s.parts.iter().chain([&s.total]).map(row);
    writeln!(out, "\n{}", output::table(header("PART"), parts).trim_fmt())?;
    writeln!(out, "\n{}", output::table(header("TYPE"), s.types.iter().map(row)).trim_fmt())?;
    if s.tied_head == Some(true) {
        writeln!(out, "\nThe head is the embedding matrix (tied).")?;
    }
    if let Some(bytes) = s.bytes_per_token {
        writeln!(out, "Decoding a token reads {} of weights.", DecimalBytes(bytes))?;
    }
    Ok(())
}

fn row(g: &Group, total: u64) -> [String; 6] {
    [
        g.name.clone(),
        g.tensors.to_string(),
        HumanCount(g.weights).to_string(),
        DecimalBytes(g.bytes).to_string(),
        format!("{:.2}", g.bits_per_weight()),
        format!("{:.1} %", 100.0 * g.bytes as f64 / total.max(1) as f64),
    ]
}

fn file_as_json(gguf: &Gguf) -> anyhow::Result<()> {
    let tensor = |t: &TensorInfo| json!({"name": t.name, "type": t.ty.name(), "type_id": t.ty.id(), "shape": t.dims, "bytes": t.range().len()});
    let metadata = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value.to_json(MAX_ITEMS)));
    output::json(&json!({
        "summary": Summary::new(gguf),
        "metadata": metadata.collect::<serde_json::Map<_, _>>(),
        "tensors": gguf.tensors().map(tensor).collect::<Vec<_>>(),
    }))
}

/// The value on one line, cut when it is long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn shape(tensor: &TensorInfo) -> String {
    let dims: Vec<String> = tensor.dims.iter().map(usize::to_string).collect();
    dims.join(" x ")
}

fn cpu(as_json: bool) -> anyhow::Result<()> {
    let level = Kernels::try_get()?.level();
    let available: Vec<&str> = Level::available().map(Level::name).collect();
    let forced = std::env::var("SPARSE_SIMD").ok().filter(|v| !v.is_empty());
    let threads = ComputeArgs::default().threads();
    if as_json {
        return output::json(&json!({
            "level": level.name(), "available": available, "SPARSE_SIMD": forced, "threads": threads,
        }));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "level        {level}")?;
    writeln!(out, "available    {}", available.join(", "))?;
    writeln!(out, "SPARSE_SIMD  {}", forced.as_deref().unwrap_or("not set"))?;
    writeln!(out, "threads      {threads}")?;
    Ok(())
}
