//! The key-value pairs of a GGUF file.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{Array, Error, Value};

/// The key of the alignment that tensor data has in the file.
pub(crate) const ALIGNMENT: &str = "general.alignment";

/// Metadata: values by key, in the order of the file.
///
/// The typed getters come in pairs: `u32(key)` needs the key, `opt_u32(key)` gives `None` when it is
/// absent. Both fail when the value has another type ([`Error::WrongType`]). The integer getters take
/// an integer of any width that fits without loss ([`Error::OutOfRange`] otherwise).
///
/// The getters of a number or a truth value also take an array whose entries are all equal: some
/// files state one number per layer where others state one for the model. Arrays whose entries differ
/// are of the wrong type there.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

macro_rules! getters {
    ($($(#[doc = $doc:literal])* $name:ident / $opt:ident -> $ty:ty;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// # Errors
        /// When the key is missing, or the value is of another type or does not fit.
        pub fn $name(&self, key: &str) -> Result<$ty, Error> {
            self.$opt(key)?.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
        }
    )*};
}

impl Metadata {
    /// No metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Keys and values, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.pairs[i].1)
    }

    /// Sets `key`, at its place if it exists and at the end if not, and returns the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(&i) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.pairs[i].1, value));
        }
        self.index.insert(key.clone(), self.pairs.len());
        self.pairs.push((key, value));
        None
    }

    /// Keeps the keys for which `keep` says so.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.pairs.retain(|(key, _)| keep(key));
        self.index = self.pairs.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
    }

    getters! {
        /// The text of `key`.
        string / opt_string -> &str;
        /// The integer of `key`.
        u32 / opt_u32 -> u32;
        /// The integer of `key`.
        u64 / opt_u64 -> u64;
        /// The integer of `key`.
        usize / opt_usize -> usize;
        /// The 32-bit float of `key`.
        f32 / opt_f32 -> f32;
        /// The truth value of `key`.
        bool / opt_bool -> bool;
        /// The texts of `key`.
        strings / opt_strings -> &[String];
        /// The integers of `key`; copied only when the file stores them in another width.
        i32s / opt_i32s -> Cow<'_, [i32]>;
        /// The 32-bit floats of `key`.
        f32s / opt_f32s -> &[f32];
    }

    /// The text of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no string.
    pub fn opt_string(&self, key: &str) -> Result<Option<&str>, Error> {
        self.opt(key, "string", |value| match value {
            Value::String(v) => Some(v.as_str()),
            _ => None,
        })
    }

    /// The integer of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no integer or does not fit.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.opt_integer(key, "u32")
    }

    /// The integer of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no integer or does not fit.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.opt_integer(key, "u64")
    }

    /// The integer of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no integer or does not fit.
    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>, Error> {
        self.opt_integer(key, "usize")
    }

    /// The 32-bit float of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no 32-bit float.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.opt_scalar(key, "f32", |value| match *value {
            Value::F32(v) => Some(v),
            _ => None,
        })
    }

    /// The truth value of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no bool.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.opt_scalar(key, "bool", |value| match *value {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// The texts of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no array of strings.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, Error> {
        self.opt(key, "array of string", |value| match value {
            Value::Array(Array::String(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// The integers of `key`, if there is such a key; copied only when the file stores them in another width.
    ///
    /// # Errors
    /// When the value is no array of integers, or one does not fit.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>, Error> {
        if let Some(Value::Array(Array::I32(v))) = self.get(key) {
            return Ok(Some(Cow::Borrowed(v)));
        }
        let expected = "array of i32";
        let wide = self.opt(key, expected, |value| match value {
            Value::Array(v) => v.integers(),
            _ => None,
        })?;
        let narrow = |found| fit::<i32>(key, expected, found);
        wide.map(|v| v.into_iter().map(narrow).collect()).transpose().map(|v| v.map(Cow::Owned))
    }

    /// The 32-bit floats of `key`, if there is such a key.
    ///
    /// # Errors
    /// When the value is no array of 32-bit floats.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>, Error> {
        self.opt(key, "array of f32", |value| match value {
            Value::Array(Array::F32(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// The alignment of tensor data: `general.alignment`, or 32.
    ///
    /// # Errors
    /// When it is no 32-bit integer, no power of two or no multiple of 8.
    pub(crate) fn alignment(&self) -> Result<usize, Error> {
        let found = self.opt_exact(ALIGNMENT, "u32")?.unwrap_or(32_u32);
        if !found.is_power_of_two() || !found.is_multiple_of(8) {
            return Err(Error::BadAlignment { found });
        }
        // At least 32 bits wherever there is a file to read.
        Ok(found as usize)
    }

    /// As [`opt_usize`](Self::opt_usize), without taking an array: where bytes are is not guessed.
    pub(crate) fn opt_exact_usize(&self, key: &str) -> Result<Option<usize>, Error> {
        self.opt_exact(key, "usize")
    }

    fn opt_exact<T: TryFrom<i128>>(&self, key: &str, expected: &'static str) -> Result<Option<T>, Error> {
        self.opt(key, expected, Value::integer)?.map(|found| fit(key, expected, found)).transpose()
    }

    fn opt_integer<T: TryFrom<i128>>(&self, key: &str, expected: &'static str) -> Result<Option<T>, Error> {
        self.opt_scalar(key, expected, Value::integer)?.map(|found| fit(key, expected, found)).transpose()
    }

    /// As [`opt`](Self::opt); of an array, the entry that all its entries are.
    fn opt_scalar<T>(
        &self,
        key: &str,
        expected: &'static str,
        pick: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(Value::Array(array)) = self.get(key) else { return self.opt(key, expected, pick) };
        let entry = array.common_entry();
        match entry.as_ref().and_then(pick) {
            Some(v) => Ok(Some(v)),
            None => {
                let differ =
                    if entry.is_none() && !array.is_empty() { " with different entries" } else { "" };
                let found = format!("array of {}{differ}", array.ty().name());
                Err(Error::WrongType { key: key.to_owned(), expected, found })
            }
        }
    }

    /// What `pick` finds in the value of `key`, which should be of the type `expected`.
    fn opt<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match pick(value) {
            Some(v) => Ok(Some(v)),
            None => Err(Error::WrongType { key: key.to_owned(), expected, found: value.type_name() }),
        }
    }
}

/// `found`, the value of `key`, as a type that may be narrower.
fn fit<T: TryFrom<i128>>(key: &str, expected: &'static str, found: i128) -> Result<T, Error> {
    T::try_from(found).map_err(|_| Error::OutOfRange { key: key.to_owned(), expected, found })
}

impl PartialEq for Metadata {
    /// Equal keys and values in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}
