//! What several commands print alike.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use console::style;
use serde::Serialize;

/// Prints `value` as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Fails if no file can be made at `path`: before hours of work for it, not after.
#[cfg(feature = "calibrate")]
pub(crate) fn writable(path: &std::path::Path) -> anyhow::Result<()> {
    let problem = match path.metadata() {
        Ok(there) if there.is_dir() => Some("it is a folder"),
        Ok(there) if !there.is_file() => Some("it is no regular file"),
        Ok(there) if there.permissions().readonly() => Some("it is read-only"),
        _ if path.as_os_str().as_encoded_bytes().ends_with(b"/") => Some("it is the name of a folder"),
        _ => None,
    };
    let made = match (problem, path.metadata()) {
        (Some(problem), _) => Err(io::Error::other(problem)),
        // A name that is too long, say.
        (None, Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
        // Dropped at once, the new file disappears.
        _ => sparse_gguf::PendingFile::create(path).map(drop),
    };
    anyhow::Context::with_context(made, || {
        format!("cannot write `{}`: name another place with --out FILE", path.display())
    })
}

/// Fails if `out` is one of the files that are `read`: it would be lost.
#[cfg(feature = "calibrate")]
pub(crate) fn replaces_none(out: &std::path::Path, read: &[Option<&std::path::Path>]) -> anyhow::Result<()> {
    let same = |path: &&std::path::Path| match (path.canonicalize(), out.canonicalize()) {
        (Ok(path), Ok(out)) => path == out,
        _ => false,
    };
    match read.iter().copied().flatten().find(same) {
        Some(path) => Err(crate::exit::usage(format!(
            "--out names `{}`, which is read and would be replaced: name another file",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// `path` as a shell takes it.
#[cfg(feature = "calibrate")]
pub(crate) fn shell(path: &std::path::Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match path.chars().all(plain) && !path.is_empty() {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// A warning that nobody should miss.
pub(crate) fn warn(what: &str) {
    eprintln!("{} {what}", style("warning:").yellow().bold().for_stderr());
}

/// Aligned columns without lines. Columns whose `header` begins with `>` hold numbers, which align
/// on the right.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.map(|h| h.trim_start_matches('>'))).add_rows(rows);
    for (column, header) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if header.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// `n` per second; nothing when no time has passed.
pub(crate) fn rate(n: f64, time: Duration) -> Option<f64> {
    (n > 0.0 && !time.is_zero()).then(|| n / time.as_secs_f64())
}

/// `text` without the control characters that could change a terminal's state.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    match text.contains(harmful) {
        false => text.into(),
        true => text.replace(harmful, "\u{fffd}").into(),
    }
}

#[cfg(all(test, feature = "calibrate"))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_cannot_be_written_is_known_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refused = |path: &std::path::Path| format!("{:#}", writable(path).unwrap_err());
        assert!(refused(folder.path()).contains("it is a folder"));
        assert!(refused(&at("new/")).contains("it is the name of a folder"));
        assert!(refused(&at("no/such.gguf")).contains("name another place with --out FILE"));
        refused(&at(&"long".repeat(100)));
        #[cfg(unix)]
        assert!(refused(Path::new("/dev/null")).contains("it is no regular file"));
        std::fs::write(at("old"), "old").unwrap();
        writable(&at("old")).unwrap();
        writable(&at("new")).unwrap();
        let mut kept = at("old").metadata().unwrap().permissions();
        kept.set_readonly(true);
        std::fs::set_permissions(at("old"), kept).unwrap();
        assert!(refused(&at("old")).contains("it is read-only"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let replaces = |out: &str| replaces_none(&at(out), &[None, Some(&at("old"))]);
        assert!(replaces("new").is_ok());
        assert!(replaces("./old").unwrap_err().to_string().contains("would be replaced"));
    }

    #[test]
    fn paths_are_quoted_for_shells() {
        let quoted = ["a/b-1.gguf", "a b", "it's", ""].map(|path| shell(Path::new(path)));
        assert_eq!(quoted, ["a/b-1.gguf", "'a b'", "'it'\\''s'", "''"]);
    }
}
