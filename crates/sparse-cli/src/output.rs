//! What several commands print alike.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use sparse_gguf::PendingFile;

/// Prints `value` as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Fails if no file can be made at `path`: before hours of work for it, not after.
pub(crate) fn writable(path: &Path) -> anyhow::Result<()> {
    // Dropped at once, it disappears.
    PendingFile::create(path)
        .with_context(|| format!("cannot write `{}`: name another place with --out FILE", path.display()))?;
    Ok(())
}

/// Aligned columns without lines. Columns whose `header` begins with `>` hold numbers, which align on the right.
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
