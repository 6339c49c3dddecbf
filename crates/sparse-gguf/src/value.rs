//! Metadata values: thirteen types, one of them the array.

use std::borrow::Cow;
use std::fmt::{self, Arguments};

use crate::Error;
use crate::cursor::{Cursor, trim_nul};

/// How deep arrays may nest. Real files use one level; the bound keeps a hostile one off the call stack.
const MAX_DEPTH: usize = 8;

macro_rules! values {
    ($($name:ident($ty:ty) = $id:literal, $label:literal, $doc:literal;)*) => {
        /// The type of a metadata value, with the number that files store for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ValueType {
            $(#[doc = $doc] $name = $id,)*
            /// An array of values of one type.
            Array = 9,
        }

        impl ValueType {
            /// The type of a number found in a file.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    9 => Some(Self::Array),
                    _ => None,
                }
            }

            /// The type's name as Rust writes it, such as `u32`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                    Self::Array => "array",
                }
            }
        }

        /// A metadata value.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $(#[doc = $doc] $name($ty),)*
            /// An array of values of one type.
            Array(Array),
        }

        /// An array of metadata values, all of one type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array {
            $(#[doc = $doc] $name(Vec<$ty>),)*
            /// Arrays, possibly of different types and lengths.
            Array(Vec<Array>),
        }

        impl Value {
            /// The value's type.
            pub const fn ty(&self) -> ValueType {
                match self {
                    $(Self::$name(_) => ValueType::$name,)*
                    Self::Array(_) => ValueType::Array,
                }
            }

            /// Reads a value of type `ty`.
            pub(crate) fn read(c: &mut Cursor<'_>, ty: ValueType, what: Arguments<'_>) -> Result<Self, Error> {
                Ok(match ty {
                    $(ValueType::$name => Self::$name(<$ty>::read(c, what)?),)*
                    ValueType::Array => Self::Array(Array::read(c, MAX_DEPTH, what)?),
                })
            }

            /// Appends the value's bytes, without its type.
            pub(crate) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(v) => v.write(out),)*
                    Self::Array(v) => v.write(out),
                }
            }

            /// The value as JSON: numbers that are not finite as null, arrays as [`Array::to_json`] has them.
            #[cfg(feature = "json")]
            pub fn to_json(&self, max_items: usize) -> serde_json::Value {
                match self {
                    $(Self::$name(v) => serde_json::json!(v),)*
                    Self::Array(v) => v.to_json(max_items),
                }
            }
        }

        impl Array {
            /// The type of the items.
            pub const fn ty(&self) -> ValueType {
                match self {
                    $(Self::$name(_) => ValueType::$name,)*
                    Self::Array(_) => ValueType::Array,
                }
            }

            /// The number of items.
            pub const fn len(&self) -> usize {
                match self {
                    $(Self::$name(v) => v.len(),)*
                    Self::Array(v) => v.len(),
                }
            }

            /// The entry that all entries equal; `None` if they differ or there is none.
            pub fn common_entry(&self) -> Option<Value> {
                match self {
                    $(Self::$name(v) => common(v).map(Value::from),)*
                    Self::Array(v) => common(v).map(Value::from),
                }
            }

            fn read(c: &mut Cursor<'_>, depth: usize, what: Arguments<'_>) -> Result<Self, Error> {
                let offset = c.pos() as u64;
                let ty = read_type(c, format_args!("item type of {what}"))?;
                let len = c.u64(format_args!("length of {what}"))?;
                Ok(match ty {
                    $(ValueType::$name => Self::$name(read_items(c, len, what)?),)*
                    ValueType::Array if depth > 1 => {
                        c.expect(len, MIN_ARRAY_BYTES, what)?;
                        Self::Array((0..len).map(|_| Self::read(c, depth - 1, what)).collect::<Result<_, _>>()?)
                    }
                    ValueType::Array => {
                        return Err(Error::Invalid {
                            what: format!("item type of {what}"),
                            offset,
                            found: ty as u64,
                            expected: "no array, at this depth of nesting",
                        });
                    }
                })
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.extend((self.ty() as u32).to_le_bytes());
                out.extend((self.len() as u64).to_le_bytes());
                match self {
                    $(Self::$name(items) => items.iter().for_each(|v| v.write(out)),)*
                    Self::Array(items) => items.iter().for_each(|v| v.write(out)),
                }
            }

            /// The first items as JSON, at most `max_items`, and as many of arrays in them.
            #[cfg(feature = "json")]
            pub fn first_as_json(&self, max_items: usize) -> Vec<serde_json::Value> {
                match self {
                    $(Self::$name(v) => v.iter().take(max_items).map(|v| serde_json::json!(v)).collect(),)*
                    Self::Array(v) => v.iter().take(max_items).map(|v| v.to_json(max_items)).collect(),
                }
            }

            /// The item at `index` as text.
            fn show(&self, index: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(v) => v[index].show(f),)*
                    Self::Array(v) => fmt::Display::fmt(&v[index], f),
                }
            }
        }

        impl fmt::Display for Value {
            /// The value in full; of arrays the first few items. Strings are quoted and escaped.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(v) => v.show(f),)*
                    Self::Array(v) => fmt::Display::fmt(v, f),
                }
            }
        }

        $(impl From<$ty> for Value {
            fn from(v: $ty) -> Self {
                Self::$name(v)
            }
        }

        impl From<Vec<$ty>> for Value {
            fn from(v: Vec<$ty>) -> Self {
                Self::Array(Array::$name(v))
            }
        })*
    };
}

