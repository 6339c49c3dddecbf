//! `prose`: the limits that pages keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::program;

/// Most words of a sentence.
const WORDS: usize = 35;

/// Most columns of a line of prose.
const COLUMNS: usize = 100;

/// Finds sentences above 35 words and lines of prose above 100 columns in Markdown files.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these files.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let files = if args.files.is_empty() { tracked()? } else { args.files.clone() };
    let mut found = 0;
    for file in &files {
        let text =
            fs::read_to_string(crate::root().join(file)).with_context(|| file.display().to_string())?;
        for (line, problem) in problems(&text) {
            println!("{}:{line}: {problem}", file.display());
            found += 1;
        }
    }
    if found > 0 {
        bail!("{found} sentences or lines are too long");
    }
    println!("{} pages", files.len());
    Ok(())
}

/// All Markdown files that git knows.
fn tracked() -> Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(crate::root()).args(["ls-files", "-z", "*.md"]).stderr(Stdio::inherit());
    let names = String::from_utf8(program::output(&mut git)?).context("file names are not UTF-8")?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(|name| Path::new(name).to_owned()).collect())
}

/// Line numbers and what is wrong there, in the order of the text.
fn problems(markdown: &str) -> Vec<(usize, String)> {
    let line_of = |offset: usize| markdown[..offset].bytes().filter(|b| *b == b'\n').count() + 1;
    let mut found = Vec::new();
    let mut text = None::<String>;
    let parser = Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter();
    for (event, range) in parser {
        match event {
            // Tight list items hold text without a paragraph.
            Event::Start(Tag::Paragraph | Tag::Item) => text = Some(String::new()),
            Event::Start(Tag::CodeBlock(_) | Tag::Table(_) | Tag::Heading { .. }) => text = None,
            Event::Text(part) => text.iter_mut().for_each(|text| text.push_str(&part)),
            Event::Code(_) => text.iter_mut().for_each(|text| text.push_str("code")),
            Event::SoftBreak | Event::HardBreak => text.iter_mut().for_each(|text| text.push(' ')),
            Event::End(TagEnd::Paragraph | TagEnd::Item) => {
                let Some(text) = text.take() else { continue };
                for sentence in sentences(&text) {
                    let words = sentence.split_whitespace().count();
                    if words > WORDS {
                        let start: String = sentence.chars().take(60).collect();
                        found.push((line_of(range.start), format!("{words} words: {start}...")));
                    }
                }
                let first = line_of(range.start);
                for (i, line) in markdown[range].lines().enumerate() {
                    let columns = line.chars().count();
                    // A link or a command cannot be broken.
                    if columns > COLUMNS && line.chars().take(COLUMNS).skip(20).any(char::is_whitespace) {
                        found.push((first + i, format!("{columns} columns")));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// Splits at full stops, question and exclamation marks before white space.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', '\n'])
        .scan(0, |end, word| {
            *end += word.len();
            Some((*end, word.trim_end().ends_with(['.', '!', '?', ':'])))
        })
        .filter_map(|(end, stops)| (stops || end == text.len()).then_some(end))
        .scan(0, |start, end| Some(&text[std::mem::replace(start, end)..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sentences_and_lines_are_found() {
        let long = "word ".repeat(36);
        let page = format!(
            "# Title\n\nShort. {long}.\n\n- {long}\n\n```text\n{long}\n```\n\n| a |\n|---|\n| {long} |\n"
        );
        let lines: Vec<_> =
            problems(&page).into_iter().map(|(line, problem)| (line, problem.contains("words"))).collect();
        assert_eq!(lines, [(3, true), (3, false), (5, true), (5, false)]);
        assert!(problems(&format!("{}.\n", "word ".repeat(19).trim_end())).is_empty());
    }

    #[test]
    fn sentences_end_at_marks() {
        assert_eq!(sentences("One. Two? Three").collect::<Vec<_>>(), ["One. ", "Two? ", "Three"]);
        assert_eq!(sentences("0.5 is no end").collect::<Vec<_>>(), ["0.5 is no end"]);
    }
}
