//! Filters and tests whose arguments or results in Jinja2 are not minijinja's.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, FormatStyle, State, Value, format_filter};

use super::arguments::{Arguments, bad};
use super::{format, python};

pub(super) fn add_to(env: &mut Environment<'_>) {
    env.add_filter("__value", |value: Value| value);
    env.add_filter("__str", |value: Value| match value.kind() {
        ValueKind::String => value,
        _ => format::str(&value).into(),
    });
    env.add_filter("__mod", modulo);
    env.add_filter("__pow", power);
    for name in ["length", "count"] {
        env.add_filter(name, length);
    }
    env.add_filter("trim", |value: Value, args: Rest<Value>| {
        python::string_method(&format::str(&value), "strip", &args)
    });
    for name in ["upper", "lower", "title"] {
        env.add_filter(name, move |value: Value| python::string_method(&format::str(&value), name, &[]));
    }
    env.add_filter("string", |value: Value| match value.kind() {
        ValueKind::String => value,
        _ => format::str(&value).into(),
    });
    env.add_filter("pprint", |value: Value| format::repr(&value));
    env.add_filter("capitalize", |value: Value| python::capitalized(&format::str(&value)));
    for (name, last) in [("first", false), ("last", true)] {
        env.add_filter(name, move |value: Value| end_of(&value, last));
    }
    env.add_filter("join", join);
    env.add_filter("items", |value: Value| match value.is_undefined() {
        true => Ok(Vec::new()),
        false => python::items(&value),
    });
    env.add_filter("dictsort", dictsort);
    env.add_filter("attr", attr);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("round", round);
    env.add_filter("replace", replace);
    env.add_filter("indent", indent);
    env.add_filter("sum", sum);
    env.add_filter("min", |v: Value, a: Rest<Value>, k: Kwargs| {
        extreme(&v, &Arguments::from_parts(a, k), false)
    });
    env.add_filter("max", |v: Value, a: Rest<Value>, k: Kwargs| {
        extreme(&v, &Arguments::from_parts(a, k), true)
    });
    env.add_filter("wordcount", |value: Value| words(&format::str(&value)));
    env.add_filter("truncate", truncate);
    env.add_filter("center", |value: Value, args: Rest<Value>| {
        let width = args.first().cloned().unwrap_or_else(|| 80.into());
        python::string_method(&format::str(&value), "center", &[width])
    });
    env.add_filter("striptags", |value: Value| minijinja_contrib::filters::striptags(format::str(&value)));
    env.add_filter("forceescape", |value: Value| escaped(&format::str(&value)));
    for name in ["e", "escape"] {
        env.add_filter(name, |value: Value| match value.is_safe() {
            true => value,
            false => Value::from_safe_string(escaped(&format::str(&value))),
        });
    }
    tests(env);
}

fn tests(env: &mut Environment<'_>) {
    env.add_test("iterable", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
        )
    });
    env.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map => true,
        // A range or a sum of lists has a length, a generator has none.
        ValueKind::Iterable => value.len().is_some(),
        _ => false,
    });
    env.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |value: &Value| match value.kind() {
        ValueKind::Undefined => true,
        ValueKind::Plain => true,
        _ => value.as_object().is_some_and(|object| object.type_name().ends_with("Macro")),
    });
}

/// `%`: formats strings, and divides as Python does, whose remainder has the divisor's sign.
fn modulo(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(template) = left.as_str() {
        let is_map = right.kind() == ValueKind::Map;
        let args: Vec<Value> = match right.kind() {
            ValueKind::Seq if super::tuple::is_tuple(right) => right.try_iter()?.collect(),
            _ => vec![right.clone()],
        };
        // Lists and the like print as in Python.
        let args: Vec<Value> = args
            .into_iter()
            .map(|arg| match arg.kind() {
                ValueKind::Seq | ValueKind::Iterable => format::str(&arg).into(),
                ValueKind::Map if !is_map || !template.contains("%(") => format::str(&arg).into(),
                _ => arg,
            })
            .collect();
        return format_filter(FormatStyle::Printf, template, &args).map(Value::from);
    }
    let unsupported = || bad(format!("cannot calculate {} % {}", left.kind(), right.kind()));
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(left) || !number(right) {
        return Err(unsupported());
    }
    if let (Ok(a), Ok(b)) = (i128::try_from(left.clone()), i128::try_from(right.clone()))
        && is_integer(left)
        && is_integer(right)
    {
        let rest = a.checked_rem(b).ok_or_else(|| bad("integer modulo by zero"))?;
        let result = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
        return Ok(i64::try_from(result).map_or_else(|_| result.into(), Value::from));
    }
    let (a, b) = (f64::try_from(left.clone())?, f64::try_from(right.clone())?);
    if b == 0.0 {
        return Err(bad("float modulo by zero"));
    }
    let rest = a % b;
    Ok(if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }.into())
}

