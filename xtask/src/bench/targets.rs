//! Llama-7B's exact shape with random weights, against the roofline.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::Args;
use super::report::Report;
use super::rounds::{self, Spread};
use crate::program::{self, cargo};

#[derive(Serialize)]
struct Row {
    model: &'static str,
    threads: usize,
    bytes_per_token: f64,
    /// Milliseconds per token.
    ms_per_token: Spread,
    /// Milliseconds that reading as many bytes takes in a plain loop.
    roofline_ms_per_token: f64,
    prefill_tokens_per_s: f64,
}

/// Memory that must be free beside the weights: KV cache, buffers, the system.
const RESERVE: u64 = 1 << 30;

pub(super) fn run(args: &Args, report: &mut Report) -> Result<()> {
    let model = crate::models().join("llama-7b-random.Q4_0.gguf");
    if !model.exists() {
        fs::create_dir_all(crate::models())?;
        let mut command = cargo();
        command.args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "xtask",
            "--",
            "gen",
            "7b",
            "--format",
            "Q4_0",
        ]);
        program::run(command.arg("--out").arg(&model))?;
    }
    let bytes = fs::metadata(&model)?.len();
    if let Some(available) = available_memory() {
        ensure!(
            available > bytes + RESERVE,
            "{} GB of memory are available, {} are needed",
            available / 1_000_000_000,
            (bytes + RESERVE).div_ceil(1_000_000_000)
        );
    }
    let mut rows = Vec::new();
    for &threads in &args.threads {
        let found = (0..args.rounds.max(1))
            .map(|_| rounds::ours(&model, threads, None))
            .collect::<Result<Vec<_>>>()
            .context("cannot measure Llama-7B's shape")?;
        let median = |f: fn(&rounds::Round) -> f64| Spread::new(found.iter().map(f)).median;
        rows.push(Row {
            model: "Llama-7B's shape, random weights, Q4_0",
            threads,
            bytes_per_token: found[0].bytes_per_token,
            ms_per_token: Spread::new(found.iter().map(|r| 1e3 / r.decode)),
            roofline_ms_per_token: median(|r| r.bytes_per_token / 1e6 / r.memory),
            prefill_tokens_per_s: median(|r| r.prefill),
        });
    }
    report.table(
        "targets",
        "Random weights of the exact shape: the time per token is real, the text is noise.",
        &[
            ("model", |r: &Row| r.model.to_owned()),
            ("threads", |r| r.threads.to_string()),
            ("MB per token", |r| format!("{:.0}", r.bytes_per_token / 1e6)),
            ("ms per token", |r| {
                format!(
                    "{:.1} ({:.1} to {:.1})",
                    r.ms_per_token.median, r.ms_per_token.min, r.ms_per_token.max
                )
            }),
            ("roofline ms per token", |r| format!("{:.1}", r.roofline_ms_per_token)),
            ("of roofline", |r| format!("{:.0} %", 100.0 * r.roofline_ms_per_token / r.ms_per_token.median)),
            ("prefill tokens/s", |r| format!("{:.0}", r.prefill_tokens_per_s)),
        ],
        &rows,
    )
}

/// Bytes that Linux says can be had; other systems just try.
fn available_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
