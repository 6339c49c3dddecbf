//! The `sparse` program: text generation and the tools around it, for GGUF models.

mod args;
mod commands;
#[cfg(feature = "embed")]
mod encoder;
mod exit;
#[cfg(feature = "embed")]
mod index;
mod input;
mod interrupt;
mod load;
#[cfg(feature = "embed")]
mod npy;
mod output;
#[cfg(any(feature = "calibrate", feature = "embed"))]
mod progress;
mod sidecars;
#[cfg(feature = "story")]
mod story;

use std::process::ExitCode;

use sparse_simd::Kernels;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::from_command_line();
    log_to_stderr(cli.verbose);
    exit::code(run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<exit::End> {
    // Nobody who sets SPARSE_SIMD wants it ignored because of a typing error.
    Kernels::try_get().map_err(|e| exit::usage(format!("SPARSE_SIMD: {e}")))?;
    match &cli.command {
        Command::Generate(args) => commands::generate::run(args, cli.verbose > 0),
        #[cfg(feature = "chat")]
        Command::Chat(args) => commands::chat::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => commands::serve::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        #[cfg(feature = "chat")]
        Command::ChatTemplate(args) => commands::chat_template::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        #[cfg(feature = "calibrate")]
        Command::Perplexity(args) => commands::perplexity::run(args),
        Command::Bench(args) => commands::bench::run(args),
        #[cfg(feature = "calibrate")]
        Command::Calibrate(args) => commands::calibrate::run(args),
        Command::Convert(args) => commands::convert::run(args),
        #[cfg(feature = "calibrate")]
        Command::Profile(args) => commands::profile::run(args),
        #[cfg(feature = "embed")]
        Command::Embed(args) => commands::embed::run(args),
        #[cfg(feature = "embed")]
        Command::Similarity(args) => commands::similarity::run(args),
        #[cfg(feature = "embed")]
        Command::Search(args) => commands::search::run(args),
        #[cfg(feature = "pull")]
        Command::Pull(args) => commands::pull::run(args),
        #[cfg(feature = "shell")]
        Command::Completions(args) => commands::shell::completions(args),
        #[cfg(feature = "shell")]
        Command::Man(args) => commands::shell::man(args),
    }
}

/// Warnings only, unless `-v` or `RUST_LOG` ask for more.
fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "warn,sparse=info",
        _ => "info,sparse=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(console::colors_enabled_stderr())
        .without_time()
        .init();
}