/// `**`: a negative exponent gives a fraction.
fn power(left: &Value, right: &Value) -> Result<Value, Error> {
    let exponent = i128::try_from(right.clone()).ok().filter(|_| is_integer(right));
    if let (Ok(base), Some(exponent @ 0..)) = (i128::try_from(left.clone()), exponent)
        && is_integer(left)
    {
        let power = u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent));
        let power = power.ok_or_else(|| bad(format!("{left} ** {right} is too large")))?;
        return Ok(i64::try_from(power).map_or_else(|_| power.into(), Value::from));
    }
    Ok(f64::try_from(left.clone())?.powf(f64::try_from(right.clone())?).into())
}

fn is_integer(value: &Value) -> bool {
    value.is_integer() || value.kind() == ValueKind::Bool
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        _ => value.len().ok_or_else(|| bad(format!("a value of type {} has no length", value.kind()))),
    }
}

fn end_of(value: &Value, last: bool) -> Result<Value, Error> {
    let mut items = match value.kind() {
        ValueKind::Undefined => return Ok(Value::UNDEFINED),
        _ => value.try_iter()?,
    };
    Ok(if last { items.last() } else { items.next() }.unwrap_or(Value::UNDEFINED))
}

/// The attribute or item at a path with dots.
fn lookup(value: &Value, path: &Value) -> Result<Value, Error> {
    let Some(path) = path.as_str() else { return value.get_item(path) };
    path.split('.').try_fold(value.clone(), |value, part| match part.parse::<i64>() {
        Ok(place) => value.get_item(&place.into()),
        Err(_) => value.get_attr(part),
    })
}

fn join(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let a = Arguments::from_parts(args, named);
    let separator = a.get(0, "d")?.map(|d| format::str(&d)).unwrap_or_default();
    let attribute = a.get(1, "attribute")?;
    a.end(2)?;
    if value.is_undefined() {
        return Ok(String::new());
    }
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        parts.push(match &attribute {
            Some(attribute) => format::str(&lookup(&item, attribute)?),
            None => format::str(&item),
        });
    }
    Ok(parts.join(&separator))
}

/// A key to sort by: texts without regard to case, unless that matters.
fn sort_key(value: &Value, case: bool) -> Value {
    match value.as_str() {
        Some(text) if !case => text.to_lowercase().into(),
        _ => value.clone(),
    }
}

fn dictsort(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Vec<Value>, Error> {
    let a = Arguments::from_parts(args, named);
    let case = a.truth(0, "case_sensitive")?;
    let place = match a.string(1, "by")?.as_deref() {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(_) => return Err(bad("dictsort sorts by key or value")),
    };
    let reverse = a.truth(2, "reverse")?;
    a.end(3)?;
    let mut items = python::items(value)?;
    items.sort_by_key(|item| sort_key(&item.get_item(&place.into()).unwrap_or_default(), case));
    if reverse {
        items.reverse();
    }
    Ok(items)
}

/// Attributes, which the items of a dictionary are not.
fn attr(value: &Value, name: &str) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Map if value.as_object().is_some_and(|o| !o.type_name().contains("Namespace")) => {
            Ok(Value::UNDEFINED)
        }
        _ => value.get_attr(name),
    }
}

fn int(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let a = Arguments::from_parts(args, named);
    let default = a.get(0, "default")?.unwrap_or_else(|| 0.into());
    let base = a.integer(1, "base")?.unwrap_or(10);
    a.end(2)?;
    if value.is_undefined() {
        return Err(bad("the value is undefined"));
    }
    if is_integer(value) {
        return Ok(if value.is_integer() { value.clone() } else { i64::from(value.is_true()).into() });
    }
    let whole = |x: f64| (x.is_finite() && x.abs() < 1e18).then(|| Value::from(x.trunc() as i64));
    let parsed = match value.as_str() {
        Some(text) => {
            let plain = text.trim().replace('_', "").to_ascii_lowercase();
            let (sign, digits) = match plain.strip_prefix('-') {
                Some(digits) => (-1, digits),
                None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
            };
            let prefix = match base {
                16 => "0x",
                8 => "0o",
                2 => "0b",
                _ => "",
            };
            let digits = digits.strip_prefix(prefix).unwrap_or(digits);
            let integer = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let integer = integer.and_then(|base| i64::from_str_radix(digits, base).ok());
            let integer = integer.filter(|_| !digits.starts_with(['-', '+'])).map(|n| Value::from(sign * n));
            integer.or_else(|| plain.parse().ok().and_then(whole))
        }
        None => f64::try_from(value.clone()).ok().and_then(whole),
    };
    Ok(parsed.unwrap_or(default))
}

