//! The firmware of examples/esp32c3-bit3: on an emulated microcontroller, and the same computation here.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::suites::limited;
use super::{Job, toolchain, tools};
use crate::program;

/// The firmware's package.
const MANIFEST: &str = "examples/esp32c3-bit3/Cargo.toml";
const NAME: &str = "esp32c3-bit3";

impl Job {
    /// Builds the firmware, or only checks it.
    pub(super) fn build_firmware(&self, task: &str) -> Result<()> {
        program::run(self.cargo(task).args(["--release", "--manifest-path", MANIFEST]))
    }

    /// Runs the firmware: what it prints must be what the same computation prints on this machine, bit for bit.
    pub(super) fn test_firmware(&self) -> Result<()> {
        let mut here = self.toolchain.command("cargo");
        here.args(["run", "--quiet", "--locked", "--release", "--manifest-path", MANIFEST, "--target-dir"]);
        let here = text(program::output(here.arg(toolchain::target_dir()).stderr(Stdio::inherit())))?;

        let firmware = toolchain::target_dir().join(self.target.triple()).join("release").join(NAME);
        let mut qemu: Command = tools::qemu_riscv()?;
        let there = text(limited(qemu.arg(firmware).stdout(Stdio::piped()), "the firmware"))?;
        let (results, memory): (Vec<_>, Vec<_>) = there.lines().partition(|l| !l.starts_with("memory: "));
        ensure!(!results.is_empty(), "the firmware printed nothing");
        for (i, (there, here)) in results.iter().zip(here.lines()).enumerate() {
            ensure!(*there == here, "line {}: the firmware has `{there}`, this machine `{here}`", i + 1);
        }
        ensure!(results.len() == here.lines().count(), "the firmware printed {} lines", results.len());
        eprintln!("firmware: {} lines are the same as here, bit for bit", results.len());
        memory.iter().for_each(|line| eprintln!("{line}"));
        Ok(())
    }
}

/// What a program printed, without carriage returns.
fn text(output: Result<Vec<u8>>) -> Result<String> {
    Ok(String::from_utf8(output?).context("no text")?.replace('\r', ""))
}
