//! From the words of a command line to [`Cli`].

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::Cli;

impl Cli {
    /// Reads the command line; ends the program on help and on errors.
    pub(crate) fn from_command_line() -> Self {
        Self::of(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    fn of(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let first = match Self::parse_args(&args) {
            Ok(cli) => return Ok(cli),
            Err(error) => error,
        };
        let unknown = match first.kind() {
            ErrorKind::InvalidSubcommand => first.get(ContextKind::InvalidSubcommand),
            ErrorKind::UnknownArgument => first.get(ContextKind::InvalidArg),
            _ => return Err(first),
        };
        // It may be a prompt, or options of `generate`, unless it looks like a command mistyped.
        let words = matches!(unknown, Some(ContextValue::String(text)) if text.contains(char::is_whitespace));
        let mistyped = first.get(ContextKind::SuggestedSubcommand).is_some();
        if mistyped && !words || Self::names_command(&args) {
            return Err(first);
        }
        let mut generate = args;
        generate.insert(generate.len().min(1), "generate".into());
        match Self::parse_args(&generate) {
            // A second word makes it no prompt, but a command that does not exist.
            Err(error)
                if first.kind() == ErrorKind::InvalidSubcommand
                    && error.kind() == ErrorKind::UnknownArgument
                    && !words =>
            {
                Err(first)
            }
            other => other,
        }
    }

    /// Whether a command is named, so that the arguments behind it are its own.
    fn names_command(args: &[OsString]) -> bool {
        let named = args.iter().skip(1).find(|arg| !arg.as_encoded_bytes().starts_with(b"-"));
        named.is_some_and(|name| Self::command().get_subcommands().any(|c| name == c.get_name()))
    }

    /// Parses with -1 as a value wherever a value may stand: what is no number there says so itself.
    fn parse_args(args: &[OsString]) -> Result<Self, clap::Error> {
        fn allow(command: clap::Command) -> clap::Command {
            let values = |arg: clap::Arg| match arg.get_action().takes_values() {
                true => arg.allow_negative_numbers(true),
                false => arg,
            };
            command.mut_args(values).mut_subcommands(allow)
        }
        let mut command = allow(Self::command());
        let matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::of(std::iter::once("sparse").chain(args.iter().copied()).map(OsString::from).collect())
    }

    #[test]
    fn a_prompt_needs_no_command() {
        for args in [
            &["Once upon a time"] as &[_],
            &["Hello"],
            &["-v", "Once upon a time"],
            &["-m", "/model.gguf", "Once upon a time", "-n", "-1"],
            &["--chat", "Why is the sky blue?", "--top-k", "-1"],
        ] {
            let cli = parse(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
            assert!(matches!(cli.command, Command::Generate(_)), "{args:?}");
        }
    }

    #[test]
    fn what_is_mistyped_is_no_prompt() {
        for (args, says) in [
            (&["genrate", "Hello"] as &[_], "genrate"),
            (&["tokenise"], "tokenize"),
            (&["nonsense", "Hello"], "nonsense"),
            (&["Once upon a time", "--bogus"], "--bogus"),
            (&["generate", "Hello", "--bogus"], "--bogus"),
            (&["embed", "--bogus"], "--bogus"),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
        assert_eq!(parse(&[]).unwrap_err().kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(parse(&["--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        assert_eq!(parse(&["--version"]).unwrap_err().kind(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn negative_numbers_are_values() {
        for args in [
            &[
                "generate",
                "Hi",
                "-n",
                "-1",
                "--top-k",
                "-1",
                "--repeat-window",
                "-1",
                "--seed",
                "-1",
                "-t",
                "-1",
            ] as &[_],
            &["generate", "Hi", "--greedy", "--seed", "7", "-t", "0", "-c", "0"],
            &["generate", "Hi", "-n-1", "--top-k=-1"],
            &["perplexity", "--text", "x", "--windows", "-1", "-t", "0"],
            &["bench", "-t", "0,1"],
            &["embed", "Hi", "-t", "0"],
            &["calibrate", "-t", "0", "--max-loss", "1%"],
        ] {
            parse(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        }
        for (args, says) in [
            (&["generate", "Hi", "-n", "-5"] as &[_], "-1 for no limit"),
            (&["bench", "-p", "-1"], "'-1'"),
            (&["generate", "Hi", "--temperature", "-1"], "at least 0"),
            (&["calibrate", "--max-loss", "1"], "write 1%"),
            (&["calibrate", "--max-loss", "-1"], "write -1%"),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }
}
