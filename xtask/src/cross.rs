//! `cross`: builds and tests the workspace for every target that the README names.

mod firmware;
mod suites;
mod targets;
mod toolchain;
mod tools;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{interrupt, program};
use targets::Target;
use toolchain::Toolchain;

pub(crate) use suites::{WASM, WasmBuild};
pub(crate) use toolchain::which;
pub(crate) use tools::wasm_bindgen;

/// Builds the crates for other targets, and tests them there.
///
/// A target is built with the active toolchain, or with the first installed one that has its standard library. Tests
/// run in emulators: qemu, and Node for WebAssembly.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets [default: all].
    #[arg(value_name = "TARGET")]
    targets: Vec<Target>,
    /// Only checks that the crates compile.
    #[arg(long, conflicts_with = "test")]
    check: bool,
    /// Runs the tests, too.
    #[arg(long)]
    test: bool,
    /// Installs what is missing by tools/cross/install.sh: on Debian 12 as root, where rustup has no server to ask.
    #[arg(long)]
    install: bool,
    /// Passes over targets for which something is missing, instead of failing.
    #[arg(long)]
    skip_missing: bool,
    /// Prints the result as JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// What became of a target.
#[derive(Serialize)]
struct Outcome {
    target: &'static str,
    toolchain: Option<String>,
    result: Verdict,
    /// What is missing and how to get it, or what failed.
    detail: Vec<String>,
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Built,
    Tested,
    Missing,
    Failed,
}

/// A target with what building and testing it takes.
pub(crate) struct Job {
    target: Target,
    toolchain: Toolchain,
}

impl Job {
    /// Building for WebAssembly, and turning that into a package.
    ///
    /// # Errors
    /// Names everything that is missing, and how to get it.
    pub(crate) fn wasm() -> Result<Self> {
        let (target, test) = (Target::Wasm, true);
        match (missing(target, test), Toolchain::find(target)) {
            (lacks, Some(toolchain)) if lacks.is_empty() => Ok(Self { target, toolchain }),
            (lacks, _) => bail!("{}", lacks.join("\n")),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let targets = if args.targets.is_empty() { Target::ALL.to_vec() } else { args.targets.clone() };
    if args.install {
        install(&targets, args.test)?;
    }
    let mut outcomes = Vec::new();
    for target in targets {
        interrupt::check()?;
        let outcome = one(target, if args.check { "check" } else { "build" }, args.test);
        eprintln!("{}", outcome.line());
        outcomes.push(outcome);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    }
    let bad = |o: &&Outcome| match o.result {
        Verdict::Built | Verdict::Tested => false,
        Verdict::Missing => !args.skip_missing,
        Verdict::Failed => true,
    };
    match outcomes.iter().filter(bad).map(|o| o.target).collect::<Vec<_>>() {
        bad if bad.is_empty() => Ok(()),
        bad => bail!("not every target is in order: {}", bad.join(", ")),
    }
}

/// Installs what `targets` lack.
fn install(targets: &[Target], test: bool) -> Result<()> {
    let lacking: Vec<_> = targets.iter().copied().filter(|t| !missing(*t, test).is_empty()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let script = Path::new("tools/cross/install.sh");
    let mut command = std::process::Command::new("bash");
    command.current_dir(crate::root()).arg(script).args(lacking.iter().map(|t| t.triple()));
    command.env("RUST_CROSS", toolchain::prefix());
    if !test {
        command.env("SKIP_TOOLS", "1");
    }
    program::run(&mut command)?;
    // Cargo does not notice a new standard library.
    for target in lacking {
        let _ = std::fs::remove_dir_all(toolchain::target_dir().join(target.triple()));
    }
    Ok(())
}

/// What building, and testing, `target` lacks: each with the command that gets it.
fn missing(target: Target, test: bool) -> Vec<String> {
    let mut missing = Vec::new();
    if Toolchain::find(target).is_none() {
        let triple = target.triple();
        missing.push(format!(
            "no installed toolchain has its standard library: run `rustup target add {triple}`, or \
             `cargo xtask cross {triple} --install` where rustup has no server"
        ));
    }
    missing.extend(tools::missing(target, test));
    missing
}

/// Checks or builds a target, as `task` says, and tests it if asked to.
fn one(target: Target, task: &str, test: bool) -> Outcome {
    let start = Instant::now();
    let lacks = missing(target, test);
    let toolchain = Toolchain::find(target);
    let name = toolchain.as_ref().map(Toolchain::to_string);
    let (result, detail) = match toolchain {
        Some(toolchain) if lacks.is_empty() => {
            let job = Job { target, toolchain };
            let done = job.build(task).and_then(|()| if test { job.test() } else { Ok(()) });
            match done {
                Ok(()) if test => (Verdict::Tested, Vec::new()),
                Ok(()) => (Verdict::Built, Vec::new()),
                Err(e) => (Verdict::Failed, vec![format!("{e:#}")]),
            }
        }
        _ => (Verdict::Missing, lacks),
    };
    Outcome { target: target.triple(), toolchain: name, result, detail, seconds: start.elapsed().as_secs() }
}

impl Outcome {
    fn line(&self) -> String {
        let toolchain = self.toolchain.as_deref().unwrap_or("no toolchain");
        let what = match self.result {
            Verdict::Built => "built",
            Verdict::Tested => "tested",
            Verdict::Missing => "skipped",
            Verdict::Failed => "failed",
        };
        let mut line = format!("{}: {what} with {toolchain}, {} s", self.target, self.seconds);
        for detail in &self.detail {
            line.push_str("\n    ");
            line.push_str(detail);
        }
        line
    }
}
