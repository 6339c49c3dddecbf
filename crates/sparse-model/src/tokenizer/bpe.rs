//! Byte-level BPE, the `gpt2` kind: bytes written as printable characters, merged by a list of pairs.

use hashbrown::HashMap;

use super::merge::Merger;
use super::split::{PreTokenizer, Splitter};
use super::tokens::Tokens;
use super::{TokenizerError, Vocab, vocab};

/// The character that stands for each byte: itself if it is a printable Latin-1 character, and the others in their
/// order from U+0100 on (`bytes_to_unicode` in GPT-2's `encoder.py`).
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut others = 0;
    let mut byte = 0;
    while byte < 256 {
        chars[byte] = if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
            byte as u8 as char
        } else {
            others += 1;
            // Below the surrogates, so always a character.
            match char::from_u32(0xFF + others) {
                Some(c) => c,
                None => '\0',
            }
        };
        byte += 1;
    }
    chars
};

/// One past the last of [`CHARS`].
const CHARS_END: usize = 0x100 + 68;

/// The inverse of [`CHARS`].
const BYTES: [Option<u8>; CHARS_END] = {
    let mut bytes = [None; CHARS_END];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
};

/// The merges of a vocabulary, by token ids.
#[derive(Debug)]
pub(super) struct Bpe {
    splitter: Splitter,
    ignore_merges: bool,
    /// The tokens of single bytes. A byte that has none is left out of the ids, as in llama.cpp: vocabularies made
    /// from text lack bytes that the text lacked.
    bytes: [Option<u32>; 256],
    /// Rank and result of a pair.
    merges: HashMap<(u32, u32), (u32, u32)>,
}

impl Bpe {
    pub(super) fn new(
        vocab: &Vocab<'_>,
        tokens: &Tokens,
        pre: &PreTokenizer,
    ) -> Result<Self, TokenizerError> {
        let list =
            vocab.merges.ok_or_else(|| sparse_gguf::Error::MissingKey { key: vocab::MERGES.to_owned() })?;
        let mut merges = HashMap::with_capacity(list.len());
        let mut whole = String::new();
        let mut skipped = Vec::new();
        for (index, merge) in list.iter().enumerate() {
            // The first part may itself begin with a space.
            let space = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map_or(merge.len(), |(i, _)| i);
            let (left, right) = (&merge[..space], merge[space..].strip_prefix(' ').unwrap_or(""));
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            match [left, right, &whole].map(|text| tokens.find(text)) {
                [Some(left), Some(right), Some(whole)] => {
                    // Of a pair that is listed twice the first counts.
                    merges.entry((left, right)).or_insert((index as u32, whole));
                }
                // It can join nothing, or its result could not be written as an id.
                _ => skipped.push(index),
            }
        }
        if let Some(&first) = skipped.first() {
            tracing::warn!(
                "{} of the {} merges join or make what is no token, the first is merge {first} ({:?}): they are \
                 left out",
                skipped.len(),
                list.len(),
                list[first]
            );
        }
        let bytes = CHARS.map(|c| tokens.find(c.encode_utf8(&mut [0; 4])));
        let missing = bytes.iter().filter(|id| id.is_none()).count();
        if missing > 0 {
            tracing::debug!("the vocabulary has no token for {missing} of the 256 bytes: text loses them");
        }
        Ok(Self { splitter: pre.splitter(), ignore_merges: pre.ignore_merges, bytes, merges })
    }

    /// Appends the ids of `text`. Control tokens come out only if `controls`.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, controls: bool, ids: &mut Vec<u32>) {
        let allowed = |id: u32| controls || !tokens.is_parsed(id);
        let mut merger = Merger::default();
        let mut written = String::new();
        self.splitter.words(text, &mut |word| {
            if self.ignore_merges {
                written.clear();
                written.extend(word.bytes().map(|b| CHARS[usize::from(b)]));
                if let Some(id) = tokens.find(&written).filter(|&id| allowed(id)) {
                    return ids.push(id);
                }
            }
            merger.clear();
            for byte in word.bytes() {
                merger.push(1, self.bytes[usize::from(byte)]);
            }
            let merged = merger.run(|left, right| {
                self.merges.get(&(left.id?, right.id?)).copied().filter(|&(_, id)| allowed(id))
            });
            ids.extend(merged.filter_map(|symbol| symbol.id));
        });
    }
}

/// Appends the bytes that a token's text stands for. A text with characters that stand for no byte stands for itself.
pub(super) fn decode(text: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in text.chars() {
        match BYTES.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(text.as_bytes());
                return;
            }
        }
    }
}
