//! Python's methods on strings, lists and dictionaries, and its slices.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, FormatStyle, State, Value, format_filter};

use super::arguments::{Arguments, bad, text};
use super::tuple::Tuple;

/// Longest string that padding may make.
const MAX_WIDTH: i64 = 1_000_000;

/// Calls a method that minijinja does not know.
pub(super) fn method(_: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if name == "__slice" {
        return slice(value, args);
    }
    match value.kind() {
        ValueKind::String => string_method(text(value)?, name, args),
        ValueKind::Map => map_method(value, name, args),
        ValueKind::Seq | ValueKind::Iterable => list_method(value, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// White space as `str.strip` and `str.split` have it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Calls a method of a string.
pub(super) fn string_method(s: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let a = Arguments::new(args)?;
    let mut places = 0;
    let mut takes = |n| places = n;
    let value: Value = match name {
        "upper" => s.to_uppercase().into(),
        "lower" => s.to_lowercase().into(),
        // Full case folding differs for a few letters only.
        "casefold" => s.to_lowercase().replace('ß', "ss").into(),
        "capitalize" => capitalized(s).into(),
        "title" => title(s).into(),
        "swapcase" => swapped(s).into(),
        "strip" | "lstrip" | "rstrip" => {
            takes(1);
            let chars = a.string(0, "chars")?;
            let cut = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(c));
            match name {
                "strip" => s.trim_matches(cut),
                "lstrip" => s.trim_start_matches(cut),
                _ => s.trim_end_matches(cut),
            }
            .into()
        }
        "split" | "rsplit" => {
            takes(2);
            let most = a.integer(1, "maxsplit")?.unwrap_or(-1);
            let parts = match a.string(0, "sep")? {
                Some(sep) if sep.is_empty() => return Err(bad("empty separator")),
                Some(sep) => split(s, &sep, most, name == "rsplit"),
                None => split_space(s, most, name == "rsplit"),
            };
            parts.into_iter().map(Value::from).collect::<Vec<_>>().into()
        }
        "splitlines" => {
            takes(1);
            lines(s, a.truth(0, "keepends")?).into_iter().map(Value::from).collect::<Vec<_>>().into()
        }
        "partition" | "rpartition" => {
            takes(1);
            let sep = a.needed(0, "sep")?;
            let found = if name == "partition" { s.split_once(&*sep) } else { s.rsplit_once(&*sep) };
            let parts = match found {
                Some((head, tail)) => [head, &sep, tail],
                None if name == "partition" => [s, "", ""],
                None => ["", "", s],
            };
            Tuple::value(parts.map(Value::from))
        }
        "removeprefix" => {
            takes(1);
            s.strip_prefix(&*a.needed(0, "prefix")?).unwrap_or(s).into()
        }
        "removesuffix" => {
            takes(1);
            s.strip_suffix(&*a.needed(0, "suffix")?).unwrap_or(s).into()
        }
        "replace" => {
            takes(3);
            let (old, new) = (a.needed(0, "old")?, a.needed(1, "new")?);
            match a.integer(2, "count")?.and_then(|n| usize::try_from(n).ok()) {
                Some(count) => s.replacen(&old, &new, count).into(),
                None => s.replace(&old, &new).into(),
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            takes(3);
            let (part, offset) = window(s, a.integer(1, "start")?, a.integer(2, "end")?);
            let sub = a.needed(0, "sub")?;
            let at = if name.starts_with('r') { part.rfind(&*sub) } else { part.find(&*sub) };
            match (name, at) {
                ("count", _) if sub.is_empty() => (part.chars().count() + 1).into(),
                ("count", _) => part.matches(&*sub).count().into(),
                (_, Some(at)) => (offset + part[..at].chars().count()).into(),
                ("find" | "rfind", None) => (-1).into(),
                _ => return Err(bad("substring not found")),
            }
        }
        "startswith" | "endswith" => {
            takes(3);
            let (part, _) = window(s, a.integer(1, "start")?, a.integer(2, "end")?);
            let affix = a.get(0, "prefix")?.ok_or_else(|| bad("an argument is missing"))?;
            let affixes = match affix.kind() {
                ValueKind::Seq => affix.try_iter()?.collect(),
                _ => vec![affix],
            };
            let mut found = false;
            for affix in &affixes {
                let affix = text(affix)?;
                found |= if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) };
            }
            found.into()
        }
        "join" => {
            takes(1);
            let items = a.get(0, "iterable")?.ok_or_else(|| bad("an argument is missing"))?;
            let items: Vec<Value> = items.try_iter()?.collect();
            items.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(s).into()
        }
        "format" => return format_filter(FormatStyle::StrFormat, s, args).map(Value::from),
        "isalpha" => all(s, char::is_alphabetic).into(),
        "isalnum" => all(s, |c| c.is_alphabetic() || c.is_numeric()).into(),
        "isdigit" => all(s, |c| c.is_numeric() && (decimal(c) || "²³¹⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉".contains(c))).into(),
        "isdecimal" => all(s, decimal).into(),
        "isnumeric" => all(s, char::is_numeric).into(),
        "isspace" => all(s, is_space).into(),
        "isascii" => s.is_ascii().into(),
        "isprintable" => s.chars().all(|c| c == ' ' || !(c.is_control() || is_space(c))).into(),
        "isidentifier" => {
            let mut chars = s.chars();
            let first = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
            (first && chars.all(|c| c == '_' || c.is_alphanumeric())).into()
        }
        "islower" => (s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase)).into(),
        "isupper" => (s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase)).into(),
        "istitle" => (s.chars().any(|c| c.is_uppercase() || c.is_lowercase()) && title(s) == s).into(),
        "center" | "ljust" | "rjust" => {
            takes(2);
            let width = a.integer(0, "width")?.ok_or_else(|| bad("an argument is missing"))?;
            let fill = a.string(1, "fillchar")?.unwrap_or_else(|| " ".into());
            pad(s, name, width, &fill)?.into()
        }
        "zfill" => {
            takes(1);
            let width = a.integer(0, "width")?.ok_or_else(|| bad("an argument is missing"))?;
            let (sign, digits) = s.split_at(usize::from(s.starts_with(['-', '+'])));
            format!("{sign}{}", pad(digits, "rjust", width - sign.len() as i64, "0")?).into()
        }
        "expandtabs" => {
            takes(1);
            expanded(s, a.integer(0, "tabsize")?.unwrap_or(8)).into()
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    a.end(places)?;
    Ok(value)
}

fn all(s: &str, test: impl Fn(char) -> bool) -> bool {
    !s.is_empty() && s.chars().all(test)
}

/// Whether a character is a decimal digit of any script. The blocks of digits are runs of ten that begin at a zero.
fn decimal(c: char) -> bool {
    c.is_ascii_digit()
        || (c.is_numeric()
            && !c.is_ascii()
            && matches!(c as u32,
        0x660..=0x669 | 0x6f0..=0x6f9 | 0x966..=0x96f | 0x9e6..=0x9ef | 0xe50..=0xe59 | 0xff10..=0xff19))
}

pub(super) fn capitalized(s: &str) -> String {
    let mut chars = s.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &chars.as_str().to_lowercase()
}

/// Words begin with capitals; what is no letter ends a word.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

fn swapped(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c.is_uppercase() {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
    }
    out
}

fn split(s: &str, sep: &str, most: i64, from_end: bool) -> Vec<String> {
    let parts = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    if from_end {
        let mut found: Vec<String> = s.rsplitn(parts, sep).map(str::to_owned).collect();
        found.reverse();
        found
    } else {
        s.splitn(parts, sep).map(str::to_owned).collect()
    }
}

/// Splits at runs of white space.
fn split_space(s: &str, most: i64, from_end: bool) -> Vec<String> {
    let mut left = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = if from_end { s.trim_end_matches(is_space) } else { s.trim_start_matches(is_space) };
    while left > 0 {
        let at = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = at else { break };
        let width = rest[at..].chars().next().map_or(0, char::len_utf8);
        let (head, tail) = (&rest[..at], &rest[at + width..]);
        let (part, more) = if from_end {
            (tail, head.trim_end_matches(is_space))
        } else {
            (head, tail.trim_start_matches(is_space))
        };
        parts.push(part.to_owned());
        rest = more;
        left -= 1;
    }
    if !rest.is_empty() {
        parts.push(rest.to_owned());
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// Lines by all of Python's line breaks.
fn lines(s: &str, keep: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = s;
    let breaks = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    while let Some(at) = rest.find(breaks) {
        let width = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(0, char::len_utf8),
        };
        lines.push(rest[..if keep { at + width } else { at }].to_owned());
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

/// The part of `s` between two indices as Python counts them, and how many characters are before it.
fn window(s: &str, start: Option<i64>, end: Option<i64>) -> (&str, usize) {
    let count = s.chars().count() as i64;
    let place = |i: i64| if i < 0 { (count + i).max(0) } else { i.min(count) } as usize;
    let byte = |i: usize| s.char_indices().nth(i).map_or(s.len(), |(at, _)| at);
    let start = place(start.unwrap_or(0));
    let end = place(end.unwrap_or(count)).max(start);
    (&s[byte(start)..byte(end)], start)
}

fn pad(s: &str, name: &str, width: i64, fill: &str) -> Result<String, Error> {
    if width > MAX_WIDTH {
        return Err(bad(format!("a width of {width} is too much")));
    }
    let missing = usize::try_from(width - s.chars().count() as i64).unwrap_or(0);
    let left = match name {
        "rjust" => missing,
        "ljust" => 0,
        // Python's choice of the longer side.
        _ => missing / 2 + (missing & width.unsigned_abs() as usize & 1),
    };
    Ok(format!("{}{s}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn expanded(s: &str, size: i64) -> String {
    let size = size.clamp(0, 1000) as usize;
    let mut out = String::with_capacity(s.len());
    let mut column = 0;
    for c in s.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    out
}

fn map_method(map: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let a = Arguments::new(args)?;
    let keys: Vec<Value> = map.try_iter()?.collect();
    let value: Value = match name {
        "get" => {
            let key = a.get(0, "key")?.unwrap_or_else(|| Value::from(()));
            let default = a.get(1, "default")?.unwrap_or_else(|| Value::from(()));
            a.end(2)?;
            return Ok(Some(map.get_item(&key)?).filter(|value| !value.is_undefined()).unwrap_or(default));
        }
        "keys" => keys.into(),
        "values" => keys.iter().map(|key| map.get_item(key)).collect::<Result<Vec<_>, _>>()?.into(),
        "items" => items(map)?.into(),
        "copy" => map.clone(),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    a.end(0)?;
    Ok(value)
}

/// Keys and values of a map, as tuples.
pub(super) fn items(map: &Value) -> Result<Vec<Value>, Error> {
    map.try_iter()?.map(|key| map.get_item(&key).map(|value| Tuple::value([key, value]))).collect()
}

fn list_method(list: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let a = Arguments::new(args)?;
    let wanted = || a.get(0, "value").map(|value| value.unwrap_or_else(|| Value::from(())));
    match name {
        "count" => Ok(list.try_iter()?.filter(|item| wanted().is_ok_and(|w| w == *item)).count().into()),
        "index" => {
            let wanted = wanted()?;
            let place = list.try_iter()?.position(|item| item == wanted);
            place.map(Value::from).ok_or_else(|| bad(format!("{wanted} is not in the list")))
        }
        "copy" => Ok(list.clone()),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `value[start:stop:step]`.
fn slice(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let a = Arguments::new(args)?;
    let (start, stop) = (a.integer(0, "start")?, a.integer(1, "stop")?);
    let step = a.integer(2, "step")?.unwrap_or(1);
    if step == 0 {
        return Err(bad("slice step cannot be zero"));
    }
    match value.kind() {
        ValueKind::String => {
            let chars: Vec<char> = text(value)?.chars().collect();
            Ok(places(chars.len(), start, stop, step).map(|i| chars[i]).collect::<String>().into())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let part: Vec<Value> = places(items.len(), start, stop, step).map(|i| items[i].clone()).collect();
            Ok(if super::tuple::is_tuple(value) { Tuple::value(part) } else { part.into() })
        }
        // As in Jinja2.
        ValueKind::Undefined | ValueKind::None => Ok(Value::UNDEFINED),
        kind => Err(bad(format!("cannot slice a value of type {kind}"))),
    }
}

/// The indices of a slice of `len` items.
fn places(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let len = len as i64;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |i: i64| if i < 0 { (i + len).max(low) } else { i.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, place);
    let stop = stop.map_or(if step > 0 { high } else { low }, place);
    let inside = move |&i: &i64| if step > 0 { i < stop } else { i > stop };
    let next = move |&i: &i64| i.checked_add(step);
    std::iter::successors(Some(start), next).take_while(inside).map(|i| i as usize)
}
