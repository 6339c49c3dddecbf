//! Arguments as Python passes them: by place or by name.

use minijinja::value::{Kwargs, Rest, from_args};
use minijinja::{Error, ErrorKind, Value};

/// The arguments of a call.
pub(super) struct Arguments {
    positional: Vec<Value>,
    named: Kwargs,
}

impl Arguments {
    pub(super) fn new(args: &[Value]) -> Result<Self, Error> {
        let (Rest(positional), named) = from_args::<(Rest<Value>, Kwargs)>(args)?;
        Ok(Self { positional, named })
    }

    pub(super) fn from_parts(positional: Rest<Value>, named: Kwargs) -> Self {
        Self { positional: positional.0, named }
    }

    /// The argument at `place`, or by `name`. None counts as absent.
    pub(super) fn get(&self, place: usize, name: &str) -> Result<Option<Value>, Error> {
        let value = match self.positional.get(place) {
            Some(value) => Some(value.clone()),
            None => self.named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    }

    pub(super) fn string(&self, place: usize, name: &str) -> Result<Option<String>, Error> {
        self.get(place, name)?.map(|value| text(&value).map(str::to_owned)).transpose()
    }

    /// A string that must be there.
    pub(super) fn needed(&self, place: usize, name: &str) -> Result<String, Error> {
        self.string(place, name)?.ok_or_else(|| bad(format!("the argument {name} is missing")))
    }

    pub(super) fn integer(&self, place: usize, name: &str) -> Result<Option<i64>, Error> {
        self.get(place, name)?.map(i64::try_from).transpose()
    }

    pub(super) fn truth(&self, place: usize, name: &str) -> Result<bool, Error> {
        Ok(self.get(place, name)?.is_some_and(|value| value.is_true()))
    }

    /// Fails if there are arguments beyond the first `places`, or by names that nothing asked for.
    pub(super) fn end(&self, places: usize) -> Result<(), Error> {
        if self.positional.len() > places {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        self.named.assert_all_used()
    }
}

/// The string in `value`.
pub(super) fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| bad(format!("expected a string, found {}", value.kind())))
}

pub(super) fn bad(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}
