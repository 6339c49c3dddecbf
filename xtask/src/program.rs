//! Running programs.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::interrupt;

/// Cargo, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    command
}

/// A program of this workspace in release mode; its arguments follow.
pub(crate) fn program(package: &str, target: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", package]);
    command.args(target).arg("--").stderr(Stdio::inherit());
    command
}

/// A program of this workspace that [`program`] has built: without cargo, whose start disturbs what is measured.
pub(crate) fn built(name: &str) -> Command {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let mut command = Command::new(target.join("release").join(name));
    command.current_dir(crate::root()).stderr(Stdio::inherit());
    command
}

/// What `command` prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    interrupt::check()?;
    let output = command.output().with_context(|| format!("cannot run {}", words(command)))?;
    interrupt::check()?;
    ensure!(output.status.success(), "`{}` failed ({})", words(command), output.status);
    Ok(output.stdout)
}

/// Runs `command`, which prints for itself.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command.stdout(Stdio::inherit()).stderr(Stdio::inherit())).map(drop)
}

fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
