//! The environment of a template: what Jinja2 and transformers define, on top of minijinja.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State, functions};

use super::arguments::bad;
use super::{filters, format, json, python, tuple};

/// Steps that a template may take: far more than a conversation of thousands of messages needs, and an end to
/// loops that a hostile file nests.
const FUEL: u64 = 20_000_000;

/// An environment that behaves as transformers' does.
pub(super) fn new() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(python::method);
    env.set_formatter(|out, _, value| {
        format::write_str(out, value).map_err(|e| Error::new(ErrorKind::WriteFailure, e.to_string()))
    });
    env.add_function("__tuple", tuple::tuple);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_function("namespace", namespace);
    env.add_function("cycler", Cycler::value);
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_filter("tojson", json::to_json);
    filters::add_to(&mut env);
    env
}

/// The argument of a `raise_exception`, on its way out of the template.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

fn raise_exception(reason: Value) -> Result<Value, Error> {
    let reason = Refusal(format::str(&reason));
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(reason))
}

/// The local date and time, by a format of `strftime` in the C locale, for a time without a zone.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::Zoned::now();
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let flags = rest[at + 1..].find(|c: char| !"-_0^#".contains(c)).unwrap_or(0);
        let end = rest[at + 1 + flags..].chars().next().map_or(rest.len(), |c| at + 1 + flags + c.len_utf8());
        let directive = &rest[at..end];
        rest = &rest[end..];
        let known = match directive {
            "%c" => "%a %b %e %H:%M:%S %Y",
            "%x" => "%m/%d/%y",
            "%X" => "%H:%M:%S",
            "%r" => "%I:%M:%S %p",
            "%f" => "%6f",
            // Python's `datetime.now()` has no zone.
            "%z" | "%Z" => "",
            other => other,
        };
        match jiff::fmt::strtime::format(known, &now) {
            Ok(text) => out.push_str(&text),
            // As the C library does.
            Err(_) => out.push_str(directive),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// A namespace with the pairs of dictionaries and the named arguments.
fn namespace(maps: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut pairs = Vec::new();
    for map in maps.iter() {
        for key in map.try_iter()? {
            pairs.push((key.clone(), map.get_item(&key)?));
        }
    }
    for name in named.args() {
        pairs.push((name.into(), named.get::<Value>(name)?));
    }
    functions::namespace(Some(pairs.into_iter().collect()))
}

/// Jinja2's `cycler`: gives its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

impl Cycler {
    fn value(items: Rest<Value>) -> Result<Value, Error> {
        match items.is_empty() {
            true => Err(bad("cycler needs at least one item")),
            false => Ok(Value::from_object(Self { items: items.0, place: AtomicUsize::new(0) })),
        }
    }

    fn current(&self) -> Value {
        self.items[self.place.load(Ordering::Relaxed) % self.items.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(self: &Arc<Self>, _: &State<'_, '_>, name: &str, _: &[Value]) -> Result<Value, Error> {
        match name {
            "next" => {
                let item = self.current();
                self.place.fetch_add(1, Ordering::Relaxed);
                Ok(item)
            }
            "reset" => {
                self.place.store(0, Ordering::Relaxed);
                Ok(().into())
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}
