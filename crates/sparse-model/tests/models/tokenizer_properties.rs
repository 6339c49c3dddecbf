//! Properties of tokenizers on random texts and ids.

use std::sync::LazyLock;

use proptest::prelude::*;
use sparse_gguf::Gguf;
use sparse_model::tokenizer::{EncodeOptions, Tokenizer};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

fn load(file: &[u8]) -> Tokenizer {
    Tokenizer::from_metadata(Gguf::from_bytes(file.to_vec()).unwrap().metadata()).unwrap()
}

static BPE_FILE: &[u8] = include_bytes!("../data/tokenizer/bpe.gguf");
static BYTES: LazyLock<Tokenizer> = LazyLock::new(|| load(BPE_FILE));
static SPM: LazyLock<Tokenizer> = LazyLock::new(|| load(include_bytes!("../data/tokenizer/spm.gguf")));

/// The same vocabulary in `tokenizers`' own BPE.
static REFERENCE: LazyLock<BPE> = LazyLock::new(|| {
    let file = Gguf::from_bytes(BPE_FILE.to_vec()).unwrap();
    let meta = file.metadata();
    let tokens = meta.strings("tokenizer.ggml.tokens").unwrap();
    let vocab: Vocab = tokens.iter().cloned().zip(0..).collect();
    let pair = |merge: &String| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let merges = meta.strings("tokenizer.ggml.merges").unwrap().iter().map(pair).collect();
    BPE::builder().vocab_and_merges(vocab, merges).build().unwrap()
});

/// Text of all planes, rich in what the vocabulary has tokens for.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[ -~]{0,8}",
        2 => "[ \t\r\n]{1,6}",
        2 => any::<char>().prop_map(String::from),
        1 => Just("<|im_end|>".to_owned()),
        1 => Just("<repo_name>".to_owned()),
        1 => Just("Once upon a time".to_owned()),
        1 => "[\u{300}-\u{36f}\u{200d}\u{fe0f}\u{1f600}-\u{1f64f}]{1,4}",
        1 => "[\u{4e00}-\u{4eff}]{1,6}",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Whether the byte-level vocabulary has a token for every byte of the text; it was made without three of them.
fn expressible(text: &str) -> bool {
    !text.bytes().any(|b| [0x04, 0x06, 0xF1].contains(&b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn byte_level_bpe_loses_nothing(text in text().prop_filter("bytes", |t| expressible(t)), parse_special: bool) {
        let ids = BYTES.encode(&text, EncodeOptions { add_bos: false, add_eos: false, parse_special }).unwrap();
        prop_assert_eq!(BYTES.decode(&ids, false), text);
    }

    #[test]
    fn words_merge_as_in_the_tokenizers_crate(word in "[a-z]{1,40}") {
        let ids = BYTES.encode(&word, EncodeOptions { add_bos: false, add_eos: false, parse_special: false }).unwrap();
        let reference = REFERENCE.tokenize(&word).unwrap().iter().map(|t| t.id).collect::<Vec<_>>();
        prop_assert_eq!(ids, reference);
    }

    #[test]
    fn sentencepiece_takes_any_text(text in text(), parse_special: bool) {
        let ids = SPM.encode(&text, EncodeOptions { add_bos: true, add_eos: true, parse_special }).unwrap();
        prop_assert!(ids.iter().all(|&id| SPM.token(id).is_some()));
    }

    #[test]
    fn a_stream_gives_what_decode_gives(
        ids in prop::collection::vec(prop_oneof![9 => 0u32..700, 1 => any::<u32>()], 0..60),
        skip_special: bool,
    ) {
        for tokenizer in [&*BYTES, &*SPM] {
            let mut stream = tokenizer.decode_stream().from_start();
            if !skip_special {
                stream = stream.keep_special();
            }
            let mut text = String::new();
            for &id in &ids {
                text.extend(stream.push(id));
            }
            text.extend(stream.finish());
            prop_assert_eq!(text, tokenizer.decode(&ids, skip_special));
        }
    }

    #[test]
    fn pieces_of_a_valid_text_hold_whole_characters(text in text().prop_filter("bytes", |t| expressible(t))) {
        let ids = BYTES.encode(&text, EncodeOptions { add_bos: false, add_eos: false, parse_special: false }).unwrap();
        let mut stream = BYTES.decode_stream().keep_special();
        let replaced = ids.iter().any(|&id| stream.push(id).is_some_and(|t| t.contains('\u{FFFD}')));
        prop_assert_eq!(replaced, text.contains('\u{FFFD}'));
        prop_assert_eq!(stream.finish(), None);
    }
}
