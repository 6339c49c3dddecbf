//! How the program ends: exit codes and error messages.

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use console::style;

/// How a command that did not fail came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All work done.
    Finished,
    /// Ctrl-C: what was done until then is printed.
    Interrupted,
}

/// Exit code after Ctrl-C: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error of the command line: exit code 2.
pub(crate) fn usage(message: impl std::fmt::Display) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into()
}

/// Refuses options that were given but mean nothing with `what`.
#[cfg(feature = "calibrate")]
pub(crate) fn refuse(what: &str, given: &[(&str, bool)]) -> anyhow::Result<()> {
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(usage(format!("{option} means nothing with {what}: leave it out"))),
        None => Ok(()),
    }
}

/// The exit code for `result`; prints the error if it is one.
pub(crate) fn code(result: anyhow::Result<End>) -> ExitCode {
    let error = match result {
        Ok(End::Finished) => return ExitCode::SUCCESS,
        Ok(End::Interrupted) => return ExitCode::from(INTERRUPTED),
        Err(error) => error,
    };
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // Nothing is left to do when stderr is closed.
        let _ = usage.print();
        return ExitCode::from(2);
    }
    // `sparse ... | head`: the reader has what it wanted.
    if error.chain().any(|e| e.downcast_ref().is_some_and(is_broken_pipe)) {
        return ExitCode::SUCCESS;
    }
    print(&error);
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn print(error: &anyhow::Error) {
    let mut shown = error.to_string();
    eprintln!("{} {shown}", style("error:").red().bold().for_stderr());
    for cause in error.chain().skip(1) {
        // Many errors of libraries end with the text of their cause.
        let text = cause.to_string();
        if !shown.contains(&text) {
            eprintln!("  because: {text}");
            shown = text;
        }
    }
}
