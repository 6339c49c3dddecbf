//! What tells model files apart.

use std::fmt::{Display, Write};

use sha2::{Digest, Sha256};
use sparse_gguf::{Array, Gguf, TensorView, Value};

/// Bytes of a tensor's beginning and of its end that are hashed.
const SAMPLE: usize = 1024;

/// Bytes of text that are hashed at a time.
const PIECE: usize = 1 << 16;

/// Tells model files apart: a hash of the metadata, of the names, types and shapes of the tensors, and of the first and the
/// last 1,024 bytes of each. Files that differ elsewhere alone have the same; training or rounding changes those bytes, too.
pub fn fingerprint(gguf: &Gguf) -> String {
    let mut text = Text::new();
    for (key, value) in gguf.metadata().iter() {
        text.out.push_str(key);
        text.out.push('=');
        text.value(value);
        text.out.push('\n');
    }
    let mut hash = text.finish();
    for TensorView { info, data } in gguf.views() {
        hash.update(format!("{} {:?} {:?}\n", info.name, info.ty, info.dims));
        hash.update(&data[..data.len().min(SAMPLE)]);
        hash.update(&data[data.len().saturating_sub(SAMPLE)..]);
    }
    hex(hash)
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes values as `{:?}` writes them, which itself would take longer than all else that is done with a large vocabulary.
struct Text {
    out: String,
    hash: Sha256,
    /// Whether a character stands for itself in a string: `None` where that has not been asked yet.
    known: Vec<Option<bool>>,
}

impl Text {
    fn new() -> Self {
        Self { out: String::with_capacity(PIECE + 1024), hash: Sha256::new(), known: vec![None; 1 << 16] }
    }

    fn finish(mut self) -> Sha256 {
        self.hash.update(&self.out);
        self.hash
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(Array::String(items)) => self.items("String", items, Self::string),
            Value::Array(Array::F32(items)) => self.items("F32", items, Self::float),
            Value::Array(Array::I32(items)) => self.items("I32", items, Self::display),
            Value::Array(Array::U32(items)) => self.items("U32", items, Self::display),
            other => write!(self.out, "{other:?}").expect("strings grow"),
        }
    }

    fn items<T>(&mut self, name: &str, items: &[T], write: fn(&mut Self, &T)) {
        self.display(&format_args!("Array({name}(["));
        for (i, item) in items.iter().enumerate() {
            self.out.push_str(if i > 0 { ", " } else { "" });
            write(self, item);
            if self.out.len() >= PIECE {
                self.hash.update(&self.out);
                self.out.clear();
            }
        }
        self.out.push_str("]))");
    }

    fn display(&mut self, value: &impl Display) {
        write!(self.out, "{value}").expect("strings grow");
    }

    fn string(&mut self, text: &String) {
        if text.chars().all(|c| self.stands_for_itself(c)) {
            self.out.push('"');
            self.out.push_str(text);
            self.out.push('"');
        } else {
            write!(self.out, "{text:?}").expect("strings grow");
        }
    }

    fn stands_for_itself(&mut self, c: char) -> bool {
        let ask = || c != '"' && (c == '\'' || c.escape_debug().eq([c]));
        match self.known.get_mut(c as usize) {
            Some(known) => *known.get_or_insert_with(ask),
            None => ask(),
        }
    }

    fn float(&mut self, x: &f32) {
        let whole = *x as i32;
        if whole as f32 == *x && whole != 0 && whole.abs() < 1 << 24 {
            self.display(&whole);
            self.out.push_str(".0");
        } else {
            write!(self.out, "{x:?}").expect("strings grow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_debug_writes_them() {
        let strings = [
            "",
            "a",
            "it's \"so\"",
            "\\n\n\t\0\u{7f}",
            "\u{2581}w\u{f6}rd",
            "\u{301}e",
            "e\u{301}",
            "\u{200d}\u{1f600}",
        ];
        let floats = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            -259_999.0,
            0.1,
            1e7,
            16_777_215.0,
            16_777_216.0,
            1e16,
            1e-7,
            -2.5e9,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ];
        for value in [
            Value::Array(Array::String(strings.map(str::to_owned).to_vec())),
            Value::Array(Array::String(Vec::new())),
            Value::Array(Array::F32(floats.to_vec())),
            Value::Array(Array::I32(vec![0, -7, i32::MIN, i32::MAX])),
            Value::Array(Array::U32(vec![3])),
            Value::Array(Array::Array(vec![Array::Bool(vec![true])])),
            Value::String("\"".into()),
            Value::F32(2.0),
        ] {
            let mut text = Text::new();
            text.value(&value);
            assert_eq!(text.out, format!("{value:?}"));
        }
        // What was hashed meanwhile is not in the text any more.
        let value = Value::Array(Array::String(vec!["0123456789".into(); 20_000]));
        let mut text = Text::new();
        text.value(&value);
        assert!(text.out.len() < PIECE);
        assert_eq!(hex(text.finish()), hex(Sha256::new_with_prefix(format!("{value:?}"))));
    }
}
