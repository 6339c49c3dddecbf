//! Building the crates for a target, and running their tests there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::targets::Target;
use super::{Job, toolchain, tools};
use crate::{interrupt, program};

/// Longest time that an emulator may take for one program: far more than any needs, so that one that hangs ends.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// A CPU that is emulated.
struct Cpu {
    /// qemu's name of it.
    model: &'static str,
    /// The level that has to be chosen there.
    level: &'static str,
    /// Levels that it lacks and has to refuse.
    lacks: &'static [&'static str],
    /// The tests that run there: how a program's name ends, and how its tests' names begin.
    tests: &'static [(&'static str, &'static str)],
    /// Beginnings of names of tests that the emulator is wrong about.
    skips: &'static [&'static str],
}

/// All tests.
const ALL: &[(&str, &str)] = &[("", "")];
/// The text of the story model.
const STORY: (&str, &str) = ("models", "story::");
/// The tests that tell whether a level computes what the others do.
const SOME: &[(&str, &str)] = &[("kernels", ""), STORY];

/// x86-64 CPUs by their widest vectors. qemu has no AVX-512. Their levels run all tests without an emulator, too.
///
/// Of `vmaskmovps`, qemu 7.2 reads places that the mask leaves out: it fails at the end of a page, where CPUs do not.
const X86: [Cpu; 3] = [
    Cpu { model: "Penryn", level: "sse4.1", lacks: &["avx2", "avx512"], tests: SOME, skips: &[] },
    Cpu { model: "Nehalem", level: "sse4.1", lacks: &["avx2"], tests: &[], skips: &[] },
    Cpu { model: "Haswell", level: "avx2", lacks: &["avx512"], tests: SOME, skips: &["guard::"] },
];

/// 64-bit ARM without and with products of bytes. `max` has all instructions that qemu knows.
const ARM: [Cpu; 4] = [
    Cpu { model: "cortex-a53", level: "neon", lacks: &["dotprod", "i8mm"], tests: &[STORY], skips: &[] },
    Cpu { model: "cortex-a72", level: "neon", lacks: &["dotprod"], tests: &[], skips: &[] },
    Cpu { model: "cortex-a76", level: "dotprod", lacks: &["i8mm"], tests: &[STORY], skips: &[] },
    Cpu { model: "max", level: "dotprod", lacks: &[], tests: ALL, skips: &[] },
];

/// A build of WebAssembly.
pub(crate) struct WasmBuild {
    /// What its vectors are called.
    pub(crate) name: &'static str,
    /// The flags of rustc.
    flags: &'static str,
    /// The feature of `sparse-simd` and `sparse-wasm` that it is built with.
    pub(crate) feature: Option<&'static str>,
}

const VECTORS: &str = "-Ctarget-feature=+simd128";

/// The builds, from the least to the most.
pub(crate) const WASM: [WasmBuild; 3] = [
    WasmBuild { name: "scalar", flags: "", feature: None },
    WasmBuild { name: "simd128", flags: VECTORS, feature: None },
    WasmBuild { name: "relaxed-simd", flags: VECTORS, feature: Some("relaxed-simd") },
];

/// A program that cargo built.
struct Program {
    name: String,
    path: PathBuf,
    /// The folder of its package, where tests expect to run.
    folder: PathBuf,
}

impl Job {
    /// Builds what exists on the target, or only checks it: `task` is `build` or `check`.
    pub(super) fn build(&self, task: &str) -> Result<()> {
        if self.target == Target::Wasm {
            for build in &WASM {
                program::run(self.cargo_wasm(task, build).args(self.target.crates()).args(feature(build)))?;
            }
            return Ok(());
        }
        program::run(self.cargo(task).args(self.target.crates()))?;
        if self.target == Target::RiscV {
            self.build_firmware(task)?;
        }
        Ok(())
    }

