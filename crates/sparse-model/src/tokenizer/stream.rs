//! Decoding token by token.

use super::Tokenizer;

/// Turns ids into text one by one, as [`Tokenizer::decode`] does all at once, and never gives out half a character:
/// bytes wait until the ids that follow complete them.
///
/// Made by [`Tokenizer::decode_stream`].
#[derive(Clone, Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    state: DecodeState,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, state: DecodeState::default() }
    }

    /// For ids that begin a text instead of continuing one: the space that SentencePiece puts before a text is
    /// taken off again.
    #[must_use]
    pub fn from_start(mut self) -> Self {
        self.state.at_start = true;
        self
    }

    /// Shows control tokens, and the unknown token, as their names instead of leaving them out.
    #[must_use]
    pub fn keep_special(mut self) -> Self {
        self.state.keep_special = true;
        self
    }

    /// Takes the next id, and gives the text that is now complete, if any. An id outside the vocabulary is U+FFFD.
    pub fn push(&mut self, id: u32) -> Option<&str> {
        self.state.push(self.tokenizer, id)
    }

    /// Ends the text: what is left of a character that was never completed comes out as U+FFFD.
    pub fn finish(&mut self) -> Option<&str> {
        self.state.finish()
    }
}

/// A [`DecodeStream`] without its tokenizer.
#[derive(Clone, Debug, Default)]
pub(crate) struct DecodeState {
    keep_special: bool,
    at_start: bool,
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
    text: String,
}

impl DecodeState {
    /// See [`DecodeStream::push`].
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Option<&str> {
        tokenizer.append(id, !self.keep_special, &mut self.at_start, &mut self.pending);
        self.text.clear();
        let mut done = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text.push_str(chunk.valid());
            done += chunk.valid().len();
            let last = chunks.peek().is_none();
            let dangling = last && is_incomplete(chunk.invalid());
            if !chunk.invalid().is_empty() && !dangling {
                self.text.push(char::REPLACEMENT_CHARACTER);
                done += chunk.invalid().len();
            }
        }
        self.pending.drain(..done);
        (!self.text.is_empty()).then_some(&self.text)
    }

    /// See [`DecodeStream::finish`].
    pub(crate) fn finish(&mut self) -> Option<&str> {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        (!self.text.is_empty()).then_some(&self.text)
    }
}

/// Whether more bytes could make a character of these, which are none so far.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
