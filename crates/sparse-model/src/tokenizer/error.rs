//! What can go wrong with a tokenizer.

/// Errors of building a tokenizer from a file's metadata, and of encoding text with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key of the tokenizer is missing or has the wrong type.
    #[error(transparent)]
    Gguf(#[from] sparse_gguf::Error),
    /// A kind of tokenizer that is not supported.
    #[error("tokenizer model \"{found}\" is not supported (supported: {supported})")]
    Model {
        /// `tokenizer.ggml.model` of the file.
        found: String,
        /// The names that are.
        supported: &'static str,
    },
    /// A way to cut text into words that is not supported.
    #[error("pre-tokenizer \"{found}\" is not supported (supported: {supported})")]
    PreTokenizer {
        /// `tokenizer.ggml.pre` of the file.
        found: String,
        /// The names that are.
        supported: String,
    },
    /// No tokens, or more than ids can count.
    #[error("tokenizer.ggml.tokens has {0} entries, expected 1 to 2147483647")]
    VocabSize(usize),
    /// An array with fewer entries than there are tokens.
    #[error("{key} has {found} entries, expected one for each of the {tokens} tokens")]
    Length {
        /// The array's key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// Two ids with the same text.
    #[error("tokens {first} and {second} are both {text:?}")]
    Duplicate {
        /// Their text.
        text: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// A token type that GGUF does not define.
    #[error("token {id} ({text:?}) has type {found}, expected 1 to 6")]
    TokenType {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
        /// Its entry in `tokenizer.ggml.token_type`.
        found: i32,
    },
    /// A score that cannot be ordered.
    #[error("token {id} ({text:?}) has a score that is not a number")]
    Score {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A token of type byte that names no byte.
    #[error("token {id} is of type byte, but its text is {text:?}, expected \"<0x00>\" to \"<0xFF>\"")]
    ByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A special token outside a vocabulary that was put together by hand.
    #[error("{key} is {id}, outside the vocabulary of {tokens} tokens")]
    SpecialId {
        /// The special token's key.
        key: &'static str,
        /// Its value.
        id: u32,
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// The tokenizer is to add a token that the file does not name.
    #[error("{flag} asks for a token, but there is no {key}")]
    MissingSpecial {
        /// The key that asks for it; the pre-tokenizer may imply it.
        flag: &'static str,
        /// The key of the token's id.
        key: &'static str,
    },
    /// The special tokens' texts are too many to search for.
    #[error("the special tokens cannot be searched for: {0}")]
    SpecialTokens(String),
    /// Bytes that are not UTF-8.
    #[error("the text is not valid utf-8: byte 0x{byte:02x} at offset {offset}")]
    InvalidUtf8 {
        /// Offset of the first byte that is not part of a character.
        offset: usize,
        /// That byte.
        byte: u8,
    },
    /// A character that the vocabulary cannot express.
    #[error(
        "the vocabulary has neither a token for {character:?}, nor one for its byte 0x{byte:02x}, nor one for unknown text"
    )]
    Unencodable {
        /// The character.
        character: char,
        /// The first of its bytes without a token.
        byte: u8,
    },
}
