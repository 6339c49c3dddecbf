//! `features`: every crate by itself, without features, with each of them alone, and with all.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::program;

/// Checks that every crate compiles by itself: without features, with each feature alone, by default and with all.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these crates.
    #[arg(value_name = "CRATE")]
    crates: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut metadata = program::cargo();
    metadata.args(["metadata", "--locked", "--no-deps", "--format-version", "1"]).stderr(Stdio::inherit());
    let metadata: Value = serde_json::from_slice(&program::output(&mut metadata)?)?;
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        if !args.crates.is_empty() && !args.crates.iter().any(|c| c == name) {
            continue;
        }
        let features = package["features"].as_object().context("a package without features")?;
        check(name, &[])?;
        check(name, &["--all-features"])?;
        if !features.is_empty() {
            check(name, &["--no-default-features"])?;
        }
        for feature in features.keys().filter(|f| *f != "default") {
            check(name, &["--no-default-features", "--features", feature])?;
        }
    }
    Ok(())
}

/// Checks one crate with some features; warnings are errors.
fn check(name: &str, features: &[&str]) -> Result<()> {
    eprintln!("{name} {}", features.join(" "));
    let mut cargo = program::cargo();
    cargo.args(["clippy", "--quiet", "--locked", "--package", name]).args(features);
    program::run(cargo.args(["--", "-D", "warnings"]))
}
