//! Text from arguments, files and stdin.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, bail};

/// The text of an argument, or of stdin when there is none or it is `-`.
pub(crate) fn argument_or_stdin(argument: Option<&OsString>, what: &str) -> anyhow::Result<String> {
    match argument {
        Some(text) if text != "-" => utf8(text.as_encoded_bytes().to_vec(), what),
        _ => stdin(what),
    }
}

/// The content of the file at `path`; `-` is stdin.
pub(crate) fn file(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == OsStr::new("-") {
        return stdin("text");
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    utf8(bytes, &format!("`{}`", path.display()))
}

fn stdin(what: &str) -> anyhow::Result<String> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("Reading the {what} from the terminal; end it with Ctrl-D.");
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).context("cannot read stdin")?;
    utf8(bytes, &format!("{what} from stdin"))
}

fn utf8(bytes: Vec<u8>, what: &str) -> anyhow::Result<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(e) => {
            let offset = e.utf8_error().valid_up_to();
            let byte = e.as_bytes()[offset];
            bail!("{what} is not valid utf-8: byte 0x{byte:02x} at offset {offset}")
        }
    }
}
