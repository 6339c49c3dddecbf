//! Other engines on the same files, in turn with ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::report::Report;
use super::rounds::{self, PROMPT, Round, Spread, TOKENS};
use super::{Args, Peer};
use crate::program::{self, cargo};

/// What an engine may use: each is compared with its like.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Instructions {
    /// All that this CPU has.
    Native,
    /// AVX2 with FMA and F16C, without AVX-512 and VNNI.
    Avx2,
}

impl Instructions {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Avx2 => "avx2",
        }
    }

    /// The level that our program is told to use.
    fn level(self) -> Option<&'static str> {
        (self == Self::Avx2).then_some("avx2")
    }

    /// What llama.cpp is built with.
    fn cmake(self) -> &'static str {
        match self {
            Self::Native => "-DGGML_OPENMP=OFF",
            Self::Avx2 => {
                "-DGGML_OPENMP=OFF -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON \
                 -DGGML_BMI2=ON -DGGML_AVX512=OFF -DGGML_AVX_VNNI=OFF"
            }
        }
    }
}

/// One engine on one file with one instruction set and one thread count.
#[derive(Serialize)]
struct Row {
    model: String,
    instructions: Instructions,
    threads: usize,
    engine: &'static str,
    prefill_tokens_per_s: Spread,
    decode_tokens_per_s: Spread,
    first_token_ms: Spread,
    /// Ours over this one's, round by round.
    prefill_ratio: Spread,
    decode_ratio: Spread,
    first_token_ratio: Spread,
    /// Our decode only: GB/s of weights, and its share of what a plain loop reads.
    gb_per_s: Option<f64>,
    roofline: Option<f64>,
}

/// What candle gets of the prompt and of the tokens to decode: with some formats it takes minutes for all.
const CANDLE: (usize, usize) = (64, 16);

/// The peers' program, a workspace of its own that is built beside ours.
const PEERS: [&str; 6] =
    ["--quiet", "--release", "--manifest-path", "benches/peers/Cargo.toml", "--target-dir", "target/peers"];

pub(super) fn run(args: &Args, report: &mut Report) -> Result<()> {
    program::run(cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "sparse-cli",
        "--bin",
        "sparse",
    ]))?;
    let mut sets = Vec::new();
    for &set in &args.instructions {
        let python = match args.peers.contains(&Peer::LlamaCpp) {
            true => llama_cpp(args, set)?,
            false => PathBuf::new(),
        };
        sets.push((set, python));
    }
    // Peers in Rust take minutes to build.
    let rust = args.peers.contains(&Peer::Candle);
    if rust {
        program::run(cargo().arg("build").args(PEERS))?;
    }
    for (set, python) in &sets {
        let mut rows = Vec::new();
        for model in args.models()? {
            for &threads in &args.threads {
                rows.extend(compare(args, *set, python, &model, threads)?);
            }
        }
        table(args, *set, &rows, report)?;
    }
    if rust { kernels(report) } else { Ok(()) }
}

fn table(args: &Args, set: Instructions, rows: &[Row], report: &mut Report) -> Result<()> {
    report.table(
        &format!("peers, {}", set.name()),
        &format!(
            "A prompt of {PROMPT} tokens, {TOKENS} decoded after a prompt of 16; the first token after opening the file and \
             a prompt of 32. candle, which is slow, has a prompt of {} and decodes {}. {} rounds in turn, a new process \
             each; medians (least to greatest), ratios round by round.",
            CANDLE.0, CANDLE.1, args.rounds
        ),
        &[
            ("model", |r: &Row| r.model.clone()),
            ("threads", |r| r.threads.to_string()),
            ("engine", |r| r.engine.to_owned()),
            ("prefill tokens/s", |r| spread(r.prefill_tokens_per_s, 0)),
            ("decode tokens/s", |r| spread(r.decode_tokens_per_s, 1)),
            ("first token ms", |r| spread(r.first_token_ms, 0)),
            ("GB/s", |r| r.gb_per_s.map_or(String::new(), |x| format!("{x:.1}"))),
            ("of roofline", |r| r.roofline.map_or(String::new(), |x| format!("{:.0} %", 100.0 * x))),
            ("ours: prefill", |r| ratio(r, r.prefill_ratio)),
            ("decode", |r| ratio(r, r.decode_ratio)),
            ("first token", |r| ratio(r, r.first_token_ratio)),
        ],
        rows,
    )
}

/// A Python with llama.cpp built for `set`, which takes minutes the first time.
fn llama_cpp(args: &Args, set: Instructions) -> Result<PathBuf> {
    let folder = match set {
        Instructions::Native => crate::root().join(&args.venv),
        Instructions::Avx2 => crate::root().join(&args.venv).with_extension("avx2"),
    };
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        eprintln!("building llama.cpp ({}) into {}", set.name(), folder.display());
        program::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    // Says at once whether all is there.
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--requirement"]);
    pip.arg(crate::root().join("tools/reference/requirements.txt"));
    pip.env("CMAKE_ARGS", set.cmake());
    if cfg!(target_arch = "x86_64") {
        // Not every virtual machine lets a program use the tiles that its CPU shows.
        let flags = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";
        pip.env("CFLAGS", flags).env("CXXFLAGS", flags);
    }
    if set != Instructions::Native {
        // What pip has built before is for another instruction set.
        pip.arg("--no-cache-dir");
    }
    program::run(&mut pip)?;
    Ok(python)
}

