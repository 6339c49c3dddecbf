//! Text to token ids and back, out of a GGUF file's metadata alone.
//!
//! Two kinds: byte-level BPE (`gpt2`) and SentencePiece's BPE by scores (`llama`). The ids are those of
//! llama.cpp, which the files are made for; where it departs from a model's own tokenizer, so does this.
//! Two tokens of the same text are an error. A `gpt2` vocabulary that names no end-of-text token has
//! none. A special id outside the vocabulary counts as not stated. A merge that joins or makes what is
//! no token is left out. Warnings say so.
//!
//! ```no_run
//! # fn main() -> Result<(), sparse_model::Error> {
//! use sparse_gguf::Gguf;
//! use sparse_model::tokenizer::{EncodeOptions, Tokenizer};
//!
//! let file = Gguf::open("model.gguf")?;
//! let tokenizer = Tokenizer::from_metadata(file.metadata())?;
//! let ids = tokenizer.encode("Once upon a time", EncodeOptions::default())?;
//! let text = tokenizer.decode(&ids, true);
//! # Ok(())
//! # }
//! ```

mod bpe;
mod error;
mod merge;
mod special;
mod split;
mod spm;
mod stream;
mod tokens;
mod vocab;

use std::collections::BTreeSet;
use std::ops::Range;

use sparse_gguf::Metadata;

pub use error::TokenizerError;
pub(crate) use stream::DecodeState;
pub use stream::DecodeStream;
#[cfg(feature = "encoder")]
pub(crate) use vocab::known_id;
pub use vocab::{SpecialIds, Vocab};

use bpe::Bpe;
use special::{Fragment, SpecialTokens};
use split::PreTokenizer;
use spm::Spm;
use tokens::{Kind, Tokens};

/// How to encode a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Begin with the beginning-of-text token where the tokenizer wants it ([`Tokenizer::add_bos`]).
    pub add_bos: bool,
    /// End with the end-of-text token where the tokenizer wants it ([`Tokenizer::add_eos`]). Embedding models do;
    /// behind a prompt it would end what is to be continued.
    pub add_eos: bool,
    /// Read the names of control tokens in the text, such as `<|im_end|>`, as those tokens. For prompts that a chat
    /// template made; in text from elsewhere they are better left as text. User-defined tokens are always read.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    /// Adds both tokens, parses none.
    fn default() -> Self {
        Self { add_bos: true, add_eos: true, parse_special: false }
    }
}

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    tokens: Tokens,
    model: Model,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    end_of_generation: BTreeSet<u32>,
    add_bos: bool,
    add_eos: bool,
}

#[derive(Debug)]
enum Model {
    Bpe(Bpe),
    Spm { spm: Spm, add_space_prefix: bool },
}

impl Tokenizer {
    /// The tokenizer in a GGUF file's metadata.
    ///
    /// # Errors
    /// As [`from_vocab`](Self::from_vocab), or if keys are missing or have the wrong type.
    pub fn from_metadata(meta: &Metadata) -> Result<Self, TokenizerError> {
        Self::from_vocab(&Vocab::from_metadata(meta)?)
    }