    /// Runs the tests on every emulated machine of the target.
    pub(super) fn test(&self) -> Result<()> {
        match self.target {
            Target::X86 => self.test_cpus(&X86),
            Target::Arm => self.test_cpus(&ARM),
            Target::Wasm => self.test_wasm(),
            Target::RiscV => self.test_firmware(),
        }
    }

    /// Cargo for the target.
    pub(super) fn cargo(&self, task: &str) -> Command {
        let mut cargo = self.toolchain.command("cargo");
        cargo.args([task, "--locked", "--target", self.target.triple()]);
        cargo.env("CARGO_TARGET_DIR", toolchain::target_dir());
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", tools::ARM_LINKER);
        cargo
    }

    /// Cargo for one of the builds of WebAssembly, which are apart so that none replaces another: in
    /// [`wasm_target`](Self::wasm_target).
    pub(crate) fn cargo_wasm(&self, task: &str, build: &WasmBuild) -> Command {
        let mut cargo = self.cargo(task);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", build.flags);
        cargo.env("CARGO_TARGET_DIR", toolchain::target_dir().join(build.name));
        cargo
    }

    /// Where a build of WebAssembly is, for a profile's folder.
    pub(crate) fn wasm_target(&self, build: &WasmBuild, profile: &str) -> PathBuf {
        toolchain::target_dir().join(build.name).join(self.target.triple()).join(profile)
    }

    /// Builds programs, and says where they are; with `tests` those that are tests.
    fn programs(&self, cargo: &mut Command, tests: bool) -> Result<Vec<Program>> {
        let cargo = cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
        let output = program::output(cargo)?;
        let messages = output.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mut programs = Vec::new();
        for line in messages {
            let message: Value = serde_json::from_slice(line).context("cargo's messages are no JSON")?;
            let text = |key: &str| message[key].as_str().map(str::to_owned);
            // A build for tests has examples, too.
            let other = tests && message["profile"]["test"] != true;
            if let (Some(path), Some(manifest), false) = (text("executable"), text("manifest_path"), other) {
                let folder = Path::new(&manifest).parent().context("a manifest in a folder")?.to_owned();
                let package = folder.file_name().unwrap_or_default().to_string_lossy();
                let target = message["target"]["name"].as_str().unwrap_or_default();
                programs.push(Program { name: format!("{package} {target}"), path: path.into(), folder });
            }
        }
        Ok(programs)
    }

    /// The test programs of all crates, built by `cargo`.
    fn tests(&self, cargo: &mut Command) -> Result<Vec<Program>> {
        let tests = self.programs(cargo.args(["--no-run", "--tests"]).args(self.target.crates()), true)?;
        ensure!(!tests.is_empty(), "cargo built no tests");
        Ok(tests)
    }

    fn test_cpus(&self, cpus: &[Cpu]) -> Result<()> {
        let mut cargo = self.cargo("build");
        let example = ["-psparse-simd", "--features", "npu", "--example", "levels"];
        let example = self.programs(cargo.args(example), false)?;
        let levels = example.iter().find(|p| p.name.ends_with("levels")).context("cargo built no example")?;
        let tests = self.tests(&mut self.cargo("test"))?;
        for cpu in cpus {
            let output = program::output(tools::qemu_user(self.target, cpu.model)?.arg(&levels.path))?;
            let output = String::from_utf8_lossy(&output);
            let level = output.lines().next().unwrap_or_default();
            ensure!(level == cpu.level, "{}: level {level} is chosen, not {}", cpu.model, cpu.level);
            for lacking in cpu.lacks {
                let mut qemu = tools::qemu_user(self.target, cpu.model)?;
                let refused = qemu.env("SPARSE_SIMD", lacking).arg(&levels.path).output()?;
                let message = String::from_utf8_lossy(&refused.stderr);
                let named = message.contains("Unavailable") && !refused.status.success();
                ensure!(named, "{}: level {lacking} is not refused: {message}", cpu.model);
            }
            eprintln!("{}: level {level}", cpu.model);
            for (end, names) in cpu.tests {
                let named: Vec<_> = tests.iter().filter(|test| test.name.ends_with(end)).collect();
                ensure!(!named.is_empty(), "no test program is called {end}");
                for test in named {
                    let mut qemu = tools::qemu_user(self.target, cpu.model)?;
                    qemu.arg(&test.path).arg("--quiet");
                    if !names.is_empty() {
                        qemu.arg(names);
                    }
                    for skipped in cpu.skips {
                        qemu.args(["--skip", skipped]);
                    }
                    run(&mut qemu, &format!("{} {names} on {}", test.name, cpu.model), test)?;
                }
            }
        }
        Ok(())
    }

