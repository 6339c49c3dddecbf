//! Keeps the names of control tokens in messages from being read as these tokens.
//!
//! Such a name is put between two marks before the template sees it. The marks are noncharacters, which Unicode
//! reserves for a program's own use. They are taken out of the rendered text again, which tells where a name came
//! from: the template, or a message.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use minijinja::Value;
use minijinja::value::ValueKind;

use crate::tokenizer::{Tokenizer, TokenizerError};

const START: char = '\u{fdd0}';
const END: char = '\u{fdd1}';

/// Marks the names of tokens.
pub(super) struct Marker {
    names: AhoCorasick,
}

impl Marker {
    /// A marker of the control tokens, and of the tokens that the template's `source` writes.
    pub(super) fn new(tokenizer: &Tokenizer, source: &str) -> Result<Self, TokenizerError> {
        let names = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokenizer.chat_tokens(source))
            .map_err(|e| TokenizerError::SpecialTokens(e.to_string()))?;
        Ok(Self { names })
    }

    /// `value` with all texts in it marked. Keys are left as they are.
    pub(super) fn mark(&self, value: &Value) -> Value {
        let items = || value.try_iter().into_iter().flatten();
        match value.kind() {
            ValueKind::String => self.marked(value.as_str().unwrap_or_default()).into(),
            ValueKind::Seq => items().map(|item| self.mark(&item)).collect::<Vec<_>>().into(),
            ValueKind::Map => {
                let field = |key: Value| {
                    let value = self.mark(&value.get_item(&key).unwrap_or_default());
                    (key, value)
                };
                items().map(field).collect()
            }
            _ => value.clone(),
        }
    }

    fn marked(&self, text: &str) -> String {
        // Marks in a message would forge the end of a marked name.
        let text = text.replace([START, END], "");
        let mut out = String::with_capacity(text.len());
        self.names.replace_all_with(&text, &mut out, |_, name, out| {
            out.push(START);
            out.push_str(name);
            out.push(END);
            true
        });
        out
    }
}

/// Takes the marks out of a rendered text, and returns the byte ranges of what they enclosed.
///
/// A template that cuts texts may leave one mark of a pair. Its place becomes an empty range: no token reaches over
/// it.
pub(super) fn unmark(rendered: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(rendered.len());
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    for c in rendered.chars() {
        match c {
            START => {
                ranges.extend(start.take().map(|at| at..at));
                start = Some(text.len());
            }
            END => {
                let at = text.len();
                ranges.push(start.take().unwrap_or(at)..at);
            }
            c => text.push(c),
        }
    }
    ranges.extend(start.map(|at| at..at));
    (text, ranges)
}
