//! A SentencePiece vocabulary (byte-pair merges by score, with byte fallback) of any size up to some 950,000.

use sparse_gguf::Metadata;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Stands for a space.
const SPACE: char = '\u{2581}';
/// Letters, roughly the most frequent in English first.
const LETTERS: &str = "etaoinshrdlcumwfgypbvkjxqz";

/// The first `len` tokens, texts and types: three special ones, the 256 bytes, the printable ASCII characters, then two to
/// four letters, each with and without a space before it. They may be fewer than `len`.
pub(super) fn tokens(len: usize) -> Vec<(String, i32)> {
    let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    let special = special.into_iter().map(|(text, ty)| (text.to_owned(), ty));
    let bytes = (0..=255u8).map(|b| (format!("<0x{b:02X}>"), BYTE));
    let characters = std::iter::once(SPACE).chain('!'..='~').map(|c| c.to_string());
    let words = |n: usize| {
        let after_space = letters(n).map(|w| format!("{SPACE}{w}"));
        letters(n).chain(after_space)
    };
    let starts = LETTERS.chars().map(|c| format!("{SPACE}{c}"));
    let normal =
        characters.chain(starts).chain(words(2)).chain(words(3)).chain(words(4)).map(|text| (text, NORMAL));
    special.chain(bytes).chain(normal).take(len).collect()
}

/// All sequences of `n` letters.
fn letters(n: usize) -> Box<dyn Iterator<Item = String>> {
    match n {
        0 => Box::new(std::iter::once(String::new())),
        _ => {
            Box::new(LETTERS.chars().flat_map(move |c| letters(n - 1).map(move |rest| format!("{c}{rest}"))))
        }
    }
}

pub(super) fn insert(tokens: Vec<(String, i32)>, m: &mut Metadata) {
    let (texts, types): (Vec<String>, Vec<i32>) = tokens.into_iter().unzip();
    // The pair of the highest score is merged first.
    let scores: Vec<f32> = (0..texts.len()).map(|id| -(id as f32)).collect();
    m.insert("tokenizer.ggml.model", "llama");
    m.insert("tokenizer.ggml.tokens", texts);
    m.insert("tokenizer.ggml.scores", scores);
    m.insert("tokenizer.ggml.token_type", types);
    m.insert("tokenizer.ggml.unknown_token_id", 0u32);
    m.insert("tokenizer.ggml.bos_token_id", 1u32);
    m.insert("tokenizer.ggml.eos_token_id", 2u32);
    m.insert("tokenizer.ggml.add_bos_token", true);
    m.insert("tokenizer.ggml.add_space_prefix", true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_distinct_and_enough() {
        for len in [512, 32000] {
            let tokens = tokens(len);
            assert_eq!(tokens.len(), len);
            assert_eq!(tokens.iter().map(|(text, _)| text).collect::<HashSet<_>>().len(), len);
            assert_eq!(tokens[3 + 65].0, "<0x41>");
            assert!(tokens.iter().any(|(text, _)| text == "\u{2581}e"));
        }
    }
}