fn compare(args: &Args, set: Instructions, python: &Path, model: &Path, threads: usize) -> Result<Vec<Row>> {
    let llama = |prompt: usize, tokens: usize, depth: usize| {
        let mut command = Command::new(python);
        command.arg(crate::root().join("tools/reference/llama_round.py")).arg(model);
        for (option, value) in
            [("--prompt", prompt), ("--tokens", tokens), ("--depth", depth), ("--threads", threads)]
        {
            command.arg(option).arg(value.to_string());
        }
        command
    };
    let candle = |prompt: usize, tokens: usize, depth: usize| {
        let mut command = peer("candle");
        let (prompt, tokens) = (prompt.min(CANDLE.0), tokens.min(CANDLE.1));
        command.arg(model).args([prompt, tokens, depth].map(|n| n.to_string()));
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command
    };
    // candle is built for one instruction set.
    let wanted = |peer| args.peers.contains(&peer) && (peer != Peer::Candle || set == Instructions::Native);
    // candle refuses some formats; that is found out once.
    let candle_runs =
        wanted(Peer::Candle) && rounds::peer(candle).map_err(|e| eprintln!("without candle: {e:#}")).is_ok();
    let mut found: [Vec<Round>; 3] = Default::default();
    for _ in 0..args.rounds.max(1) {
        found[0].push(rounds::ours(model, threads, set.level())?);
        if wanted(Peer::LlamaCpp) {
            found[1].push(rounds::peer(llama)?);
        }
        if candle_runs {
            found[2].push(rounds::peer(candle)?);
        }
    }
    let name = model.file_stem().unwrap_or(model.as_os_str()).to_string_lossy().into_owned();
    let ours = &found[0];
    let rows = ["ours", "llama.cpp", "candle"].into_iter().zip(&found).filter(|(_, r)| !r.is_empty());
    let row = |(engine, rounds): (&'static str, &Vec<Round>)| {
        let of = |f: fn(&Round) -> f64| Spread::new(rounds.iter().map(f));
        let over = |f: fn(&Round) -> f64| Spread::new(ours.iter().zip(rounds).map(|(o, r)| f(o) / f(r)));
        let mine = |f: fn(&Round) -> f64| (engine == "ours").then(|| of(f).median);
        Row {
            model: name.clone(),
            instructions: set,
            threads,
            engine,
            prefill_tokens_per_s: of(|r| r.prefill),
            decode_tokens_per_s: of(|r| r.decode),
            first_token_ms: of(|r| r.first_token),
            prefill_ratio: over(|r| r.prefill),
            decode_ratio: over(|r| r.decode),
            first_token_ratio: over(|r| r.first_token),
            gb_per_s: mine(|r| r.gb),
            roofline: mine(|r| r.gb / r.memory),
        }
    };
    Ok(rows.map(row).collect())
}

fn spread(s: Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$} to {:.digits$})", s.median, s.min, s.max)
}

fn ratio(row: &Row, s: Spread) -> String {
    match row.engine {
        "ours" => String::new(),
        _ => format!("{:.2}x ({:.2} to {:.2})", s.median, s.min, s.max),
    }
}

/// The f32 kernels of the published crate.
fn kernels(report: &mut Report) -> Result<()> {
    #[derive(Serialize)]
    struct Kernel {
        name: &'static str,
        ours_ns: f64,
        theirs_ns: f64,
    }
    let found = rounds::json(&mut peer("kernels"))?;
    let kernel = |name: &'static str| Kernel {
        name,
        ours_ns: found[name]["ours_ns"].as_f64().unwrap_or(f64::NAN),
        theirs_ns: found[name]["theirs_ns"].as_f64().unwrap_or(f64::NAN),
    };
    report.table(
        "ruvector-sparse-inference 2.3.0",
        "f32 kernels on 2048 values in cache, in turn in one process.",
        &[
            ("kernel", |k: &Kernel| k.name.to_owned()),
            ("ours", |k| format!("{:.0} ns", k.ours_ns)),
            ("theirs", |k| format!("{:.0} ns", k.theirs_ns)),
            ("ratio", |k| format!("{:.2}x", k.theirs_ns / k.ours_ns)),
        ],
        &["dot_f32", "axpy_f32", "add", "silu"].map(kernel),
    )
}

/// The published crate's own sparse loop, for the record.
pub(super) fn ffn(report: &mut Report) -> Result<()> {
    #[derive(Serialize)]
    struct Row {
        percent: u64,
        sparse_us: f64,
        dense_us: f64,
    }
    let found = rounds::json(&mut peer("ffn"))?;
    let row = |(i, percent)| Row {
        percent,
        sparse_us: found["sparse_us"][i].as_f64().unwrap_or(f64::NAN),
        dense_us: found["dense_us"].as_f64().unwrap_or(f64::NAN),
    };
    report.table(
        "ruvector-sparse-inference 2.3.0: SparseFfn",
        "512x2048 f32, ReLU, in cache, one thread, random active sets that are given to it; medians.",
        &[
            ("active", |r: &Row| format!("{} %", r.percent)),
            ("sparse us", |r| format!("{:.1}", r.sparse_us)),
            ("its dense path us", |r| format!("{:.1}", r.dense_us)),
            ("ratio", |r| format!("{:.2}", r.sparse_us / r.dense_us)),
        ],
        &[10, 30, 50, 70, 100].into_iter().enumerate().map(row).collect::<Vec<_>>(),
    )
}

fn peer(what: &str) -> Command {
    let mut command = cargo();
    command.arg("run").args(PEERS).args(["--", what]);
    command
}
