//! `wasm`: the npm packages, built, packed and tested.

mod sizes;
mod test;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cross::{Job, WASM, WasmBuild, wasm_bindgen, which};
use crate::program;

/// Builds the npm packages sparse-wasm and sparse-wasm-story into target/npm, and packs them.
///
/// Needs the standard library of wasm32-unknown-unknown, wasm-bindgen-cli of the version in Cargo.lock, wasm-opt (of npm's
/// binaryen) and npm.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tests the packed packages in Node, in Chromium, and in Firefox if it is installed: texts and embeddings against the native program's, hostile
    /// files, types, bundlers, and the demonstration page. Installs puppeteer-core, TypeScript, Vite and webpack from npm.
    #[arg(long)]
    test: bool,
    /// Prints which crates the bytes are of.
    #[arg(long)]
    sizes: bool,
    /// Takes the WebAssembly as the last call left it.
    #[arg(long)]
    no_build: bool,
}

/// Where packages go.
pub(crate) fn folder() -> PathBuf {
    crate::root().join("target/npm")
}

/// The WebAssembly of the package.
fn file(build: &WasmBuild) -> PathBuf {
    folder().join("sparse-wasm/wasm").join(format!("{}.wasm", build.name))
}

/// The same before names of functions are removed.
fn named_file(build: &WasmBuild) -> PathBuf {
    folder().join("bindgen").join(build.name).join("named.wasm")
}

pub(crate) fn run(args: &Args) -> Result<()> {
    assemble()?;
    if !args.no_build {
        build()?;
    }
    site()?;
    sizes::print()?;
    if args.sizes {
        sizes::print_by_crate()?;
    }
    let packed = pack()?;
    if args.test {
        test::run(&packed)?;
    }
    Ok(())
}

/// Builds the WebAssembly in every form.
fn build() -> Result<()> {
    let job = Job::wasm()?;
    let bindgen = wasm_bindgen()?;
    let optimizer = which(&["wasm-opt"]).context("no `wasm-opt`: run `npm install --global binaryen`")?;
    let package = folder().join("sparse-wasm/wasm");
    fs::create_dir_all(&package)?;
    let mut glue = Vec::new();
    for build in &WASM {
        let mut cargo = job.cargo_wasm("build", build);
        cargo.args(["--profile", "wasm", "-psparse-wasm", "--lib"]);
        program::run(cargo.args(build.feature.map(|feature| format!("--features={feature}"))))?;
        let made = folder().join("bindgen").join(build.name);
        let mut bindgen = Command::new(&bindgen);
        bindgen.args(["--target", "web", "--no-typescript", "--omit-default-module-path"]);
        bindgen.args(["--out-name", "bindings", "--out-dir"]).arg(&made);
        program::run(bindgen.arg(job.wasm_target(build, "wasm").join("sparse_wasm.wasm")))?;
        let mut optimize = Command::new(&optimizer);
        optimize.arg(made.join("bindings_bg.wasm")).args(["-O3", "-g", "-o"]).arg(named_file(build));
        program::run(optimize.args(features(build)))?;
        let mut strip = Command::new(&optimizer);
        strip.arg(named_file(build)).args(["--strip-debug", "--strip-producers", "-o"]).arg(file(build));
        program::run(strip.args(features(build)))?;
        glue.push(fs::read(made.join("bindings.js"))?);
    }
    ensure!(glue.iter().all(|other| *other == glue[0]), "the builds need different bindings");
    fs::write(package.join("bindings.js"), &glue[0])?;
    Ok(())
}

/// What rustc uses of WebAssembly. With all features, wasm-opt writes what no browser reads yet.
fn features(build: &WasmBuild) -> Vec<&'static str> {
    let mut features = vec![
        "--enable-bulk-memory",
        "--enable-bulk-memory-opt",
        "--enable-multivalue",
        "--enable-mutable-globals",
        "--enable-nontrapping-float-to-int",
        "--enable-reference-types",
        "--enable-sign-ext",
    ];
    match build.name {
        "simd128" => features.push("--enable-simd"),
        "relaxed-simd" => features.extend(["--enable-simd", "--enable-relaxed-simd"]),
        _ => {}
    }
    features
}

/// Copies what is not built.
fn assemble() -> Result<()> {
    let root = crate::root();
    let crate_folder = root.join("crates/sparse-wasm");
    let package = folder().join("sparse-wasm");
    copy(&crate_folder.join("js"), &package)?;
    let story = folder().join("sparse-wasm-story");
    copy(&crate_folder.join("story"), &story)?;
    for name in ["story.gguf", "story.sparse.gguf"] {
        fs::copy(root.join("crates/sparse-cli/story").join(name), story.join(name))?;
    }
    for folder in [&package, &story] {
        let manifest = folder.join("package.json");
        let text = fs::read_to_string(&manifest)?.replace("0.0.0", env!("CARGO_PKG_VERSION"));
        fs::write(&manifest, text)?;
        for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
            fs::copy(root.join(license), folder.join(license))?;
        }
    }
    Ok(())
}

/// The demonstration page with everything that it loads: a folder of static files.
fn site() -> Result<()> {
    let site = folder().join("site");
    copy(&crate::root().join("examples/web"), &site)?;
    copy(&folder().join("sparse-wasm"), &site.join("sparse-wasm"))?;
    copy(&folder().join("sparse-wasm-story"), &site.join("story"))
}

/// Copies the files of a folder, and those in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (path, name) = entry.map(|e| (e.path(), e.file_name()))?;
        match path.is_dir() {
            true => copy(&path, &to.join(name))?,
            false => fs::copy(&path, to.join(name)).map(drop)?,
        }
    }
    Ok(())
}

/// Packs both packages; returns the files.
fn pack() -> Result<Vec<PathBuf>> {
    let npm = which(&["npm"]).context("no `npm`: install Node")?;
    let mut packed = Vec::new();
    for package in ["sparse-wasm", "sparse-wasm-story"] {
        let mut npm = Command::new(&npm);
        npm.current_dir(folder().join(package)).args(["pack", "--silent", "--pack-destination"]);
        let name = program::output(npm.arg(folder()))?;
        let file = folder().join(String::from_utf8_lossy(&name).trim());
        println!("{} ({} kB)", file.display(), fs::metadata(&file)?.len() / 1000);
        packed.push(file);
    }
    Ok(packed)
}