fn float(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let a = Arguments::from_parts(args, named);
    let default = a.get(0, "default")?.unwrap_or_else(|| 0.0.into());
    a.end(1)?;
    if value.is_undefined() {
        return Err(bad("the value is undefined"));
    }
    let number = match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse::<f64>().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map_or(default, Value::from))
}

fn round(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let a = Arguments::from_parts(args, named);
    let places = a.integer(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
    let method = a.string(1, "method")?;
    a.end(2)?;
    let x = f64::try_from(value.clone())?;
    let scale = 10f64.powi(places);
    let rounded = match method.as_deref() {
        // Python rounds the exact decimal value, ties to even; so does formatting.
        None | Some("common") if places >= 0 => {
            format!("{x:.*}", places as usize).parse::<f64>().unwrap_or(x)
        }
        None | Some("common") => (x * scale).round_ties_even() / scale,
        Some("ceil") => (x * scale).ceil() / scale,
        Some("floor") => (x * scale).floor() / scale,
        Some(_) => return Err(bad("method must be common, ceil or floor")),
    };
    // Python's `round` keeps an integer.
    let keeps = value.is_integer() && !matches!(method.as_deref(), Some("ceil" | "floor"));
    Ok(if keeps { Value::from(rounded as i64) } else { rounded.into() })
}

fn replace(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let a = Arguments::from_parts(args, named);
    let part = |place, name| -> Result<String, Error> {
        Ok(a.get(place, name)?.map(|value| format::str(&value)).unwrap_or_default())
    };
    let (old, new) = (part(0, "old")?, part(1, "new")?);
    let count = a.integer(2, "count")?.and_then(|n| usize::try_from(n).ok());
    a.end(3)?;
    let s = format::str(value);
    Ok(count.map_or_else(|| s.replace(&old, &new), |count| s.replacen(&old, &new, count)))
}

fn indent(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let a = Arguments::from_parts(args, named);
    let space = match a.get(0, "width")? {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(i64::try_from(width)?.clamp(0, 1000) as usize),
        },
    };
    let (first, blank) = (a.truth(1, "first")?, a.truth(2, "blank")?);
    a.end(3)?;
    let s = format::str(value);
    let mut out = String::with_capacity(s.len());
    for (i, line) in s.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if (i > 0 || first) && (blank || !line.is_empty() || (i == 0 && first)) {
            out.push_str(&space);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn sum(state: &State<'_, '_>, value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let a = Arguments::from_parts(args, named);
    let attribute = a.get(0, "attribute")?;
    let start = a.get(1, "start")?.unwrap_or_else(|| 0.into());
    a.end(2)?;
    let items: Vec<Value> = value.try_iter()?.collect();
    let items = match &attribute {
        Some(attribute) => items.iter().map(|item| lookup(item, attribute)).collect::<Result<Vec<_>, _>>()?,
        None => items,
    };
    if start.kind() == ValueKind::Seq {
        let lists =
            std::iter::once(&start).chain(&items).map(Value::try_iter).collect::<Result<Vec<_>, _>>()?;
        return Ok(lists.into_iter().flatten().collect::<Vec<_>>().into());
    }
    minijinja::filters::sum(state, std::iter::once(start).chain(items).collect::<Vec<_>>().into())
}

fn extreme(value: &Value, a: &Arguments, greatest: bool) -> Result<Value, Error> {
    let case = a.truth(0, "case_sensitive")?;
    let attribute = a.get(1, "attribute")?;
    a.end(2)?;
    let mut best: Option<(Value, Value)> = None;
    for item in value.try_iter()? {
        let key = match &attribute {
            Some(attribute) => lookup(&item, attribute)?,
            None => item.clone(),
        };
        let key = sort_key(&key, case);
        let better = best.as_ref().is_none_or(|(k, _)| if greatest { key > *k } else { key < *k });
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

/// Runs of word characters.
fn words(s: &str) -> usize {
    s.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

fn truncate(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let a = Arguments::from_parts(args, named);
    let s = format::str(value);
    let count = |place, name, default: usize| -> Result<usize, Error> {
        Ok(a.integer(place, name)?.map_or(default, |n| usize::try_from(n).unwrap_or(0)))
    };
    let length = count(0, "length", 255)?;
    let kill = a.truth(1, "killwords")?;
    let end = a.string(2, "end")?.unwrap_or_else(|| "...".into());
    let leeway = count(3, "leeway", 5)?;
    a.end(4)?;
    let chars: Vec<char> = s.chars().collect();
    if chars.len() <= length.saturating_add(leeway) {
        return Ok(s);
    }
    let kept: String = chars[..length.saturating_sub(end.chars().count())].iter().collect();
    let kept =
        if kill { kept.as_str() } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(head, _)| head) };
    Ok(format!("{kept}{end}"))
}

fn escaped(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
