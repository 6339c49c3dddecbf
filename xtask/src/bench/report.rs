//! The report: tables for people, the same figures as JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::machine::Machine;

/// Tables, printed as they are added.
pub(super) struct Report {
    markdown: String,
    sections: Map<String, Value>,
    machine: Machine,
}

/// Columns that a table shows, in order, and how a figure is written there.
pub(super) type Columns<T> = [(&'static str, fn(&T) -> String)];

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        let markdown = format!("{}\n", machine.line());
        println!("{markdown}");
        Self { markdown, sections: Map::new(), machine }
    }

    /// Adds a section with a table of `rows`, all of whose fields go into the JSON.
    pub(super) fn table<T: Serialize>(
        &mut self,
        title: &str,
        note: &str,
        columns: &Columns<T>,
        rows: &[T],
    ) -> Result<()> {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("\n## {title}\n\n{note}\n\n");
        text += &line(columns.iter().map(|c| c.0.to_owned()).collect());
        text += &line(columns.iter().map(|_| "---".to_owned()).collect());
        for row in rows {
            text += &line(columns.iter().map(|c| c.1(row)).collect());
        }
        print!("{text}");
        self.markdown += &text;
        self.sections.insert(title.to_owned(), json!({ "note": note, "rows": rows }));
        Ok(())
    }

    /// Writes `<out>.md` and `<out>.json`.
    pub(super) fn write(self, out: &Path) -> Result<()> {
        let (markdown, json) = (out.with_extension("md"), out.with_extension("json"));
        let all = json!({ "machine": self.machine, "sections": self.sections });
        for (path, text) in [(&markdown, self.markdown), (&json, serde_json::to_string_pretty(&all)?)] {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("\nwritten to {} and {}", markdown.display(), json.display());
        Ok(())
    }
}