    /// Runs the tests in Node, with vectors and without. A test program without standard output has no report either: the
    /// first test that fails ends it, and its name is in the trace.
    fn test_wasm(&self) -> Result<()> {
        let (bindgen, node) = (tools::wasm_bindgen()?, toolchain::which(&["node"]).context("no node")?);
        let glue = toolchain::target_dir().join("node");
        for build in &WASM {
            for test in self.tests(self.cargo_wasm("test", build).args(feature(build)))? {
                let what = format!("{} in Node, {}", test.name, build.name);
                let mut node = Command::new(&node);
                node.args(node_flags(build)?).arg("--stack-trace-limit=40");
                if asks_javascript(&test.path)? {
                    program::run(
                        Command::new(&bindgen)
                            .args(["--target", "nodejs", "--keep-debug", "--out-name", "test", "--out-dir"])
                            .arg(&glue)
                            .arg(&test.path),
                    )?;
                    node.arg(glue.join("test.js"));
                } else {
                    node.args(["--eval", RUN_ALONE]).arg(&test.path);
                }
                run(&mut node, &what, &test)?;
            }
        }
        Ok(())
    }
}

/// Runs a module that asks nothing of JavaScript.
const RUN_ALONE: &str = "const module = new WebAssembly.Module(require('fs').readFileSync(process.argv[1]));
    process.exit(new WebAssembly.Instance(module, {}).exports.main(0, 0));";

/// Whether a module asks anything of JavaScript, through wasm-bindgen, which does not read modules that do not.
fn asks_javascript(module: &Path) -> Result<bool> {
    const NAME: &[u8] = b"__wbindgen_placeholder__";
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    Ok(bytes.windows(NAME.len()).any(|bytes| bytes == NAME))
}

/// What a build needs beside the crates of the target.
fn feature(build: &WasmBuild) -> Option<String> {
    build.feature.map(|feature| format!("--features=sparse-simd/{feature}"))
}

/// What Node must be told to run a build: versions before 21 have relaxed SIMD behind a flag, later ones do not know it.
fn node_flags(build: &WasmBuild) -> Result<Option<&'static str>> {
    const RELAXED: &str = "--experimental-wasm-relaxed-simd";
    if build.feature.is_none() {
        return Ok(None);
    }
    let node = toolchain::which(&["node"]).context("no node")?;
    let options = program::output(Command::new(node).arg("--v8-options"))?;
    Ok(String::from_utf8_lossy(&options).contains(RELAXED).then_some(RELAXED))
}

/// Runs a test program; what it prints goes to stderr.
fn run(command: &mut Command, what: &str, test: &Program) -> Result<()> {
    let start = Instant::now();
    limited(command.current_dir(&test.folder).stdout(io::stderr()), what)?;
    eprintln!("{what}: ok, {} s", start.elapsed().as_secs());
    Ok(())
}

/// Runs an emulator, which must end with success within [`LIMIT`].
pub(super) fn limited(command: &mut Command, what: &str) -> Result<Vec<u8>> {
    interrupt::check()?;
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {what}"))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if interrupt::requested() || start.elapsed() > LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                interrupt::check()?;
                bail!("{what} has not ended after {} s", LIMIT.as_secs());
            }
            None => sleep(Duration::from_millis(20)),
        }
    };
    ensure!(status.success(), "{what} failed ({status})");
    let mut output = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        io::Read::read_to_end(&mut pipe, &mut output)?;
    }
    Ok(output)
}
