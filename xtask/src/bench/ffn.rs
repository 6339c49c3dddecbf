//! Sparse feed-forward layers in turn with dense ones: the `ffn` bench, one process per shape, format and thread count.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::report::Report;
use super::rounds::{self, Spread};
use super::{Args, peers};
use crate::program::cargo;

/// The layers of the `ffn` bench; not all formats go with all shapes.
const LAYERS: [(&str, &[&str]); 4] = [
    ("512x2048", &["F32"]),
    ("576x1536", &["Q4_0", "Q4_1"]),
    ("2048x5632", &["Q4_0", "Q4_1", "Q4_K"]),
    ("4096x11008", &["Q4_0", "Q4_1", "Q4_K"]),
];

/// One density of one layer.
#[derive(Serialize)]
struct Row {
    layer: String,
    threads: usize,
    percent: u64,
    dense_us: Spread,
    dense_gb_per_s: f64,
    /// Time over the dense path's, round by round; and bytes over its bytes.
    after_gate: Spread,
    after_gate_bytes: f64,
    all: Spread,
    all_bytes: f64,
    selector: Spread,
    predicted: Spread,
    predicted_bytes: f64,
}

pub(super) fn run(args: &Args, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    let mut level = String::new();
    let wanted = |shape: &str| args.shapes.is_empty() || args.shapes.iter().any(|s| s == shape);
    for (shape, formats) in LAYERS.into_iter().filter(|(shape, _)| wanted(shape)) {
        for format in formats {
            for &threads in &args.threads {
                let mut command = cargo();
                command.args(["bench", "--quiet", "--package", "sparse-benches", "--bench", "ffn", "--"]);
                command.args([
                    "rounds",
                    shape,
                    format,
                    &threads.to_string(),
                    &args.rounds.max(1).to_string(),
                ]);
                let found = rounds::json(&mut command)?;
                level = found["level"].as_str().unwrap_or_default().to_owned();
                let bytes = number(&found["layer_bytes"])?;
                for row in found["rows"].as_array().context("no rows")? {
                    rows.push(Row::new(format!("{shape} {format}"), threads, bytes, row)?);
                }
            }
        }
    }
    report.table(
        &format!("ffn, {level}"),
        &format!(
            "One token; random active sets. Time over that of the dense path, which stores `down` by rows and follows in \
             every round, and bytes over its bytes. Gate dense: `up` and `down` are skipped (`down` where there is no \
             gate). All three: the active set is known. Selector: a predictor of rank 64 in Q8_0, random weights. {} \
             rounds, median (least to greatest). 512x2048 is plain ReLU in cache, the others SwiGLU in memory.",
            args.rounds
        ),
        &[
            ("layer", |r: &Row| r.layer.clone()),
            ("threads", |r| r.threads.to_string()),
            ("active", |r| format!("{} %", r.percent)),
            ("dense us", |r| format!("{:.0}", r.dense_us.median)),
            ("GB/s", |r| format!("{:.1}", r.dense_gb_per_s)),
            ("gate dense", |r| ratio(r.after_gate)),
            ("bytes", |r| format!("{:.2}", r.after_gate_bytes)),
            ("all three", |r| ratio(r.all)),
            ("bytes", |r| format!("{:.2}", r.all_bytes)),
            ("selector", |r| format!("{:.2}", r.selector.median)),
            ("all three and selector", |r| ratio(r.predicted)),
            ("bytes", |r| format!("{:.2}", r.predicted_bytes)),
        ],
        &rows,
    )?;
    if args.peers.is_empty() { Ok(()) } else { peers::ffn(report) }
}

impl Row {
    fn new(layer: String, threads: usize, layer_bytes: f64, row: &Value) -> Result<Self> {
        let times = |key: &str| -> Result<Vec<f64>> {
            row[key].as_array().with_context(|| format!("no {key}"))?.iter().map(number).collect()
        };
        let dense = times("dense_us")?;
        let over = |key: &str| -> Result<Spread> {
            Ok(Spread::new(times(key)?.iter().zip(&dense).map(|(time, dense)| time / dense)))
        };
        let dense_us = Spread::new(dense.iter().copied());
        Ok(Self {
            layer,
            threads,
            percent: row["percent"].as_u64().context("no density")?,
            dense_gb_per_s: layer_bytes / dense_us.median / 1e3,
            after_gate: over("gate_us")?,
            after_gate_bytes: number(&row["gate_bytes"])?,
            all: over("all_us")?,
            all_bytes: number(&row["all_bytes"])?,
            selector: over("selector_us")?,
            predicted: over("predicted_us")?,
            predicted_bytes: number(&row["predicted_bytes"])?,
            dense_us,
        })
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().context("a figure is missing")
}

fn ratio(s: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", s.median, s.min, s.max)
}
