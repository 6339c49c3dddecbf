//! Rewrites a template's source where Jinja2 and minijinja read it differently.
//!
//! Statements and structure are minijinja's business. This looks at single tokens of expressions:
//!
//! | Jinja2 | becomes | because |
//! |---|---|---|
//! | `{% generation %}` | `{% with %}` | transformers passes the body through, in a scope of its own |
//! | `'\v'` | the character | escapes are Python's |
//! | `a % b` | `a\|__mod(b)` | it formats strings |
//! | `a ~ b` | `a\|__str ~ b\|__str` | lists print as in Python |
//! | `a[1:]` | `a.__slice(1, none, none)` | bounds and steps are Python's |
//! | `(a, b)` | `__tuple(a, b)` | tuples print as such |
//! | `[] and a` | `[]\|__value and a` | minijinja folds constants to a boolean |
//! | `a ** b` | `a\|__pow(b)` | exponents may be negative |
//! | `+a` | `a` | minijinja has no unary plus |

mod lexer;

use super::ChatError;
use lexer::{Kind, Token, Tokens};

/// The template, for minijinja.
pub(super) fn rewrite(source: &str) -> Result<String, ChatError> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        let (text, tail) = rest.split_at(at);
        out.push_str(text);
        rest = tail;
        let length = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |end| end + 2),
            Some(b'%') => match raw(rest, &mut out) {
                Some(length) => {
                    rest = &rest[length..];
                    continue;
                }
                None => tag(rest, "%}", &source, &mut out)?,
            },
            Some(b'{') => tag(rest, "}}", &source, &mut out)?,
            _ => 1,
        };
        if !matches!(rest.as_bytes().get(1), Some(b'%' | b'{')) {
            out.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Copies a raw block up to its end tag if `rest` begins with one, and returns its length.
fn raw(rest: &str, out: &mut String) -> Option<usize> {
    let inner = rest[2..].trim_start_matches(['-', '+']).trim_start().strip_prefix("raw")?.trim_start();
    let keep = !inner.starts_with('-');
    let body = inner.trim_start_matches(['-', '+']).strip_prefix("%}")?;
    let start = rest.len() - body.len();
    let end = body
        .match_indices("{%")
        .map(|(at, _)| at)
        .find(|&at| body[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw"))?;
    out.push_str(&rest[..start]);
    if keep && body.starts_with('\n') {
        // Jinja2 keeps the line break behind this tag, other than behind all others.
        out.push('\n');
    }
    // The end tag goes with the body: its name is no expression.
    let close = body[end..].find("%}")? + 2;
    out.push_str(&body[..end + close]);
    Some(start + end + close)
}

/// Rewrites the tag that `rest` begins with and that ends with `close`; returns its length.
fn tag(rest: &str, close: &str, source: &str, out: &mut String) -> Result<usize, ChatError> {
    let Some((mut tokens, length)) = lexer::tokens(rest, close) else {
        // Not well-formed: minijinja says what is wrong.
        out.push_str(rest);
        return Ok(rest.len());
    };
    let line = || source[..source.len() - rest.len()].matches('\n').count() + 1;
    for token in tokens.iter_mut().filter(|token| token.kind == Kind::Str) {
        token.text = string(&token.text)
            .map_err(|problem| ChatError::Syntax { line: line(), problem: problem.to_owned() })?;
    }
    let targets = if close == "%}" { statement(&mut tokens) } else { 0 };
    tuples(&mut tokens, targets);
    slices(&mut tokens);
    operators(&mut tokens);
    tokens.write(out);
    Ok(length)
}

/// Renames what minijinja calls otherwise, and returns how many tokens in front are names to assign to.
fn statement(tokens: &mut Tokens) -> usize {
    let Some(name) = tokens.first().map(|token| token.text.clone()) else { return 0 };
    let find = |text: &str| tokens.iter().position(|t| t.text == text && t.depth == 0);
    let targets = match name.as_str() {
        "set" => find("="),
        "for" => find("in"),
        // Their parameters.
        "macro" | "call" => tokens.iter().position(|t| t.text == ")" && t.depth == 0),
        _ => Some(0),
    };
    let targets = targets.unwrap_or(tokens.len());
    match name.as_str() {
        "generation" => tokens[0].text = "with".into(),
        "endgeneration" => tokens[0].text = "endwith".into(),
        _ => {}
    }
    targets
}

/// Marks tuples in parentheses behind the first `targets` tokens.
fn tuples(tokens: &mut Tokens, targets: usize) {
    for open in targets..tokens.len() {
        if tokens[open].text != "(" || tokens.ends_operand(open) {
            continue;
        }
        let Some(close) = tokens[open].partner else { continue };
        let depth = tokens[open].depth + 1;
        let comma = tokens[open..close].iter().any(|t| t.text == "," && t.depth == depth);
        if comma || close == open + 1 {
            tokens[open].text = "__tuple(".into();
        }
    }
}

/// Turns slices into calls.
fn slices(tokens: &mut Tokens) {
    for open in 0..tokens.len() {
        if tokens[open].text != "[" || !tokens.ends_operand(open) {
            continue;
        }
        let Some(close) = tokens[open].partner else { continue };
        let depth = tokens[open].depth + 1;
        let colons: Vec<usize> =
            (open..close).filter(|&i| tokens[i].text == ":" && tokens[i].depth == depth).collect();
        if colons.is_empty() || colons.len() > 2 {
            continue;
        }
        tokens[open].text = ".__slice(".into();
        tokens[close].text = ")".into();
        let mut before = open;
        for &end in colons.iter().chain([&close]) {
            if end == before + 1 {
                tokens[before].suffix.push_str("none");
            }
            before = end;
        }
        for i in colons {
            tokens[i].text = ",".into();
        }
    }
}

/// Rewrites `%`, `~`, `and`, `or` and the unary plus.
fn operators(tokens: &mut Tokens) {
    for i in 0..tokens.len() {
        let operand = tokens.ends_operand(i);
        match (tokens[i].kind, tokens[i].text.as_str()) {
            (Kind::Op, "+") if !operand => tokens[i].text.clear(),
            (Kind::Op, "%") if operand && !tokens.in_product(i) => {
                if let Some(end) = tokens.operand_end(i + 1) {
                    tokens[i].text = lexer::MOD.into();
                    tokens[end].suffix.push(')');
                }
            }
            (Kind::Op, "**") if operand => {
                if let Some(end) = tokens.factor_end(i + 1) {
                    tokens[i].text = lexer::POW.into();
                    tokens[end].suffix.push(')');
                }
            }
            (Kind::Word, "and" | "or") if i > 0 && tokens[i - 1].may_be_constant() => {
                tokens[i - 1].suffix.push_str("|__value");
            }
            _ => {}
        }
    }
    // Behind what `%` became.
    for i in 1..tokens.len() {
        if tokens[i].kind != Kind::Op || tokens[i].text != "~" {
            continue;
        }
        if !tokens.in_product(i) && tokens[i - 1].kind != Kind::Str {
            tokens[i - 1].suffix.push_str("|__str");
        }
        let Some(end) = tokens.operand_end(i + 1) else { continue };
        // What follows is a longer operand, or another `~`, which does it.
        let next = tokens.get(end + 1).map_or("", |t| t.text.as_str());
        if tokens[end].kind != Kind::Str && !Token::is_product(next) && !matches!(next, "~" | lexer::MOD) {
            tokens[end].suffix.push_str("|__str");
        }
    }
}

/// A literal with Python's escapes, as minijinja writes it.
fn string(literal: &str) -> Result<String, &'static str> {
    let quote = literal.chars().next().unwrap_or('\'');
    let body = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    if !body.contains('\\') {
        return Ok(literal.to_owned());
    }
    let mut out = String::from(quote);
    let mut push = |c: char| match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        c if c == quote => out.extend(['\\', c]),
        c => out.push(c),
    };
    let mut chars = body.chars().peekable();
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(c);
            continue;
        }
        let Some(escape) = chars.next() else { break };
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let code = match escape {
            '\n' => continue,
            'a' => 7,
            'b' => 8,
            't' => 9,
            'n' => 10,
            'v' => 11,
            'f' => 12,
            'r' => 13,
            '\\' | '\'' | '"' => escape as u32,
            '0'..='7' => {
                let mut code = escape.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    if let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) {
                        code = code * 8 + digit;
                        chars.next();
                    }
                }
                code
            }
            'x' | 'u' | 'U' => {
                let mut code = 0u32;
                for _ in 0..digits {
                    let digit = chars.next().and_then(|c| c.to_digit(16));
                    let digit = digit.ok_or("a hexadecimal escape in a string is too short")?;
                    code = code.checked_mul(16).ok_or("an escape is beyond Unicode")? + digit;
                }
                code
            }
            'N' => return Err("names of characters in strings (\\N) are not supported"),
            other => {
                push('\\');
                push(other);
                continue;
            }
        };
        match (high.take(), code) {
            (Some(high), 0xdc00..=0xdfff) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                push(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            (_, 0xd800..=0xdbff) if chars.clone().take(2).eq("\\u".chars()) => high = Some(code),
            (_, 0xd800..=0xdfff) => push('\u{fffd}'),
            _ => push(char::from_u32(code).ok_or("an escape in a string is beyond Unicode")?),
        }
    }
    out.push(quote);
    Ok(out)
}
