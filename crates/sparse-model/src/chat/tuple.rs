//! Python's tuples: sequences that print in parentheses.

use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr, Rest};

use super::format;

#[derive(Debug)]
pub(super) struct Tuple(Vec<Value>);

impl Tuple {
    /// A tuple of `items`, as a value.
    pub(super) fn value(items: impl Into<Vec<Value>>) -> Value {
        Value::from_object(Self(items.into()))
    }
}

impl Object for Tuple {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format::tuple(f, &self.0)
    }
}

/// The function that tuples in parentheses call.
pub(super) fn tuple(items: Rest<Value>) -> Value {
    Tuple::value(items.0)
}

/// Whether a value is a tuple.
pub(super) fn is_tuple(value: &Value) -> bool {
    value.downcast_object_ref::<Tuple>().is_some()
}