    /// Builds the tokenizer of `vocab`.
    ///
    /// # Errors
    /// If the model or the pre-tokenizer is none of those supported, or the vocabulary is inconsistent: each error
    /// names the token or the key.
    pub fn from_vocab(vocab: &Vocab<'_>) -> Result<Self, TokenizerError> {
        let mut tokens = Tokens::new(vocab)?;
        let mut special = vocab.special;
        special.check(tokens.len())?;
        let (model, add_bos) = match vocab.model {
            "gpt2" => {
                let pre = PreTokenizer::named(vocab.pre.unwrap_or("default"))?;
                (Model::Bpe(Bpe::new(vocab, &tokens, pre)?), pre.add_bos)
            }
            "llama" => {
                // SentencePiece's own ids, for files that do not repeat them.
                let in_range = |id| Some(id).filter(|&id| tokens.get(id).is_some());
                special.unk = special.unk.or(in_range(0));
                special.bos = special.bos.or(in_range(1));
                special.eos = special.eos.or(in_range(2));
                let spm = Spm::new(vocab, &tokens, special.unk)?;
                (Model::Spm { spm, add_space_prefix: vocab.add_space_prefix.unwrap_or(true) }, true)
            }
            other => return Err(TokenizerError::Model { found: other.to_owned(), supported: "gpt2, llama" }),
        };
        let end_of_generation = special::end_of_generation(&mut tokens, &special);
        special::mark_phi3(&mut tokens, vocab.name);
        let tokenizer = Self {
            special: SpecialTokens::new(&tokens)?,
            tokens,
            model,
            bos: special.bos,
            eos: special.eos,
            end_of_generation,
            add_bos: vocab.add_bos.unwrap_or(add_bos),
            add_eos: vocab.add_eos.unwrap_or(false),
        };
        for (add, id, flag, key) in [
            (tokenizer.add_bos, tokenizer.bos, vocab::ADD_BOS, "tokenizer.ggml.bos_token_id"),
            (tokenizer.add_eos, tokenizer.eos, vocab::ADD_EOS, "tokenizer.ggml.eos_token_id"),
        ] {
            if add && id.is_none() {
                return Err(TokenizerError::MissingSpecial { flag, key });
            }
        }
        Ok(tokenizer)
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`TokenizerError::Unencodable`] for a character that a SentencePiece vocabulary without byte tokens and
    /// without an unknown token lacks. Byte-level BPE always succeeds; bytes that its vocabulary lacks are left out.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        self.encode_around(text, &[], options)
    }

    /// The ids of a prompt for a model to continue.
    ///
    /// It begins with the beginning-of-text token where the tokenizer wants it, once: not again if the prompt names
    /// it, with or without white space before it. It never ends with the end-of-text token. Names of control tokens
    /// in the prompt are these tokens.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TokenizerError> {
        let bos = self.bos.and_then(|id| self.token(id));
        let begun = bos.is_some_and(|bos| prompt.trim_start().starts_with(bos));
        self.encode(prompt, EncodeOptions { add_bos: !begun, add_eos: false, parse_special: true })
    }

    /// The ids of a conversation that a chat template wrote. No token is added: the template writes those that begin
    /// and end texts, as transformers has it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_chat(&self, rendered: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_marked(rendered, &[])
    }

    /// Like [`encode_chat`](Self::encode_chat), but special tokens that overlap the byte ranges `literal` stay text.
    /// The ranges are sorted and do not overlap.
    pub(crate) fn encode_marked(
        &self,
        text: &str,
        literal: &[Range<usize>],
    ) -> Result<Vec<u32>, TokenizerError> {
        let options = EncodeOptions { add_bos: false, add_eos: false, parse_special: true };
        self.encode_around(text, literal, options)
    }

    fn encode_around(
        &self,
        text: &str,
        literal: &[Range<usize>],
        options: EncodeOptions,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if options.add_bos && self.add_bos {
            ids.extend(self.bos);
        }
        // Merges may end in the text of a control token. llama.cpp's do; text to be kept must not.
        let controls = literal.is_empty();
        let mut behind_token = true;
        for fragment in self.special.split(&self.tokens, text, options.parse_special, literal) {
            match (fragment, &self.model) {
                (Fragment::Token(id), _) => ids.push(id),
                (Fragment::Text(text), Model::Bpe(bpe)) => {
                    bpe.encode(&self.tokens, text, controls, &mut ids);
                }
                (Fragment::Text(text), Model::Spm { spm, add_space_prefix }) => {
                    let prefix = if *add_space_prefix && behind_token { spm::SPACE } else { "" };
                    let text = format!("{prefix}{}", text.replace(' ', spm::SPACE));
                    spm.encode(&self.tokens, &text, controls, &mut ids)?;
                }
            }
            behind_token = matches!(fragment, Fragment::Token(_));
        }
        if options.add_eos && self.add_eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// The ids of a text that may not be UTF-8.
    ///
    /// # Errors
    /// [`TokenizerError::InvalidUtf8`] with the offset of the first byte that is not part of a character; and those
    /// of [`encode`](Self::encode).
    pub fn encode_bytes(&self, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let text = std::str::from_utf8(text).map_err(|e| {
            let offset = e.valid_up_to();
            TokenizerError::InvalidUtf8 { offset, byte: text[offset] }
        })?;
        self.encode(text, options)
    }

    /// The text of `ids`.
    ///
    /// With `skip_special`, control tokens and the unknown token are left out; else they appear by name. Bytes that
    /// are not UTF-8, and ids outside the vocabulary, come out as U+FFFD. The space that SentencePiece puts before a
    /// text is taken off again; `decode` is for whole texts, [`decode_stream`](Self::decode_stream) for what
    /// continues one.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        let mut at_start = true;
        for &id in ids {
            self.append(id, skip_special, &mut at_start, &mut bytes);
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }

    /// Decodes token by token what continues a text, such as what a model generates behind a prompt; control tokens
    /// are left out. [`DecodeStream::from_start`] and [`DecodeStream::keep_special`] change that.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// Appends the bytes of a token. `at_start` says that no text came before, and is cleared with the first text.
    fn append(&self, id: u32, skip_special: bool, at_start: &mut bool, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        let kind = self.tokens.kind(id);
        match (self.tokens.get(id), &self.model) {
            (None, _) => bytes.extend_from_slice("\u{FFFD}".as_bytes()),
            (Some(_), _) if skip_special && kind.any(Kind::CONTROL.or(Kind::UNKNOWN)) => {}
            (Some(text), _) if kind.any(Kind::CONTROL.or(Kind::UNKNOWN).or(Kind::USER_DEFINED)) => {
                bytes.extend_from_slice(text.as_bytes());
            }
            (Some(text), Model::Bpe(_)) if kind.any(Kind::NORMAL) => bpe::decode(text, bytes),
            (Some(text), Model::Spm { .. }) if kind.any(Kind::NORMAL) => spm::decode(text, bytes),
            (Some(text), _) if kind.any(Kind::BYTE) => bytes.extend(tokens::byte_of(text)),
            // Unused tokens have no text.
            (Some(_), _) => {}
        }
        if *at_start && bytes.len() > start {
            *at_start = false;
            let prefixed = matches!(self.model, Model::Spm { add_space_prefix: true, .. });
            if prefixed && bytes[start] == b' ' {
                bytes.remove(start);
            }
        }
    }

    /// The text of a token as the vocabulary writes it, `None` outside the vocabulary.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id)
    }

    /// The bytes that a token stands for where it continues a text, which need not be whole characters. Control tokens
    /// and the unknown token give their names; an id outside the vocabulary gives U+FFFD.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append(id, false, &mut false, &mut bytes);
        bytes
    }

    /// The tokens that end a generation, ascending.
    pub fn end_of_generation(&self) -> impl Iterator<Item = u32> {
        self.end_of_generation.iter().copied()
    }

    /// The id of the token that the vocabulary writes as `text`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.tokens.find(text)
    }

    /// The texts of the tokens that a chat template writes between messages: control tokens, and user-defined ones
    /// that stand in the template's `source`.
    #[cfg(feature = "chat")]
    pub(crate) fn chat_tokens<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a str> {
        self.special
            .iter(&self.tokens)
            .filter(move |&(id, text)| {
                let parsed = self.tokens.kind(id).any(Kind::CONTROL.or(Kind::UNKNOWN));
                parsed || (!text.trim().is_empty() && source.contains(text))
            })
            .map(|(_, text)| text)
    }

    /// Whether a token steers the model instead of standing for text.
    pub fn is_control(&self, id: u32) -> bool {
        self.tokens.kind(id).any(Kind::CONTROL)
    }

    /// Whether generation ends with this token: the end of text, of a turn or of a message.
    pub fn is_eog(&self, id: u32) -> bool {
        self.end_of_generation.contains(&id)
    }

    /// The beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether texts begin with [`bos`](Self::bos).
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether texts end with [`eos`](Self::eos).
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Tokens in the vocabulary; ids are below it.
    pub fn vocab_len(&self) -> usize {
        self.tokens.len()
    }
}
