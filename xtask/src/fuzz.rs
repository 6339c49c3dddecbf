//! `fuzz`: what reads bytes of strangers, given more and more of them by `cargo fuzz`.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cross::which;
use crate::{interrupt, program};

/// What can be fuzzed: the names of `fuzz/targets`.
const TARGETS: [&str; 8] =
    ["gguf", "blocks", "tokenizer", "chat_template", "model", "sidecar", "prompt_cache", "request"];

/// Fuzzes everything that reads bytes of strangers: files, templates, requests.
///
/// Needs `cargo install cargo-fuzz`. What is found lies in fuzz/artifacts; what was learnt, in fuzz/corpus.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets [default: all].
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    which(&["cargo-fuzz"]).context("no `cargo-fuzz`: run `cargo install cargo-fuzz`")?;
    let targets: Vec<&str> = match args.targets.is_empty() {
        true => TARGETS.to_vec(),
        false => args.targets.iter().map(String::as_str).collect(),
    };
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(crate::root());
        cargo
    };
    program::run(cargo().args([
        "run",
        "--release",
        "--quiet",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--example",
        "seeds",
    ]))?;
    let mut failed = Vec::new();
    for target in targets {
        interrupt::check()?;
        eprintln!("{target}: {} s", args.seconds);
        // Sanitizers need a nightly compiler, and nearly all of this code is safe.
        let fuzz = ["fuzz", "run", "--sanitizer", "none", target, "--"];
        let time = format!("-max_total_time={}", args.seconds);
        // The limit of memory is for what a file claims, not for what it holds.
        let options =
            [&*time, "-timeout=20", "-rss_limit_mb=2048", "-max_len=524288", "-print_final_stats=1"];
        if program::run(cargo().args(fuzz).args(options)).is_err() {
            failed.push(target);
        }
    }
    ensure!(failed.is_empty(), "found something in fuzz/artifacts: {}", failed.join(", "));
    Ok(())
}
