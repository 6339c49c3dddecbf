//! Runs the `sparse` program on tiny models that the tests write themselves, and on the one inside it.

mod bench;
mod conversation;
mod embed;
mod errors;
mod experts;
mod generate;
mod inspect;
mod interrupt;
mod neurons;
mod perplexity;
#[cfg(feature = "pull")]
mod pull;
mod sparse;
#[cfg(feature = "story")]
mod story;
mod tokenize;

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use sparse_testdata::{File, TinyLlama, Vocabulary};
use tempfile::TempDir;

/// A folder of files for one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self, file: &File) -> PathBuf {
        self.write("model.gguf", file.to_bytes())
    }
}

/// What a run of the program left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The stdout of a run that succeeded, whatever it says on stderr.
    #[track_caller]
    fn done(&self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout.clone()
    }

    /// The stdout of a run that succeeded without a word on stderr.
    #[track_caller]
    fn ok(self) -> String {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:#?}");
        self.stdout
    }

    /// Fails unless the run failed with this code, nothing on stdout and an error that has all `parts`.
    #[track_caller]
    fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert!(self.stderr.starts_with("error: "), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
    }
}

/// The program with these arguments, away from the settings of whoever runs the tests.
fn sparse<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparse"));
    command.args(args);
    ["SPARSE_MODEL", "SPARSE_ENCODER", "RUST_LOG"].iter().for_each(|name| _ = command.env_remove(name));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run<S: AsRef<OsStr>>(args: &[S]) -> Run {
    Run::of(sparse(args).output().unwrap())
}

fn run_with_stdin<S: AsRef<OsStr>>(args: &[S], stdin: &[u8]) -> Run {
    let mut child = sparse(args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// Arguments of any kind as one list.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(::std::ffi::OsString::from($arg)),*] };
}
use args;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

fn llama() -> TinyLlama {
    TinyLlama { vocabulary: Vocabulary::Llama, ..TinyLlama::default() }
}

#[test]
fn help_explains_every_command() {
    let help = run(&["--help"]).ok();
    for part in ["generate", "inspect", "tokenize", "perplexity", "Exit codes:", "130", "SPARSE_SIMD"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
    for command in ["generate", "inspect", "tokenize", "perplexity", "embed", "similarity", "search"] {
        let help = run(&[command, "--help"]).ok();
        assert!(help.contains(&format!("Examples:\n  sparse {command} ")), "{help}");
    }
    // Defaults are those of the library.
    let help = run(&["generate", "--help"]).ok();
    let sampler = sparse_model::SamplerConfig::default();
    for (flag, value) in [("--temperature <X>", sampler.temperature), ("--top-p <P>", sampler.top_p)] {
        let at = help.find(flag).unwrap_or_else(|| panic!("no {flag} in {help}"));
        let shown = help[at..].find("[default: ").map(|i| &help[at + i + "[default: ".len()..]);
        assert!(shown.is_some_and(|s| s.starts_with(&format!("{value}]"))), "{flag}: {help}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(run(&["--version"]).ok(), format!("sparse {}\n", env!("CARGO_PKG_VERSION")));
}
