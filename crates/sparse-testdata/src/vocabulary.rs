//! Small vocabularies that can spell any text.

use std::iter::once;

use sparse_gguf::Metadata;

/// ChatML, as many chat models have it.
const CHAT_TEMPLATE: &str = r"{% for message in messages %}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' -}}
{% endif %}";

/// Merges of the byte-level vocabulary, the first ones first; `Ġ` is a space.
const MERGES: [(&str, &str); 12] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġ", "a"),
    ("i", "n"),
    ("Ġt", "he"),
    ("n", "d"),
    ("r", "e"),
    ("Ġa", "nd"),
    ("o", "n"),
    ("l", "l"),
    ("he", "re"),
    ("in", "g"),
];

/// Pieces of the SentencePiece vocabulary beyond single characters, the best first; `▁` is a space.
const PIECES: [&str; 12] = ["▁t", "he", "▁a", "in", "▁the", "nd", "re", "▁and", "on", "ll", "here", "ing"];

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// The tokenizer of a tiny model. Both kinds can spell any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Byte-level BPE (`gpt2`, pre-tokenizer `smollm`): `<|endoftext|>` 0, `<|im_start|>` 1 and `<|im_end|>` 2
    /// (end of text), the 256 bytes, a few merges. Adds no beginning of text; has a ChatML template.
    Gpt2,
    /// SentencePiece (`llama`): `<unk>` 0, `<s>` 1 (added at the beginning) and `</s>` 2, the 256 bytes, letters,
    /// a few pieces. No chat template.
    Llama,
}

impl Vocabulary {
    /// Number of tokens.
    pub fn len(self) -> usize {
        self.tokens().len()
    }

    /// Never: there are always tokens.
    pub fn is_empty(self) -> bool {
        false
    }

    /// Texts and types, by id.
    fn tokens(self) -> Vec<(String, i32)> {
        let normal = |text: String| (text, NORMAL);
        match self {
            Self::Gpt2 => ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
                .map(|t| (t.to_owned(), CONTROL))
                .into_iter()
                .chain(byte_characters().map(|c| normal(c.into())))
                .chain(MERGES.map(|(a, b)| normal(format!("{a}{b}"))))
                .collect(),
            Self::Llama => [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
                .map(|(text, ty)| (text.to_owned(), ty))
                .into_iter()
                .chain((0..=255u8).map(|b| (format!("<0x{b:02X}>"), BYTE)))
                .chain(PIECES.map(|p| normal(p.into())))
                .chain(once('▁').chain('a'..='z').map(|c| normal(c.into())))
                .collect(),
        }
    }

    pub(crate) fn write(self, m: &mut Metadata) {
        let (tokens, types): (Vec<String>, Vec<i32>) = self.tokens().into_iter().unzip();
        // SentencePiece merges the pair of the highest score first.
        let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
        m.insert("tokenizer.ggml.tokens", tokens);
        m.insert("tokenizer.ggml.token_type", types);
        match self {
            Self::Gpt2 => {
                m.insert("tokenizer.ggml.model", "gpt2");
                m.insert("tokenizer.ggml.pre", "smollm");
                m.insert("tokenizer.ggml.merges", MERGES.map(|(a, b)| format!("{a} {b}")).to_vec());
                m.insert("tokenizer.ggml.bos_token_id", 1u32);
                m.insert("tokenizer.ggml.eos_token_id", 2u32);
                m.insert("tokenizer.ggml.add_bos_token", false);
                m.insert("tokenizer.chat_template", CHAT_TEMPLATE);
            }
            Self::Llama => {
                m.insert("tokenizer.ggml.model", "llama");
                m.insert("tokenizer.ggml.scores", scores);
                m.insert("tokenizer.ggml.bos_token_id", 1u32);
                m.insert("tokenizer.ggml.eos_token_id", 2u32);
                m.insert("tokenizer.ggml.unknown_token_id", 0u32);
                m.insert("tokenizer.ggml.add_bos_token", true);
                m.insert("tokenizer.ggml.add_space_prefix", true);
            }
        }
    }
}

/// The characters that stand for bytes 0 to 255 in byte-level BPE: printable Latin-1 for itself, the others
/// counted from U+0100 (`bytes_to_unicode` of GPT-2's encoder).
fn byte_characters() -> impl Iterator<Item = char> {
    let mut spare = '\u{100}'..;
    (0..=255u8)
        .map(move |b| match b {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(b.into()),
            _ => spare.next(),
        })
        .map(|c| c.expect("there are more than 256 characters"))
}
