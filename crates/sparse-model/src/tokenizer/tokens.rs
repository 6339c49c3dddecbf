//! The tokens: text by id, id by text, and what kind of token each is.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::{TokenizerError, Vocab, vocab};

/// What a token is: a set of the constants below.
///
/// A set, because a token that the file calls normal becomes a control token as well when its text says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const NORMAL: Self = Self(1);
    pub(super) const UNKNOWN: Self = Self(1 << 1);
    pub(super) const CONTROL: Self = Self(1 << 2);
    pub(super) const USER_DEFINED: Self = Self(1 << 3);
    pub(super) const UNUSED: Self = Self(1 << 4);
    pub(super) const BYTE: Self = Self(1 << 5);
    /// White space behind the token in a text belongs to it.
    pub(super) const RSTRIP: Self = Self(1 << 6);

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is any of `kinds`.
    pub(super) const fn any(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    /// The kind that `tokenizer.ggml.token_type` means by `ty`.
    const fn from_type(ty: i32) -> Option<Self> {
        Some(match ty {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            5 => Self::UNUSED,
            6 => Self::BYTE,
            _ => return None,
        })
    }
}

/// All tokens of a vocabulary, in one allocation of text.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    text: String,
    /// Where the text of each id ends; it starts where the one before ends.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    /// Ids by the hash of their text.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    longest: usize,
}

impl Tokens {
    /// Collects and checks the tokens of `vocab`. An empty text becomes `[EMPTY_id]`, as in llama.cpp.
    pub(super) fn new(vocab: &Vocab<'_>) -> Result<Self, TokenizerError> {
        let count = vocab.tokens.len();
        if count == 0 || i32::try_from(count).is_err() {
            return Err(TokenizerError::VocabSize(count));
        }
        if let Some(types) = &vocab.types
            && types.len() < count
        {
            return Err(TokenizerError::Length { key: vocab::TYPES, found: types.len(), tokens: count });
        }
        let mut tokens = Self {
            text: String::with_capacity(vocab.tokens.iter().map(String::len).sum()),
            ends: Vec::with_capacity(count),
            kinds: Vec::with_capacity(count),
            index: HashTable::with_capacity(count),
            hasher: DefaultHashBuilder::default(),
            longest: 0,
        };
        for (id, text) in (0u32..).zip(vocab.tokens) {
            let ty = vocab.types.as_ref().map_or(1, |types| types[id as usize]);
            let kind = Kind::from_type(ty).ok_or_else(|| TokenizerError::TokenType {
                id,
                text: text.clone(),
                found: ty,
            })?;
            if kind.any(Kind::BYTE) && byte_of(text).is_none() {
                return Err(TokenizerError::ByteToken { id, text: text.clone() });
            }
            if text.is_empty() {
                tokens.push(id, &format!("[EMPTY_{id}]"), kind)?;
            } else {
                tokens.push(id, text, kind)?;
            }
        }
        Ok(tokens)
    }

    fn push(&mut self, id: u32, text: &str, kind: Kind) -> Result<(), TokenizerError> {
        self.text.push_str(text);
        self.ends.push(self.text.len());
        self.kinds.push(kind);
        self.longest = self.longest.max(text.len());
        let Self { text: all, ends, index, hasher, .. } = self;
        let same = |&other: &u32| text_of(all, ends, other) == text;
        let hash = |&other: &u32| hasher.hash_one(text_of(all, ends, other));
        match index.entry(hasher.hash_one(text), same, hash) {
            Entry::Occupied(first) => {
                Err(TokenizerError::Duplicate { text: text.to_owned(), first: *first.get(), second: id })
            }
            Entry::Vacant(place) => {
                place.insert(id);
                Ok(())
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, id: u32) -> Option<&str> {
        (self.len() > id as usize).then(|| text_of(&self.text, &self.ends, id))
    }

    /// The texts, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..self.len() as u32).map(|id| (id, text_of(&self.text, &self.ends, id)))
    }

    /// The id of the token whose text is `text`.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        if text.len() > self.longest {
            return None;
        }
        let same = |&id: &u32| text_of(&self.text, &self.ends, id) == text;
        self.index.find(self.hasher.hash_one(text), same).copied()
    }

    /// Whether the token is a control token or the unknown token: its name in a text means it only where
    /// the text is parsed for such.
    pub(super) fn is_parsed(&self, id: u32) -> bool {
        self.kind(id).any(Kind::CONTROL.or(Kind::UNKNOWN))
    }

    /// The kind of a token, of no kind if there is no such id.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind(0))
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        if let Some(k) = self.kinds.get_mut(id as usize) {
            *k = kind;
        }
    }
}

fn text_of<'a>(text: &'a str, ends: &[usize], id: u32) -> &'a str {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &text[start..ends[id]]
}

/// The byte that a token of type byte stands for: its text is `<0x` and two hexadecimal digits and `>`.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || digits.starts_with('+') {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}
