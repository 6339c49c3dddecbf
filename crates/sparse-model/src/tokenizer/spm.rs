//! SentencePiece's BPE, the `llama` kind: characters merged by the score of the result.

use std::collections::BTreeSet;

use super::merge::Merger;
use super::tokens::{Kind, Tokens, byte_of};
use super::{TokenizerError, Vocab, vocab};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// The scores of a vocabulary, and what to do without a token.
#[derive(Debug)]
pub(super) struct Spm {
    /// By id; the highest score is the lowest rank.
    ranks: Vec<u32>,
    /// Characters that some token has before a [`SPACE`]. Between any other character and a space nothing merges,
    /// so that text can be cut there: the time that merging takes grows faster than the text.
    before_space: BTreeSet<char>,
    /// The tokens `<0x00>` to `<0xFF>`.
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
}

impl Spm {
    pub(super) fn new(
        vocab: &Vocab<'_>,
        tokens: &Tokens,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let scores = vocab
            .scores
            .as_ref()
            .ok_or_else(|| sparse_gguf::Error::MissingKey { key: vocab::SCORES.to_owned() })?;
        if scores.len() < tokens.len() {
            let found = scores.len();
            return Err(TokenizerError::Length { key: vocab::SCORES, found, tokens: tokens.len() });
        }
        let mut ranks = Vec::with_capacity(tokens.len());
        let mut bytes = [None; 256];
        let mut before_space = BTreeSet::new();
        for ((id, text), &score) in tokens.iter().zip(scores.iter()) {
            ranks.push(rank(score).ok_or_else(|| TokenizerError::Score { id, text: text.to_owned() })?);
            if let Some(byte) = byte_of(text)
                && (tokens.kind(id).any(Kind::BYTE) || bytes[usize::from(byte)].is_none())
            {
                bytes[usize::from(byte)] = Some(id);
            }
            before_space.extend(text.match_indices(SPACE).filter_map(|(i, _)| text[..i].chars().next_back()));
        }
        Ok(Self { ranks, before_space, bytes, unknown })
    }

    /// Appends the ids of `text`, in which spaces are written as [`SPACE`].
    ///
    /// A character without a token becomes the tokens of its bytes, or the unknown token if one of them has none.
    /// Control tokens come out only if `controls`.
    pub(super) fn encode(
        &self,
        tokens: &Tokens,
        text: &str,
        controls: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut merger = Merger::default();
        let mut start = 0;
        for (i, _) in text.match_indices(SPACE) {
            let before = text[start..i].chars().next_back();
            if before.is_some_and(|c| !self.before_space.contains(&c)) {
                self.encode_word(tokens, &text[start..i], controls, &mut merger, ids)?;
                start = i;
            }
        }
        self.encode_word(tokens, &text[start..], controls, &mut merger, ids)
    }

    fn encode_word(
        &self,
        tokens: &Tokens,
        word: &str,
        controls: bool,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let find = |text: &str| tokens.find(text).filter(|&id| controls || !tokens.is_parsed(id));
        merger.clear();
        for (i, c) in word.char_indices() {
            merger.push(c.len_utf8(), find(&word[i..i + c.len_utf8()]));
        }
        let merged = merger.run(|left, right| {
            let id = find(&word[left.start..right.end])?;
            Some((self.ranks[id as usize], id))
        });
        for symbol in merged {
            match symbol.id {
                Some(id) => ids.push(id),
                None => self.encode_bytes(&word[symbol.start..symbol.end], ids)?,
            }
        }
        Ok(())
    }

    fn encode_bytes(&self, character: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let start = ids.len();
        for byte in character.bytes() {
            if let Some(id) = self.bytes[usize::from(byte)] {
                ids.push(id);
            } else if let Some(unknown) = self.unknown {
                ids.truncate(start);
                ids.push(unknown);
                break;
            } else {
                let character = character.chars().next().unwrap_or_default();
                return Err(TokenizerError::Unencodable { character, byte });
            }
        }
        Ok(())
    }
}

/// The rank of a score: the same order upside down, `None` if it is not a number.
fn rank(score: f32) -> Option<u32> {
    // 0 and -0 are equal scores, and become equal bits.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    (!score.is_nan()).then_some(!ascending)
}

/// Appends the text of a token, with its spaces.
pub(super) fn decode(text: &str, bytes: &mut Vec<u8>) {
    for (i, part) in text.split(SPACE).enumerate() {
        if i > 0 {
            bytes.push(b' ');
        }
        bytes.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_order_scores_downwards() {
        let scores = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -2.0, -1e9, f32::NEG_INFINITY];
        for pair in scores.windows(2) {
            assert!(rank(pair[0]).unwrap() < rank(pair[1]).unwrap(), "{pair:?}");
        }
        assert_eq!(rank(0.0), rank(-0.0));
        assert_eq!(rank(f32::NAN), None);
    }
}
