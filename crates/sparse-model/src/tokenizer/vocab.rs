//! The vocabulary as a GGUF file states it.

use std::borrow::Cow;

use sparse_gguf::{Array, Metadata, Value};

use super::TokenizerError;

/// The key of the tokens' texts.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
/// The key of the tokens' types.
pub(super) const TYPES: &str = "tokenizer.ggml.token_type";
/// The key of the tokens' scores.
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
/// The key of the merges.
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
/// The key of the flag to begin texts with [`SpecialIds::bos`].
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// The key of the flag to end texts with [`SpecialIds::eos`].
pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// A tokenizer's vocabulary and settings, borrowed from where they were read.
///
/// This is what the metadata says, unchecked; [`Tokenizer::from_vocab`](super::Tokenizer::from_vocab) checks it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Vocab<'a> {
    /// `general.name`. Like llama.cpp, which this follows, a tokenizer drops the space behind Phi-3's special
    /// tokens, and the model's name is all there is to tell.
    pub name: Option<&'a str>,
    /// `tokenizer.ggml.model`: `gpt2` or `llama`.
    pub model: &'a str,
    /// `tokenizer.ggml.pre`: how text is cut into words. `None` is `default`.
    pub pre: Option<&'a str>,
    /// `tokenizer.ggml.tokens`: the text of each id.
    pub tokens: &'a [String],
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. `None` is
    /// all normal.
    pub types: Option<Cow<'a, [i32]>>,
    /// `tokenizer.ggml.scores`: of SentencePiece vocabularies; higher merges first.
    pub scores: Option<Cow<'a, [f32]>>,
    /// `tokenizer.ggml.merges`: of byte-level BPE; two tokens with a space between them, the first merges first.
    pub merges: Option<&'a [String]>,
    /// Special tokens that the file names.
    pub special: SpecialIds,
    /// `tokenizer.ggml.add_bos_token`. `None` leaves it to the kind of tokenizer.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`. `None` is no.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`: SentencePiece's space before the text. `None` is yes.
    pub add_space_prefix: Option<bool>,
}

macro_rules! special_ids {
    ($($(#[doc = $doc:literal])* $name:ident: $($key:literal)|+;)*) => {
        /// Ids of tokens with a meaning of their own, as far as the file names them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SpecialIds {
            $($(#[doc = $doc])* pub $name: Option<u32>,)*
        }

        impl SpecialIds {
            /// Reads the ids; where two keys name the same token, the last one found counts.
            ///
            /// An id outside the vocabulary names no token: files state -1 or 4294967295 for "none".
            fn from_metadata(meta: &Metadata, tokens: usize) -> Result<Self, TokenizerError> {
                let mut ids = Self::default();
                $($(if let Some(id) = known_id(meta, $key, tokens)? {
                    ids.$name = Some(id);
                })*)*
                Ok(ids)
            }

            /// Checks that every id is in a vocabulary of `tokens` tokens.
            pub(super) fn check(&self, tokens: usize) -> Result<(), TokenizerError> {
                $(if let Some(id) = self.$name && id as usize >= tokens {
                    return Err(TokenizerError::SpecialId { key: special_ids!(@first $($key)*), id, tokens });
                })*
                Ok(())
            }
        }
    };
    (@first $key:literal $($rest:literal)*) => { $key };
}

special_ids! {
    /// Beginning of text.
    bos: "tokenizer.ggml.bos_token_id";
    /// End of text.
    eos: "tokenizer.ggml.eos_token_id";
    /// End of a turn.
    eot: "tokenizer.ggml.eot_token_id";
    /// End of a message.
    eom: "tokenizer.ggml.eom_token_id";
    /// What cannot be expressed otherwise.
    unk: "tokenizer.ggml.unknown_token_id";
    /// Fill in the middle: the text before.
    fim_pre: "tokenizer.ggml.fim_pre_token_id" | "tokenizer.ggml.prefix_token_id";
    /// Fill in the middle: the text behind.
    fim_suf: "tokenizer.ggml.fim_suf_token_id" | "tokenizer.ggml.suffix_token_id";
    /// Fill in the middle: the text to find.
    fim_mid: "tokenizer.ggml.fim_mid_token_id" | "tokenizer.ggml.middle_token_id";
    /// Fill in the middle: padding.
    fim_pad: "tokenizer.ggml.fim_pad_token_id";
    /// Fill in the middle: the repository's name.
    fim_rep: "tokenizer.ggml.fim_rep_token_id";
    /// Fill in the middle: between files.
    fim_sep: "tokenizer.ggml.fim_sep_token_id";
}

/// The id that `key` states, unless it is outside a vocabulary of `tokens` tokens.
pub(crate) fn known_id(meta: &Metadata, key: &str, tokens: usize) -> Result<Option<u32>, TokenizerError> {
    let found = match meta.opt_u32(key) {
        Ok(None) => return Ok(None),
        Ok(Some(id)) if (id as usize) < tokens => return Ok(Some(id)),
        Ok(Some(id)) => id.into(),
        Err(sparse_gguf::Error::OutOfRange { found, .. }) => found,
        Err(other) => return Err(other.into()),
    };
    tracing::warn!("{key} is {found}, outside the vocabulary of {tokens} tokens: the default is used");
    Ok(None)
}

impl<'a> Vocab<'a> {
    /// The vocabulary in a file's metadata.
    ///
    /// # Errors
    /// When `tokenizer.ggml.model` or `tokenizer.ggml.tokens` is missing, or a key has the wrong type.
    pub fn from_metadata(meta: &'a Metadata) -> Result<Self, TokenizerError> {
        // Integer scores are rare, but llama.cpp takes them.
        let scores = match meta.get(SCORES) {
            Some(Value::Array(Array::I32(v))) => Some(v.iter().map(|&s| s as f32).collect()),
            _ => meta.opt_f32s(SCORES)?.map(Cow::Borrowed),
        };
        let tokens = meta.strings(TOKENS)?;
        Ok(Self {
            name: meta.opt_string("general.name")?,
            model: meta.string("tokenizer.ggml.model")?,
            pre: meta.opt_string("tokenizer.ggml.pre")?,
            tokens,
            types: meta.opt_i32s(TYPES)?,
            scores,
            merges: meta.opt_strings(MERGES)?,
            special: SpecialIds::from_metadata(meta, tokens.len())?,
            add_bos: meta.opt_bool(ADD_BOS)?,
            add_eos: meta.opt_bool(ADD_EOS)?,
            add_space_prefix: meta.opt_bool("tokenizer.ggml.add_space_prefix")?,
        })
    }
}
