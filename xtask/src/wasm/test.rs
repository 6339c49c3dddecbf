//! Tests of the packed packages, as somebody else's program installs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{copy, folder};
use crate::cross::{Job, WASM, which};
use crate::program::{output, program, run as run_program};
use crate::web::Server;

/// Programs that may be Chromium.
const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Programs that may be Firefox.
const FIREFOX: [&str; 2] = ["firefox", "firefox-esr"];
const PROMPT: &str = "Once upon a time";
const SENTENCES: [&str; 4] = [
    "A cat sleeps on the warm stone.",
    "The kitten is resting in the sun.",
    "Interest rates rose again.",
    "",
];

/// Installs `packed` beside the tests and runs them.
pub(super) fn run(packed: &[PathBuf]) -> Result<()> {
    bindings()?;
    let node = which(&["node"]).context("no `node`")?;
    let npm = which(&["npm"]).context("no `npm`")?;
    let chromium = which(&CHROMIUM).context("no Chromium: install the package chromium")?;
    let tests = folder().join("test");
    copy(&crate::root().join("crates/sparse-wasm/tests"), &tests)?;
    let mut npm = Command::new(npm);
    npm.current_dir(&tests).args(["install", "--silent", "--no-package-lock", "--no-audit", "--no-fund"]);
    run_program(npm.args(packed))?;
    fs::write(tests.join("native.json"), serde_json::to_string_pretty(&native()?)?)?;

    let mut types = Command::new(&node);
    types.current_dir(&tests).args(["node_modules/typescript/bin/tsc", "--project", "types"]);
    run_program(&mut types)?;
    println!("types: ok");

    let url = Server::bind(0)?.start();
    let suite = |browser: &Path, pictures: &str, files: &[&str]| {
        let mut suite = Command::new(&node);
        suite.current_dir(&tests).env("SITE", &url).env("BROWSER", browser).env("MODELS", crate::models());
        suite.env("SCREENSHOTS", folder().join(pictures));
        suite.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]).args(files);
        run_program(&mut suite)
    };
    suite(&chromium, "screenshots", &["node.test.mjs", "browser.test.mjs", "bundle.test.mjs"])?;
    match which(&FIREFOX) {
        Some(firefox) => suite(&firefox, "screenshots/firefox", &["browser.test.mjs"]),
        None => {
            eprintln!("not tested in Firefox, which is not installed");
            Ok(())
        }
    }
}

/// The tests of the bindings alone, by wasm-bindgen's own program for tests: in Node and in Chromium.
fn bindings() -> Result<()> {
    let runner = which(&["wasm-bindgen-test-runner"]).context("no `wasm-bindgen-test-runner`")?;
    let driver =
        which(&["chromedriver"]).context("no `chromedriver`: install the package chromium-driver")?;
    let (job, [_, build, _]) = (Job::wasm()?, &WASM);
    for browser in [false, true] {
        let mut cargo = job.cargo_wasm("test", build);
        cargo.args(["-psparse-wasm", "--test", "bindings"]);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", &runner);
        if browser {
            cargo.env("WASM_BINDGEN_USE_BROWSER", "1").env("CHROMEDRIVER", &driver);
        }
        run_program(&mut cargo)?;
    }
    Ok(())
}

/// What the native program says of the story model, and of the models that are there.
fn native() -> Result<Value> {
    let mut native = json!({ "prompt": PROMPT, "sentences": SENTENCES });
    native["story"] = greedy(None, 96)?;
    let smol = crate::models().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if smol.exists() {
        native["smol"] = greedy(Some(&smol), 48)?;
        native["smol"]["file"] = smol.to_string_lossy().into();
    }
    let minilm = crate::models().join("all-MiniLM-L6-v2");
    if minilm.exists() {
        let texts = folder().join("sentences.txt");
        fs::write(&texts, SENTENCES.map(|text| format!("{text}\n")).concat())?;
        let mut sparse = program("sparse-cli", &["--bin", "sparse"]);
        sparse.args(["embed", "--json", "--model"]).arg(&minilm).arg("--file").arg(&texts);
        let vectors: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&output(&mut sparse)?)
            .into_iter::<Value>()
            .map(|line| line.map(|line| line["embedding"].clone()))
            .collect();
        native["minilm"] = json!({ "folder": minilm, "vectors": vectors? });
    }
    Ok(native)
}

/// The greedy text of a model, by the kernels that all others are measured by.
fn greedy(model: Option<&Path>, tokens: usize) -> Result<Value> {
    let mut sparse = program("sparse-cli", &["--bin", "sparse"]);
    sparse.args(["generate", "--greedy", "--json", "--ignore-eos", "--threads", "1", "--logprobs", "2"]);
    sparse.args(["--max-tokens", &tokens.to_string()]);
    if let Some(model) = model {
        sparse.arg("--model").arg(model);
    }
    sparse.env("SPARSE_SIMD", "scalar").args(["--head", "dense", "--", PROMPT]);
    let text = output(&mut sparse)?;
    let value: Value = serde_json::from_slice(&text)?;
    ensure!(value["tokens"].is_array(), "no tokens in {value}");
    Ok(value)
}
