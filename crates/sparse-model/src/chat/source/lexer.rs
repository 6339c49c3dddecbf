//! The tokens of one tag.

use std::ops::{Deref, DerefMut};

/// Words behind which an operand begins.
const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "elif",
    "for",
    "set",
    "do",
    "print",
    "recursive",
    "call",
    "filter",
];

/// What `%` becomes.
pub(super) const MOD: &str = "|__mod(";
/// What `**` becomes.
pub(super) const POW: &str = "|__pow(";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string with its quotes.
    Str,
    /// A name, a keyword or a number.
    Word,
    Op,
}

#[derive(Debug)]
pub(super) struct Token<'s> {
    /// White space before it.
    space: &'s str,
    pub(super) kind: Kind,
    pub(super) text: String,
    /// To be written behind it.
    pub(super) suffix: String,
    /// How many brackets are open around it.
    pub(super) depth: usize,
    /// The place of the closing bracket, of an opening one.
    pub(super) partner: Option<usize>,
}

impl Token<'_> {
    /// Whether an operand may end with it whose value is known without running the template.
    pub(super) fn may_be_constant(&self) -> bool {
        match self.kind {
            Kind::Str => true,
            Kind::Op => matches!(self.text.as_str(), ")" | "]" | "}"),
            Kind::Word => {
                self.text.starts_with(|c: char| c.is_ascii_digit())
                    || matches!(self.text.to_ascii_lowercase().as_str(), "true" | "false" | "none")
            }
        }
    }

    /// Whether `text` is an operator that binds as `*` does.
    pub(super) fn is_product(text: &str) -> bool {
        matches!(text, "*" | "/" | "//" | "%")
    }
}

/// The tokens of a tag, with its delimiters.
#[derive(Debug)]
pub(super) struct Tokens<'s> {
    open: &'s str,
    tokens: Vec<Token<'s>>,
    close: &'s str,
}

impl<'s> Deref for Tokens<'s> {
    type Target = [Token<'s>];

    fn deref(&self) -> &Self::Target {
        &self.tokens
    }
}

impl DerefMut for Tokens<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tokens
    }
}

impl Tokens<'_> {
    pub(super) fn write(&self, out: &mut String) {
        out.push_str(self.open);
        for token in &self.tokens {
            out.push_str(token.space);
            out.push_str(&token.text);
            out.push_str(&token.suffix);
        }
        out.push_str(self.close);
    }

    /// Whether the token before `i` ends an operand, so that `i` continues it or is a binary operator.
    pub(super) fn ends_operand(&self, i: usize) -> bool {
        i.checked_sub(1).and_then(|i| self.get(i)).is_some_and(|before| match before.kind {
            Kind::Str => true,
            Kind::Word => !KEYWORDS.contains(&before.text.as_str()),
            Kind::Op => matches!(before.text.as_str(), ")" | "]" | "}"),
        })
    }

    /// Whether the operand before the operator at `i` is itself part of a product.
    pub(super) fn in_product(&self, i: usize) -> bool {
        let depth = self[i].depth;
        for j in (0..i).rev() {
            let token = &self[j];
            if token.depth < depth {
                return false;
            }
            if token.depth > depth {
                continue;
            }
            let text = token.text.as_str();
            match token.kind {
                Kind::Op if Token::is_product(text) => return true,
                Kind::Op
                    if matches!(
                        text,
                        "+" | "-" | "~" | "," | "=" | "==" | "!=" | "<" | ">" | "<=" | ">=" | ":"
                    ) =>
                {
                    return false;
                }
                Kind::Word if KEYWORDS.contains(&text) => return false,
                _ => {}
            }
        }
        false
    }

    /// The last token of the operand of a product that begins at `i`.
    pub(super) fn operand_end(&self, i: usize) -> Option<usize> {
        let mut end = self.factor_end(i)?;
        while self.get(end + 1).is_some_and(|token| matches!(token.text.as_str(), "**" | POW)) {
            end = self.factor_end(end + 2)?;
        }
        Some(end)
    }

    /// The last token of the operand of a power that begins at `i`, with its attributes, calls and filters.
    pub(super) fn factor_end(&self, mut i: usize) -> Option<usize> {
        while matches!(self.get(i)?.text.as_str(), "-" | "+" | "") {
            i += 1;
        }
        let group = |i: usize| self.get(i).map(|token| token.partner.unwrap_or(i));
        let text = |i: usize| self.get(i).map_or("", |token| token.text.as_str());
        if self[i].kind == Kind::Op && self[i].partner.is_none() {
            return None;
        }
        let mut end = group(i)?;
        loop {
            let kind = self.get(end + 1).map(|token| token.kind);
            end = match (kind, text(end + 1)) {
                (Some(Kind::Str), _) if self[end].kind == Kind::Str => end + 1,
                (Some(Kind::Op), "(" | "[" | ".__slice(" | "__tuple(") => group(end + 1)?,
                (Some(Kind::Op), "." | "|") if end + 2 < self.len() => end + 2,
                _ => return Some(end),
            };
        }
    }
}

