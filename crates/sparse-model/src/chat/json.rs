//! `tojson` as transformers defines it: Python's `json.dumps`, nothing escaped for HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, Value};

use super::arguments::{Arguments, bad};
use super::format;

/// Containers may be nested this deep.
const MAX_DEPTH: usize = 200;

/// JSON as `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)` writes it.
pub(super) fn to_json(value: Value, args: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let a = Arguments::from_parts(args, options);
    let ascii = a.truth(0, "ensure_ascii")?;
    let indent = match a.get(1, "indent")? {
        None => None,
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(" ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize)),
        },
    };
    let separators = a.get(2, "separators")?;
    let sort = a.truth(3, "sort_keys")?;
    a.end(4)?;
    let mut writer = Writer {
        between: if indent.is_some() { "," } else { ", " }.into(),
        colon: ": ".into(),
        out: String::new(),
        ascii,
        indent,
        sort,
    };
    if let Some(separators) = separators {
        let pair: Vec<Value> = separators.try_iter()?.collect();
        let [between, colon] = pair.as_slice() else {
            return Err(bad("tojson: separators needs two strings"));
        };
        (writer.between, writer.colon) = (format::str(between), format::str(colon));
    }
    writer.value(&value, 0)?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    ascii: bool,
    indent: Option<String>,
    between: String,
    colon: String,
    sort: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(bad("tojson: nested too deep"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Number => self.number(value),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items('[', ']', items.len(), depth, |writer, i| writer.value(&items[i], depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.items('{', '}', keys.len(), depth, |writer, i| {
                    writer.key(&keys[i])?;
                    let colon = writer.colon.clone();
                    writer.out.push_str(&colon);
                    writer.value(&value.get_item(&keys[i])?, depth + 1)
                })?;
            }
            ValueKind::Undefined => return Err(bad("tojson: the value is undefined")),
            kind => return Err(bad(format!("tojson: cannot write a value of type {kind}"))),
        }
        Ok(())
    }

    /// Writes a container of `count` items.
    fn items(
        &mut self,
        open: char,
        close: char,
        count: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for i in 0..count {
            if i > 0 {
                let between = self.between.clone();
                self.out.push_str(&between);
            }
            self.line(depth + 1);
            item(self, i)?;
        }
        if count > 0 {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// Begins a line, where there are lines.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    /// Keys are strings: numbers, booleans and none become such.
    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push('"');
                self.value(key, 0)?;
                self.out.push('"');
            }
            kind => return Err(bad(format!("tojson: a key is of type {kind}"))),
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        // Writing into a string cannot fail.
        let _ = match f64::try_from(value.clone()) {
            Ok(x) if !value.is_integer() && x.is_finite() => format::float(&mut self.out, x),
            Ok(x) if !value.is_integer() => {
                self.out.push_str(if x.is_nan() {
                    "NaN"
                } else if x > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                });
                Ok(())
            }
            _ => write!(self.out, "{value}"),
        };
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c >= '\u{7f}') => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}
