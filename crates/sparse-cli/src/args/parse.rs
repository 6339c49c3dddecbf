//! From the words of a command line to [`Cli`].

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches};

use super::Cli;

/// Features that have commands: whether they are on, and the commands.
const OPTIONAL: [(&str, bool, &[&str]); 6] = [
    ("calibrate", cfg!(feature = "calibrate"), &["calibrate", "perplexity", "profile"]),
    ("chat", cfg!(feature = "chat"), &["chat", "chat-template"]),
    ("embed", cfg!(feature = "embed"), &["embed", "search", "similarity"]),
    ("pull", cfg!(feature = "pull"), &["pull"]),
    ("serve", cfg!(feature = "serve"), &["serve"]),
    ("shell", cfg!(feature = "shell"), &["completions", "man"]),
];

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
        if let Some(error) = first_word(&args).and_then(left_out) {
            return Err(error);
        }
        let unknown = match first.kind() {
            ErrorKind::InvalidSubcommand => first.get(ContextKind::InvalidSubcommand),
            ErrorKind::UnknownArgument => first.get(ContextKind::InvalidArg),
            // "-help me" is a text.
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if args.iter().any(is_text) => None,
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
        first_word(args).is_some_and(|name| Self::command().get_subcommands().any(|c| name == c.get_name()))
    }

    /// Parses with -1 as a value wherever a value may stand: what is no number there says so itself. A text such as
    /// "- one" that would be no option is a text.
    fn parse_args(args: &[OsString]) -> Result<Self, clap::Error> {
        match Self::parse_with(args, false) {
            Err(_) if args.iter().skip(1).any(is_text) => Self::parse_with(args, true),
            other => other,
        }
    }

    /// Parses; a command's only text may begin with a hyphen if `hyphens` are allowed.
    fn parse_with(args: &[OsString], hyphens: bool) -> Result<Self, clap::Error> {
        fn allow(command: clap::Command, hyphens: bool) -> clap::Command {
            let values = |arg: clap::Arg| match arg.get_action() {
                // Of several texts, each would take the options behind it, too.
                ArgAction::Set if hyphens && arg.is_positional() => arg.allow_hyphen_values(true),
                action if action.takes_values() => arg.allow_negative_numbers(true),
                _ => arg,
            };
            command.mut_args(values).mut_subcommands(|command| allow(command, hyphens))
        }
        let mut command = allow(Self::command(), hyphens);
        let matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// The first argument that is no option.
fn first_word(args: &[OsString]) -> Option<&OsString> {
    args.iter().skip(1).find(|arg| !arg.as_encoded_bytes().starts_with(b"-"))
}

/// What to say if `name` is a command that this program was built without. It would else be taken for a prompt.
fn left_out(name: &OsString) -> Option<clap::Error> {
    let (feature, ..) =
        OPTIONAL.iter().find(|(_, on, commands)| !on && commands.iter().any(|c| name == c))?;
    let name = name.display();
    let message = format!(
        "this program was built without `{name}`, a part of its feature `{feature}`\n\n  \
         In the source tree, `cargo build --release -p sparse-cli --features {feature}` builds it with that.\n"
    );
    Some(clap::Error::raw(ErrorKind::InvalidSubcommand, message))
}

/// Whether an argument begins with a hyphen, but is a text: of several words, the first of which is no option.
fn is_text(arg: &OsString) -> bool {
    let Some(text) = arg.to_str().filter(|text| text.starts_with('-')) else { return false };
    let Some((first, _)) = text.split_once(char::is_whitespace) else { return false };
    let named = |arg: &clap::Arg| match first.strip_prefix("--") {
        Some(name) => arg.get_long() == Some(name.split('=').next().unwrap_or(name)),
        None => arg.get_short().is_some_and(|short| first == format!("-{short}")),
    };
    !Cli::command().get_subcommands().any(|command| command.get_arguments().any(named))
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
    fn texts_of_several_words_may_begin_with_a_hyphen() {
        for text in
            ["- one item", "-name is John", "-help me", "--- title", "---\ntitle: x", "-5 degrees", "--x y"]
        {
            for args in [&["generate", text] as &[_], &[text], &["generate", text, "--greedy", "-n", "-1"]] {
                let cli = parse(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
                let Command::Generate(generate) = cli.command else { panic!("{args:?}") };
                assert_eq!(generate.prompt, Some(text.into()), "{args:?}");
                assert_eq!(generate.max_tokens == usize::MAX, args.len() > 2, "{args:?}");
            }
            for args in [
                &["tokenize", "--ids", text] as &[_],
                &["chat-template", text, "--ids"],
                &["similarity", text, "other", "--json"],
                &["search", "--docs", "x", text],
            ] {
                parse(args).unwrap_or_else(|e| panic!("{args:?}: {e}"));
            }
        }
        // One word may be an option mistyped; the error says how it is a text.
        for args in [&["generate", "-xyz"] as &[_], &["embed", "- one", "two"]] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains("use '-- -"), "{args:?}: {error}");
        }
        for args in [
            &["generate", "- one item", "--bogus"] as &[_],
            &["generate", "--temperature 0.5"],
            &["generate", "--max-tokens=5 x", "Hi"],
            &["generate", "-n 5"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
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

    /// Defaults are parsed as well, and may be values that no one can give.
    #[test]
    fn every_command_has_defaults_that_it_takes() {
        let mut lines = vec![
            "generate",
            "generate --chat Hi",
            "inspect --cpu",
            "tokenize Hi",
            "chat-template Hi",
            "bench",
            "convert -m x",
            "embed Hi",
            "similarity Hi Hello",
            "search --docs x Hi",
            "completions bash",
            "man",
        ];
        lines.extend(cfg!(feature = "chat").then_some("chat"));
        lines.extend(cfg!(feature = "serve").then_some("serve"));
        if cfg!(feature = "calibrate") {
            lines.extend(["perplexity --text x", "calibrate", "profile --text x"]);
        }
        for line in lines {
            let args: Vec<_> = line.split(' ').collect();
            parse(&args).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
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
            &["embed", "Hi", "-t", "0", "--max-tokens", "-1"],
            &["calibrate", "-t", "0", "--max-loss", "1%", "--tune-tokens", "-1", "--test-tokens", "-1"],
            &["calibrate", "--fit-tokens", "-1", "--continuations", "-1"],
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

    #[test]
    fn commands_that_were_left_out_are_no_prompts() {
        for (feature, on, commands) in OPTIONAL {
            for name in commands {
                let known = Cli::command().get_subcommands().any(|c| c.get_name() == *name);
                assert_eq!(known, on, "{name}");
                let error = parse(&[name, "-m", "x.gguf", "--no-such-option"]).unwrap_err().to_string();
                let told =
                    error.contains(&format!("built without `{name}`, a part of its feature `{feature}`"));
                assert_eq!(told, !on, "{error}");
            }
        }
    }
}
