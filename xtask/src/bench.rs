//! `bench`: speed of kernels and models, as a report.

mod criterion;
mod ffn;
mod machine;
mod peers;
mod report;
mod rounds;
mod targets;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::program;
use machine::Machine;
use peers::Instructions;
use report::Report;

/// Measures speed and writes a report in Markdown and JSON.
///
/// Without options: the criterion benches of kernels, decode and prefill, beside the memory bandwidth that bounds them.
/// Close other programs; every figure is a median.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure instead.
    what: Option<What>,
    /// Measure the models beside llama.cpp and candle, in turn, and kernels beside ruvector-sparse-inference.
    ///
    /// llama.cpp is built from the Python package llama-cpp-python, once for each instruction set; that needs a C++ compiler and
    /// takes minutes. candle is slow on some formats and gets fewer tokens; `--peers llama.cpp` leaves it and the kernels out.
    #[arg(long, value_name = "PEER", num_args = 0.., default_missing_values = ["llama.cpp", "candle"])]
    peers: Vec<Peer>,
    /// Only this criterion bench; may be given several times.
    #[arg(long, value_name = "BENCH")]
    only: Vec<Bench>,
    /// GGUF files to measure [default: models/SmolLM2-135M-Instruct.Q4_1.gguf].
    #[arg(long, value_name = "FILE", num_args = 1..)]
    models: Vec<PathBuf>,
    /// Shapes of the feed-forward layers, inputs times neurons [default: all].
    #[arg(long, value_name = "SHAPE,...", value_delimiter = ',')]
    shapes: Vec<String>,
    /// Interleaved rounds with peers, targets and feed-forward layers.
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// Thread counts for peers, targets and feed-forward layers.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Instruction sets for which peers are compared: llama.cpp is built for each, and our program uses the same.
    #[arg(long, value_name = "SET,...", value_delimiter = ',', default_values = INSTRUCTIONS)]
    instructions: Vec<Instructions>,
    /// The Python environment with llama.cpp for all instructions of this CPU. Those for other sets are beside it, with the
    /// set's name as ending. What is not there is made.
    #[arg(long, value_name = "FOLDER", default_value = "target/reference-venv")]
    venv: PathBuf,
    /// The report's name without its ending.
    #[arg(long, value_name = "FILE", default_value = "target/bench-report")]
    out: PathBuf,
}

/// By default, on x86-64, AVX2 too: most CPUs have no more.
const INSTRUCTIONS: &[&str] = if cfg!(target_arch = "x86_64") { &["native", "avx2"] } else { &["native"] };

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Files of Llama-7B's exact shape with random weights (3.8 GB on disk, made when absent).
    Targets,
    /// Feed-forward layers that compute some of their neurons, over the same layers computed densely.
    ///
    /// The environment variable SPARSE_SIMD chooses another CPU level. With --peers, the published
    /// ruvector-sparse-inference on the layer that fits the cache, too.
    Ffn,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    #[value(name = "llama.cpp")]
    LlamaCpp,
    Candle,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Bench {
    SimdKernels,
    Decode,
    Prefill,
    Ffn,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::SimdKernels => "simd_kernels",
            Self::Decode => "decode",
            Self::Prefill => "prefill",
            Self::Ffn => "ffn",
        }
    }
}

impl Args {
    fn models(&self) -> Result<Vec<PathBuf>> {
        let models = match self.models.is_empty() {
            true => vec![crate::models().join("SmolLM2-135M-Instruct.Q4_1.gguf")],
            false => self.models.clone(),
        };
        // Programs run in the workspace's root.
        let absolute = |p: PathBuf| {
            fs::canonicalize(&p)
                .with_context(|| format!("{} is not there: run `cargo xtask fetch smollm2`", p.display()))
        };
        models.into_iter().map(absolute).collect()
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    program::run(program::cargo().args(["build", "--quiet", "--release", "--package", "sparse-cli"]))?;
    let mut report = Report::new(Machine::this()?);
    match args.what {
        Some(What::Targets) => targets::run(args, &mut report)?,
        Some(What::Ffn) => ffn::run(args, &mut report)?,
        None if !args.peers.is_empty() => peers::run(args, &mut report)?,
        None => criterion::run(args, &mut report)?,
    }
    report.write(&args.out)
}
