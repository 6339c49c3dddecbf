//! The metadata of one architecture: keys with its prefix.

use sparse_gguf::{Array, Metadata, Value};

use crate::Error;

/// Metadata under `PREFIX.`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) meta: &'a Metadata,
    pub(crate) prefix: &'a str,
}

impl Keys<'_> {
    /// The whole key.
    pub(crate) fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    /// The error that `key` has this problem.
    pub(crate) fn problem(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::metadata(self.full(key), problem)
    }

    /// A size that must be there and is not zero.
    pub(crate) fn positive(&self, key: &str) -> Result<usize, Error> {
        let n = self.meta.usize(&self.full(key))?;
        self.not_zero(key, n)
    }

    /// A size that is not zero if it is there.
    pub(crate) fn opt_positive(&self, key: &str) -> Result<Option<usize>, Error> {
        self.opt_usize(key)?.map(|n| self.not_zero(key, n)).transpose()
    }

    fn not_zero(&self, key: &str, n: usize) -> Result<usize, Error> {
        if n == 0 { Err(self.problem(key, "must not be zero")) } else { Ok(n) }
    }

    /// A size, if it is there.
    pub(crate) fn opt_usize(&self, key: &str) -> Result<Option<usize>, Error> {
        Ok(self.meta.opt_usize(&self.full(key))?)
    }

    /// A finite number, if it is there.
    pub(crate) fn opt_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        match self.meta.opt_f32(&self.full(key))? {
            Some(v) if !v.is_finite() => Err(self.problem(key, format!("{v} is not a finite number"))),
            v => Ok(v),
        }
    }

    /// A finite number above zero, or `default`.
    pub(crate) fn factor(&self, key: &str, default: f32) -> Result<f32, Error> {
        match self.opt_f32(key)? {
            Some(v) if v <= 0.0 => Err(self.problem(key, format!("{v} is not a positive number"))),
            v => Ok(v.unwrap_or(default)),
        }
    }

    /// A number that files set to zero where they have none, or `default`.
    pub(crate) fn nonzero(&self, key: &str, default: f32) -> Result<f32, Error> {
        Ok(self.opt_f32(key)?.filter(|v| *v != 0.0).unwrap_or(default))
    }

    /// A text, if it is there.
    pub(crate) fn opt_string(&self, key: &str) -> Result<Option<&str>, Error> {
        Ok(self.meta.opt_string(&self.full(key))?)
    }

    /// A truth value, or `default`.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        Ok(self.meta.opt_bool(&self.full(key))?.unwrap_or(default))
    }

    /// Truth values, if the key has an array of them.
    pub(crate) fn opt_bools(&self, key: &str) -> Result<Option<&[bool]>, Error> {
        match self.meta.get(&self.full(key)) {
            Some(Value::Array(Array::Bool(values))) => Ok(Some(values)),
            _ => Ok(None),
        }
    }

    /// A size per layer: the file has one for all layers, or an array.
    pub(crate) fn opt_per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<usize>>, Error> {
        let full = self.full(key);
        if !matches!(self.meta.get(&full), Some(Value::Array(_))) {
            return Ok(self.opt_usize(key)?.map(|n| vec![n; layers]));
        }
        let Some(numbers) = self.meta.opt_i32s(&full)? else { return Ok(None) };
        if numbers.len() != layers {
            let problem = format!("has {} numbers, but there are {layers} layers", numbers.len());
            return Err(self.problem(key, problem));
        }
        let sizes = numbers.iter().enumerate().map(|(i, n)| {
            usize::try_from(*n).map_err(|_| self.problem(key, format!("number {i} is {n}, not a size")))
        });
        sizes.collect::<Result<_, _>>().map(Some)
    }

    /// Like [`opt_per_layer`](Self::opt_per_layer), of a key that must be there.
    pub(crate) fn per_layer(&self, key: &str, layers: usize) -> Result<Vec<usize>, Error> {
        match self.opt_per_layer(key, layers)? {
            Some(sizes) => Ok(sizes),
            None => Err(sparse_gguf::Error::MissingKey { key: self.full(key) }.into()),
        }
    }
}
