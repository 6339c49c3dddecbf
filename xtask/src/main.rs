//! Project chores, run as `cargo xtask`.

mod bench;
mod cross;
mod features;
mod fetch;
mod fuzz;
mod interrupt;
mod make;
mod program;
mod prose;
mod verify;
mod wasm;
mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project chores: fetch models, make test models, check the real model, measure speed.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    max_term_width = 100,
    after_help = "\
Examples:
  cargo xtask fetch                                SmolLM2 (98 MB) into models/
  cargo xtask fetch all                            and all-MiniLM-L6-v2 (92 MB)
  cargo xtask gen tiny --out models/tiny.gguf --format Q6_K
  cargo xtask gen 7b --out 7b.gguf                 Llama-7B's shape, random weights
  cargo xtask gen story --format Q4_0 --out w.gguf the story model's architecture, eight times as wide
  cargo xtask bench                                kernels and models beside the memory bandwidth
  cargo xtask bench --peers                        models beside llama.cpp and candle
  cargo xtask cross                                the crates, built for every target
  cargo xtask cross wasm32 --test --install        tested in Node, with what that needs
  cargo xtask features                             each crate by itself, with each feature alone
  cargo xtask fuzz --seconds 600                   files, templates and requests of strangers
  cargo xtask prose                                sentences and lines that are too long in pages
  cargo xtask verify                               the real model against committed references
  cargo xtask verify story                         exact zeros change no text of the story model
  cargo xtask wasm                                 the npm packages, and their sizes
  cargo xtask wasm --test                          tested in Node and in Chromium
  cargo xtask web                                  the demonstration page on http://127.0.0.1:8000"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bench(bench::Args),
    Cross(cross::Args),
    Features(features::Args),
    Fetch(fetch::Args),
    Fuzz(fuzz::Args),
    Gen(make::Args),
    Prose(prose::Args),
    Verify(verify::Args),
    Wasm(wasm::Args),
    Web(web::Args),
}

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::handle().and_then(|()| match &cli.task {
        Task::Bench(args) => bench::run(args),
        Task::Cross(args) => cross::run(args),
        Task::Features(args) => features::run(args),
        Task::Fetch(args) => fetch::run(args),
        Task::Fuzz(args) => fuzz::run(args),
        Task::Gen(args) => make::run(args),
        Task::Prose(args) => prose::run(args),
        Task::Verify(args) => verify::run(args),
        Task::Wasm(args) => wasm::run(args),
        Task::Web(args) => web::run(args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::requested() => {
            eprintln!("interrupted; nothing half-written is left");
            ExitCode::from(INTERRUPTED)
        }
        Err(e) => {
            eprintln!("error: {}", message(&e));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes. Many errors of libraries end with the text of their cause.
fn message(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |shown, cause| {
        if shown.contains(&cause) { shown } else { format!("{shown}: {cause}") }
    })
}

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where models are kept unless a task is told otherwise; git ignores it.
fn models() -> PathBuf {
    root().join("models")
}
