//! The criterion benches, and what they left under `target/criterion`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::{Columns, Report};
use super::{Args, Bench};
use crate::program;

/// One benchmark.
#[derive(Serialize)]
struct Row {
    /// Family, kernel or model.
    name: String,
    /// Level or number of threads.
    variant: String,
    median_us: f64,
    /// Half of the median's 95 % confidence interval, relative.
    spread: f64,
    /// 1e9 bytes or operations per second.
    giga_per_s: f64,
    /// Iterations or elements per second.
    per_s: f64,
    /// Of the bandwidth measured with as many threads.
    roofline: Option<f64>,
    /// Times faster than the scalar kernel.
    over_scalar: Option<f64>,
}

pub(super) fn run(args: &Args, report: &mut Report) -> Result<()> {
    let target = target_directory()?.join("criterion");
    let wanted = |b: &&Bench| args.only.is_empty() || args.only.contains(b);
    for bench in Bench::value_variants().iter().filter(wanted) {
        // What an earlier run measured is not part of this one.
        let _ = fs::remove_dir_all(&target);
        let mut command = program::cargo();
        command.args(["bench", "--quiet", "--package", "sparse-benches", "--bench", bench.name()]);
        if !args.models.is_empty() {
            command.env("SPARSE_BENCH_MODELS", std::env::join_paths(args.models()?)?);
        }
        program::run(&mut command)?;
        let mut rows = Vec::new();
        collect(&target, &mut rows)?;
        rows.sort_by(|a, b| (&a.name, &a.variant).cmp(&(&b.name, &b.variant)));
        relate(&mut rows);
        let (note, columns) = bench.presentation();
        report.table(bench.name(), note, columns, &rows)?;
    }
    Ok(())
}

impl Bench {
    fn presentation(self) -> (&'static str, &'static Columns<Row>) {
        const NAME: (&str, fn(&Row) -> String) = ("what", |r| r.name.clone());
        const TIME: (&str, fn(&Row) -> String) =
            ("median", |r| format!("{:.2} us ± {:.0} %", r.median_us, 100.0 * r.spread));
        match self {
            Self::SimdKernels => (
                "GB/s of weights (`gemv`) or of one operand (`row`); GOP/s for `gemm`. One thread.",
                &[
                    NAME,
                    ("level", |r| r.variant.clone()),
                    TIME,
                    ("GB/s or GOP/s", |r| format!("{:.1}", r.giga_per_s)),
                    ("over scalar", |r| r.over_scalar.map_or(String::new(), |x| format!("{x:.1}x"))),
                ],
            ),
            Self::Decode => (
                "`memory` is a plain loop that reads 512 MB: the roofline. Weight bytes only.",
                &[
                    NAME,
                    ("threads", |r| r.variant.clone()),
                    TIME,
                    ("tokens/s", |r| format!("{:.1}", r.per_s)),
                    ("GB/s", |r| format!("{:.1}", r.giga_per_s)),
                    ("of roofline", |r| r.roofline.map_or(String::new(), |x| format!("{:.0} %", 100.0 * x))),
                ],
            ),
            Self::Ffn => (
                "All layers, one token; GB/s of what a dense pass reads. `cargo xtask bench ffn` compares in turn.",
                &[NAME, ("what", |r| r.variant.clone()), TIME, ("GB/s", |r| format!("{:.1}", r.giga_per_s))],
            ),
            Self::Prefill => (
                "A prompt of 512 tokens at once.",
                &[
                    NAME,
                    ("threads", |r| r.variant.clone()),
                    TIME,
                    ("tokens/s", |r| format!("{:.0}", r.per_s)),
                ],
            ),
        }
    }
}

/// Fills in what compares a row with another one.
fn relate(rows: &mut [Row]) {
    let find = |rows: &[Row], name: &str, variant: &str| {
        rows.iter().find(|r| r.name == name && r.variant == variant).map(|r| r.giga_per_s)
    };
    for i in 0..rows.len() {
        let (name, variant) = (rows[i].name.clone(), rows[i].variant.clone());
        rows[i].roofline = find(rows, "memory", &variant).map(|memory| rows[i].giga_per_s / memory);
        rows[i].over_scalar = find(rows, &name, "scalar").map(|scalar| rows[i].giga_per_s / scalar);
    }
}

/// All benchmarks below `folder`.
fn collect(folder: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("no results in {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.join("new/estimates.json").exists() {
            rows.push(row(&path.join("new"))?);
        } else if path.is_dir() {
            collect(&path, rows)?;
        }
    }
    Ok(())
}

fn row(folder: &Path) -> Result<Row> {
    let benchmark: Value = read(&folder.join("benchmark.json"))?;
    let median = &read::<Value>(&folder.join("estimates.json"))?["median"];
    let number = |v: &Value| v.as_f64().with_context(|| format!("no median in {}", folder.display()));
    let text = |key: &str| benchmark[key].as_str().unwrap_or_default().to_owned();
    let nanoseconds = number(&median["point_estimate"])?;
    let interval = &median["confidence_interval"];
    let width = number(&interval["upper_bound"])? - number(&interval["lower_bound"])?;
    let throughput = &benchmark["throughput"];
    let elements = throughput["Elements"].as_f64();
    let amount = throughput["Bytes"].as_f64().or(elements).unwrap_or(0.0);
    let name = text("group_id");
    let per_iteration = if name.starts_with("prefill") { elements.unwrap_or(1.0) } else { 1.0 };
    Ok(Row {
        name,
        variant: text("value_str"),
        median_us: nanoseconds / 1e3,
        spread: width / 2.0 / nanoseconds,
        giga_per_s: amount / nanoseconds,
        per_s: per_iteration * 1e9 / nanoseconds,
        roofline: None,
        over_scalar: None,
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", path.display()))
}

fn target_directory() -> Result<PathBuf> {
    let metadata =
        program::output(program::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    Ok(metadata["target_directory"].as_str().context("cargo names no target directory")?.into())
}