/// The tokens of the tag that `text` begins with, up to `close`, and its length. `None` if it does not end.
pub(super) fn tokens<'s>(text: &'s str, close: &str) -> Option<(Tokens<'s>, usize)> {
    let mut at = if text[2..].starts_with(['-', '+']) { 3 } else { 2 };
    let open = &text[..at];
    let mut tokens: Vec<Token<'s>> = Vec::new();
    let mut brackets: Vec<usize> = Vec::new();
    loop {
        let rest = &text[at..];
        let word = rest.trim_start();
        let space = &rest[..rest.len() - word.len()];
        at += space.len();
        let signed = word.strip_prefix(['-', '+']).is_some_and(|w| w.starts_with(close));
        if brackets.is_empty() && (signed || word.starts_with(close)) {
            let length = at + close.len() + usize::from(signed);
            // White space before the end counts with it.
            let close = &text[at - space.len()..length];
            return Some((Tokens { open, tokens, close }, length));
        }
        let (kind, length) = token(word, tokens.last())?;
        let text = word[..length].to_owned();
        if matches!(text.as_str(), ")" | "]" | "}") {
            let open = brackets.pop()?;
            tokens[open].partner = Some(tokens.len());
        }
        let depth = brackets.len();
        if matches!(text.as_str(), "(" | "[" | "{") {
            brackets.push(tokens.len());
        }
        tokens.push(Token { space, kind, text, suffix: String::new(), depth, partner: None });
        at += length;
    }
}

/// Kind and length of the token that `text` begins with, behind `before`.
fn token(text: &str, before: Option<&Token<'_>>) -> Option<(Kind, usize)> {
    let first = text.chars().next()?;
    if matches!(first, '\'' | '"') {
        let mut escaped = false;
        let end = text[1..].find(|c: char| {
            let ends = c == first && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        return Some((Kind::Str, end + 2));
    }
    if first.is_ascii_digit() {
        return Some((Kind::Word, number(text, before.is_none_or(|t| t.text != "."))));
    }
    if first.is_alphanumeric() || first == '_' {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        return Some((Kind::Word, end));
    }
    let double = ["**", "//", "==", "!=", "<=", ">="].iter().any(|op| text.starts_with(op));
    Some((Kind::Op, if double { 2 } else { first.len_utf8() }))
}

/// The length of a number, with a fraction only if it may have one: not behind a dot, as in `a.0.1`.
fn number(text: &str, fraction: bool) -> usize {
    let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut end = word(text);
    if fraction && text[end..].starts_with('.') && text[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        end += 1 + word(&text[end + 1..]);
    }
    if text[..end].ends_with(['e', 'E']) && !text.starts_with("0x") && text[end..].starts_with(['-', '+']) {
        end += 1 + word(&text[end + 1..]);
    }
    end
}
