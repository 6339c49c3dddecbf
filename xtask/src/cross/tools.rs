//! Linkers and emulators.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::targets::Target;
use super::toolchain::which;

/// The linker for 64-bit ARM.
pub(super) const ARM_LINKER: &str = "aarch64-linux-gnu-gcc";

/// The tools that building, and testing, for `target` lacks: each with the command that gets it.
pub(super) fn missing(target: Target, test: bool) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |names: &[&str], package: &str| {
        if which(names).is_none() {
            missing.push(format!("no `{}`: install the package {package}", names[0]));
        }
    };
    if target == Target::Arm {
        need(&[ARM_LINKER], "gcc-aarch64-linux-gnu (and libc6-dev-arm64-cross)");
    }
    if test {
        match target {
            Target::X86 => need(&QEMU_X86, "qemu-user-static"),
            Target::Arm => need(&QEMU_ARM, "qemu-user-static"),
            Target::Wasm => need(&["node"], "nodejs"),
            Target::RiscV => need(&[QEMU_RISCV], "qemu-system-misc"),
        }
    }
    if test && target == Target::Wasm {
        missing.extend(wasm_bindgen().err().map(|e| e.to_string()));
    }
    missing
}

const QEMU_X86: [&str; 2] = ["qemu-x86_64-static", "qemu-x86_64"];
const QEMU_ARM: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];
const QEMU_RISCV: &str = "qemu-system-riscv32";

/// An emulator of a Linux program on a CPU of this model.
pub(super) fn qemu_user(target: Target, cpu: &str) -> Result<Command> {
    let names: &[&str] = if target == Target::Arm { &QEMU_ARM } else { &QEMU_X86 };
    let mut qemu = Command::new(which(names).with_context(|| format!("no {}", names[0]))?);
    qemu.args(["-cpu", cpu]);
    if target == Target::Arm {
        // Where Debian has the libraries of that architecture.
        qemu.args(["-L", "/usr/aarch64-linux-gnu"]);
    }
    Ok(qemu)
}

/// An emulator of a bare machine with an RV32IMC core and 16550 UART on stdout.
pub(super) fn qemu_riscv() -> Result<Command> {
    let mut qemu = Command::new(which(&[QEMU_RISCV]).with_context(|| format!("no {QEMU_RISCV}"))?);
    qemu.args(["-M", "virt", "-cpu", "rv32,a=false,f=false,d=false", "-m", "16M", "-bios", "none"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-kernel"]);
    Ok(qemu)
}

/// The wasm-bindgen program of the very version that Cargo.lock names.
pub(crate) fn wasm_bindgen() -> Result<PathBuf> {
    let lock = fs::read_to_string(crate::root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let version = lock
        .split("[[package]]")
        .find(|package| package.contains("\nname = \"wasm-bindgen\"\n"))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .context("Cargo.lock has no wasm-bindgen")?;
    let advice = || format!("run `cargo install wasm-bindgen-cli --version {version}`");
    let program = which(&["wasm-bindgen"]).with_context(|| format!("no `wasm-bindgen`: {}", advice()))?;
    let output = Command::new(&program).arg("--version").output().context("cannot run wasm-bindgen")?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    anyhow::ensure!(found.ends_with(&format!(" {version}")), "found `{found}`: {}", advice());
    Ok(program)
}
