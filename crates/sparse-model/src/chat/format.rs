//! Values as Python prints them: `str`, `repr`.

use std::fmt::{self, Write};

use minijinja::Value;
use minijinja::value::ValueKind;

use super::tuple;

/// Writes a value as Python's `str` does.
pub(super) fn write_str(out: &mut impl Write, value: &Value) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value),
    }
}

/// A value as Python's `str` writes it.
pub(super) fn str(value: &Value) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_str(&mut text, value);
    text
}

/// A value as Python's `repr` writes it.
pub(super) fn repr(value: &Value) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_repr(&mut text, value);
    text
}

/// Writes a value as Python's `repr` does: strings in quotes, containers with their items.
fn write_repr(out: &mut impl Write, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(x) => float(out, x),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::Seq if tuple::is_tuple(value) => {
            tuple(out, &value.try_iter().into_iter().flatten().collect::<Vec<_>>())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.write_char('[')?;
            for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(out, &item)?;
            }
            out.write_char(']')
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (i, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(out, &key)?;
                out.write_str(": ")?;
                write_repr(out, &value.get_item(&key).unwrap_or_default())?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

/// A tuple as Python's `repr` writes it.
pub(super) fn tuple(out: &mut impl Write, items: &[Value]) -> fmt::Result {
    out.write_char('(')?;
    for (i, item) in items.iter().enumerate() {
        out.write_str(if i > 0 { ", " } else { "" })?;
        write_repr(out, item)?;
    }
    out.write_str(if items.len() == 1 { ",)" } else { ")" })
}

/// A float as Python's `repr` writes it: the shortest decimal that reads back, with an exponent below 1e-4 and from
/// 1e16 up.
pub(super) fn float(out: &mut impl Write, x: f64) -> fmt::Result {
    if x.is_nan() {
        return out.write_str("nan");
    }
    if x.is_infinite() {
        return out.write_str(if x > 0.0 { "inf" } else { "-inf" });
    }
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{x:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return write!(out, "{mantissa}e{sign}{digits:0>2}");
    }
    // The debug form has a decimal point, and no exponent in this range.
    write!(out, "{x:?}")
}

/// A string in quotes: single ones, unless it has these and no double ones.
fn quoted(out: &mut impl Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if printable(c) => out.write_char(c)?,
            c if (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32)?,
            c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32)?,
            c => write!(out, "\\U{:08x}", c as u32)?,
        }
    }
    out.write_char(quote)
}

/// Whether `repr` writes a character as it is.
fn printable(c: char) -> bool {
    // Rust escapes what is not printable, and grapheme extenders only where they would join a quote.
    c == ' '
        || c == '\''
        || c == '"'
        || (!c.is_whitespace() && c.escape_debug().count() == 1)
        || (!c.is_whitespace() && !c.is_control() && is_mark(c))
}

/// Whether a character only extends the one before, which `char::escape_debug` escapes and Python does not.
fn is_mark(c: char) -> bool {
    let pair: String = ['a', c].iter().collect();
    pair.escape_debug().count() == 2
}