values! {
    U8(u8) = 0, "u8", "8-bit unsigned.";
    I8(i8) = 1, "i8", "8-bit signed.";
    U16(u16) = 2, "u16", "16-bit unsigned.";
    I16(i16) = 3, "i16", "16-bit signed.";
    U32(u32) = 4, "u32", "32-bit unsigned.";
    I32(i32) = 5, "i32", "32-bit signed.";
    F32(f32) = 6, "f32", "32-bit float.";
    Bool(bool) = 7, "bool", "True or false.";
    String(String) = 8, "string", "UTF-8 text.";
    U64(u64) = 10, "u64", "64-bit unsigned.";
    I64(i64) = 11, "i64", "64-bit signed.";
    F64(f64) = 12, "f64", "64-bit float.";
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::String(v.to_owned())
    }
}

impl From<Array> for Value {
    fn from(v: Array) -> Self {
        Self::Array(v)
    }
}

impl Value {
    /// The value's type in words: `u32`, `array of string`.
    pub fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {}", array.ty().name()),
            _ => self.ty().name().to_owned(),
        }
    }

    /// Removes the NULs that some files of 2023 end strings with.
    ///
    /// Of an array, only if all its strings end with one: a single token may well be a NUL.
    pub(crate) fn trim_nul(&mut self) {
        match self {
            Self::String(text) => trim_nul(text),
            Self::Array(Array::String(texts)) if texts.iter().all(|t| t.ends_with('\0')) => {
                texts.iter_mut().for_each(trim_nul);
            }
            _ => {}
        }
    }

    /// The value as an integer, if it is one.
    pub(crate) fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }
}

impl Array {
    /// Whether there are no items.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items as JSON, or `{"length": n, "first": [...]}` if there are more than `max_items`.
    #[cfg(feature = "json")]
    pub fn to_json(&self, max_items: usize) -> serde_json::Value {
        let first = self.first_as_json(max_items);
        match self.len() {
            length if length > max_items => serde_json::json!({ "length": length, "first": first }),
            _ => first.into(),
        }
    }

    /// The items as integers, if they are.
    pub(crate) fn integers(&self) -> Option<Vec<i128>> {
        fn wide<T: Copy + Into<i128>>(items: &[T]) -> Vec<i128> {
            items.iter().map(|&v| v.into()).collect()
        }
        Some(match self {
            Self::U8(v) => wide(v),
            Self::I8(v) => wide(v),
            Self::U16(v) => wide(v),
            Self::I16(v) => wide(v),
            Self::U32(v) => wide(v),
            Self::I32(v) => wide(v),
            Self::U64(v) => wide(v),
            Self::I64(v) => wide(v),
            _ => return None,
        })
    }
}

impl fmt::Display for Array {
    /// The first six items, then the length if there are more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for i in 0..self.len().min(6) {
            if i > 0 {
                f.write_str(", ")?;
            }
            self.show(i, f)?;
        }
        if self.len() > 6 {
            write!(f, ", ... {} in all", self.len())?;
        }
        f.write_str("]")
    }
}

/// Bytes of an array of no items: its item type and length.
const MIN_ARRAY_BYTES: usize = 12;

/// Reads the number of a value type.
pub(crate) fn read_type(c: &mut Cursor<'_>, what: Arguments<'_>) -> Result<ValueType, Error> {
    let offset = c.pos() as u64;
    let id = c.u32(what)?;
    ValueType::from_id(id).ok_or_else(|| Error::Invalid {
        what: what.to_string(),
        offset,
        found: id.into(),
        expected: "one of the value types 0 to 12",
    })
}

fn common<T: Clone + PartialEq>(entries: &[T]) -> Option<T> {
    let (first, rest) = entries.split_first()?;
    rest.iter().all(|entry| entry == first).then(|| first.clone())
}

fn read_items<T: Item>(c: &mut Cursor<'_>, len: u64, what: Arguments<'_>) -> Result<Vec<T>, Error> {
    c.expect(len, T::MIN_BYTES, what)?;
    (0..len).map(|_| T::read(c, what)).collect()
}

/// A value of one of the twelve types that are no arrays.
trait Item: Sized {
    /// The least number of bytes it takes in a file.
    const MIN_BYTES: usize;

    fn read(c: &mut Cursor<'_>, what: Arguments<'_>) -> Result<Self, Error>;

    fn write(&self, out: &mut Vec<u8>);

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

macro_rules! number_items {
    ($($ty:ty),*) => {$(
        impl Item for $ty {
            const MIN_BYTES: usize = size_of::<$ty>();

            fn read(c: &mut Cursor<'_>, what: Arguments<'_>) -> Result<Self, Error> {
                c.array(what).map(<$ty>::from_le_bytes)
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }

            fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    )*};
}

number_items!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Item for bool {
    const MIN_BYTES: usize = 1;

    fn read(c: &mut Cursor<'_>, what: Arguments<'_>) -> Result<Self, Error> {
        let offset = c.pos() as u64;
        match u8::read(c, what)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(Error::Invalid {
                what: what.to_string(),
                offset,
                found: found.into(),
                expected: "0 or 1, being a bool",
            }),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Item for String {
    const MIN_BYTES: usize = 8;

    fn read(c: &mut Cursor<'_>, what: Arguments<'_>) -> Result<Self, Error> {
        c.string(what).map(Cow::into_owned)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend((self.len() as u64).to_le_bytes());
        out.extend(self.as_bytes());
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::*;

    #[test]
    fn long_arrays_are_cut_in_json() {
        assert_eq!(Value::F32(f32::NAN).to_json(1).to_string(), "null");
        let array = Array::Array(vec![Array::U8(vec![1, 2, 3]), Array::String(vec!["a".into()])]);
        let numbers = serde_json::json!({ "length": 3, "first": [1, 2] });
        assert_eq!(array.to_json(2), serde_json::json!([numbers, ["a"]]));
        assert_eq!(array.to_json(0), serde_json::json!({ "length": 2, "first": [] }));
    }
}
