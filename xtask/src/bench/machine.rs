//! What the figures were measured on.

use std::fs;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::program::{output, program};

#[derive(Serialize)]
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    level: String,
    os: &'static str,
    rustc: String,
    commit: String,
}

impl Machine {
    pub(super) fn this() -> Result<Self> {
        let cpu = output(program("sparse-cli", &["--bin", "sparse"]).args(["inspect", "--cpu", "--json"]))?;
        let cpu: Value = serde_json::from_slice(&cpu)?;
        let text = |command: &mut std::process::Command| {
            output(command).map(|out| String::from_utf8_lossy(&out).trim().to_owned()).unwrap_or_default()
        };
        let mut git = std::process::Command::new("git");
        git.current_dir(crate::root()).args(["describe", "--always", "--dirty"]);
        Ok(Self {
            cpu: cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            level: cpu["level"].as_str().unwrap_or_default().to_owned(),
            os: std::env::consts::OS,
            rustc: text(std::process::Command::new("rustc").arg("--version")),
            commit: text(&mut git),
        })
    }

    pub(super) fn line(&self) -> String {
        let Self { cpu, cores, level, os, rustc, commit } = self;
        format!("{cpu}, {cores} cores, level {level}, {os}, {rustc}, commit {commit}")
    }
}

/// The name that Linux knows; other systems keep it elsewhere.
fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name")?;
    // Virtual machines hide the model, but not its number.
    match (field("cpu family"), field("model\t")) {
        (Some(family), Some(model)) => Some(format!("{name} (family {family}, model {model})")),
        _ => Some(name),
    }
}
