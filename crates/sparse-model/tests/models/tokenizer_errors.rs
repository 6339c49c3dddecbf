//! Vocabularies with something wrong: an error each, which names the key, the token or the merge.

use sparse_gguf::{Metadata, Value};
use sparse_model::tokenizer::{EncodeOptions, Tokenizer, Vocab};

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&s| s.to_owned()).collect()
}

/// A byte-level BPE vocabulary: `<s> </s> a b c ab abc`.
fn bpe() -> Metadata {
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "gpt2");
    meta.insert("tokenizer.ggml.pre", "gpt-2");
    meta.insert("tokenizer.ggml.tokens", strings(&["<s>", "</s>", "a", "b", "c", "ab", "abc"]));
    meta.insert("tokenizer.ggml.token_type", vec![3i32, 3, 1, 1, 1, 1, 1]);
    meta.insert("tokenizer.ggml.merges", strings(&["a b", "ab c"]));
    meta.insert("tokenizer.ggml.bos_token_id", 0u32);
    meta.insert("tokenizer.ggml.eos_token_id", 1u32);
    meta
}

/// A SentencePiece vocabulary: `<unk> <s> </s> <0x41> ▁ a b ab`.
fn spm() -> Metadata {
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "llama");
    let tokens = ["<unk>", "<s>", "</s>", "<0x41>", "\u{2581}", "a", "b", "ab"];
    meta.insert("tokenizer.ggml.tokens", strings(&tokens));
    meta.insert("tokenizer.ggml.token_type", vec![2i32, 3, 3, 6, 1, 1, 1, 1]);
    meta.insert("tokenizer.ggml.scores", vec![0f32, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -1.0]);
    meta
}

fn without(meta: &Metadata, key: &str) -> Metadata {
    let mut rest = Metadata::new();
    for (k, v) in meta.iter().filter(|(k, _)| *k != key) {
        rest.insert(k, v.clone());
    }
    assert_eq!(rest.len() + 1, meta.len(), "{key} is in the test's metadata");
    rest
}

#[test]
fn the_vocabularies_of_these_tests_are_sound() {
    let options = EncodeOptions::default();
    assert_eq!(Tokenizer::from_metadata(&bpe()).unwrap().encode("abcab", options).unwrap(), [6, 5]);
    assert_eq!(Tokenizer::from_metadata(&spm()).unwrap().encode("abAz", options).unwrap(), [1, 4, 7, 3, 0]);
}

#[test]
fn missing_keys() {
    for (meta, keys) in [
        (bpe(), &["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"][..]),
        (spm(), &["tokenizer.ggml.tokens", "tokenizer.ggml.scores"]),
    ] {
        for key in keys {
            let error = Tokenizer::from_metadata(&without(&meta, key)).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("missing"), "{key}: {error}");
        }
    }
}

#[test]
fn wrong_values() {
    type Case = (Metadata, &'static str, Value, &'static [&'static str]);
    let cases: Vec<Case> = vec![
        (bpe(), "tokenizer.ggml.model", "bert".into(), &["\"bert\"", "gpt2", "llama"]),
        (
            bpe(),
            "tokenizer.ggml.pre",
            "kimi-k9".into(),
            &["\"kimi-k9\"", "smollm", "llama-bpe", "qwen2", "default"],
        ),
        (bpe(), "tokenizer.ggml.tokens", 7u32.into(), &["tokenizer.ggml.tokens", "u32"]),
        (
            bpe(),
            "tokenizer.ggml.tokens",
            Vec::<String>::new().into(),
            &["tokenizer.ggml.tokens", "0 entries"],
        ),
        (
            bpe(),
            "tokenizer.ggml.tokens",
            strings(&["<s>", "</s>", "a", "b", "c", "ab", "abc", "b"]).into(),
            // Eight tokens now, seven types.
            &["tokenizer.ggml.token_type", "7", "8"],
        ),
        (
            bpe(),
            "tokenizer.ggml.tokens",
            strings(&["<s>", "</s>", "a", "b", "c", "ab", "ab"]).into(),
            &["tokens 5 and 6", "\"ab\""],
        ),
        (
            bpe(),
            "tokenizer.ggml.token_type",
            vec![3i32, 3, 1, 1].into(),
            &["tokenizer.ggml.token_type", "4", "7"],
        ),
        (bpe(), "tokenizer.ggml.token_type", vec![3i32, 3, 1, 1, 9, 1, 1].into(), &["token 4", "\"c\"", "9"]),
        (
            bpe(),
            "tokenizer.ggml.token_type",
            vec![3i32, 3, 6, 1, 1, 1, 1].into(),
            &["token 2", "\"a\"", "byte"],
        ),
        (bpe(), "tokenizer.ggml.token_type", vec![0.5f32; 7].into(), &["tokenizer.ggml.token_type", "f32"]),
        (bpe(), "tokenizer.ggml.bos_token_id", "0".into(), &["tokenizer.ggml.bos_token_id", "string"]),
        (bpe(), "tokenizer.ggml.add_bos_token", "yes".into(), &["tokenizer.ggml.add_bos_token", "bool"]),
        (spm(), "tokenizer.ggml.scores", vec![0f32; 3].into(), &["tokenizer.ggml.scores", "3", "8"]),
        (
            spm(),
            "tokenizer.ggml.scores",
            vec![0f32, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0].into(),
            &["token 5", "\"a\"", "not a number"],
        ),
        (spm(), "tokenizer.ggml.scores", strings(&["x"]).into(), &["tokenizer.ggml.scores", "string"]),
    ];
    for (mut meta, key, value, parts) in cases {
        let shown = format!("{key} = {value}");
        meta.insert(key, value);
        let error = Tokenizer::from_metadata(&meta).expect_err(&shown).to_string();
        for part in parts {
            assert!(error.contains(part), "{shown}: no {part:?} in: {error}");
        }
    }
}

#[test]
fn merges_of_or_into_what_is_no_token_are_left_out() {
    let encode = |merges: &[&str], text: &str| {
        let mut meta = bpe();
        meta.insert("tokenizer.ggml.merges", strings(merges));
        Tokenizer::from_metadata(&meta).unwrap().encode(text, EncodeOptions::default()).unwrap()
    };
    // `bc` is no token, `x` neither, and the others are no merges. What remains keeps its rank.
    let bad = ["b c", "ab x", "x a", "abc abc", "ab", "", " ", "a b c", "a  b"];
    assert_eq!(encode(&bad, "abcab"), [2, 3, 4, 2, 3]);
    for at in 0..=bad.len() {
        let mut merges = bad.to_vec();
        merges.insert(at, "a b");
        assert_eq!(encode(&merges, "abcab"), [5, 4, 5]);
        merges.push("ab c");
        assert_eq!(encode(&merges, "abcab"), [6, 5]);
    }
}

#[test]
fn special_ids_outside_the_vocabulary_count_as_not_stated() {
    let outside: [Value; 6] = [
        7u32.into(),
        u32::MAX.into(),
        (-1i32).into(),
        (-1i64).into(),
        u64::MAX.into(),
        vec![100u32; 2].into(),
    ];
    for id in outside {
        for key in ["bos", "eos", "eot", "eom", "unknown", "fim_pre", "prefix", "fim_sep"] {
            let key = format!("tokenizer.ggml.{key}_token_id");
            let mut meta = bpe();
            meta.insert(key.clone(), id.clone());
            let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
            let expected =
                ["bos", "eos"].map(|name| (!key.contains(name)).then_some(u32::from(name == "eos")));
            assert_eq!([tokenizer.bos(), tokenizer.eos()], expected, "{key} = {id}");
            assert_eq!(tokenizer.encode("abc", EncodeOptions::default()).unwrap(), [6]);
        }
        // SentencePiece has ids of its own for these.
        let mut meta = spm();
        let id = if id == Value::from(7u32) { 8u32.into() } else { id };
        for key in ["bos", "eos", "unknown"] {
            meta.insert(format!("tokenizer.ggml.{key}_token_id"), id.clone());
        }
        let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)), "{id}");
        assert_eq!(tokenizer.encode("abAz", EncodeOptions::default()).unwrap(), [1, 4, 7, 3, 0]);
    }
}

#[test]
fn a_token_to_add_has_to_be_named() {
    for (key, flag) in [
        ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"),
        ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token"),
    ] {
        let mut meta = without(&bpe(), key);
        meta.insert(flag, true);
        let error = Tokenizer::from_metadata(&meta).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(flag), "{error}");
    }
    // Llama 3's pre-tokenizer asks for it by itself.
    let mut meta = without(&bpe(), "tokenizer.ggml.bos_token_id");
    meta.insert("tokenizer.ggml.pre", "llama-bpe");
    assert!(Tokenizer::from_metadata(&meta).is_err());
}

#[test]
fn a_missing_end_of_text_is_none_in_bpe_and_sentencepieces_own_there() {
    let tokenizer = Tokenizer::from_metadata(&without(&bpe(), "tokenizer.ggml.eos_token_id")).unwrap();
    assert_eq!(tokenizer.eos(), None);
    let tokenizer = Tokenizer::from_metadata(&spm()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert!(tokenizer.is_eog(2));
}

#[test]
fn more_entries_than_tokens_are_left_unread() {
    let mut meta = spm();
    meta.insert("tokenizer.ggml.scores", vec![-1f32; 20]);
    meta.insert("tokenizer.ggml.token_type", vec![1i32; 20]);
    let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
    assert_eq!(tokenizer.vocab_len(), 8);
}

#[test]
fn scores_and_types_may_be_other_integers() {
    let mut meta = spm();
    meta.insert("tokenizer.ggml.scores", vec![0i32, 0, 0, 0, -9, -9, -9, -1]);
    meta.insert("tokenizer.ggml.token_type", vec![2u8, 3, 3, 6, 1, 1, 1, 1]);
    let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
    assert_eq!(tokenizer.encode("abA", EncodeOptions::default()).unwrap(), [1, 4, 7, 3]);
}

#[test]
fn a_character_that_cannot_be_expressed() {
    // `A` has a byte token, `é` has none for its bytes: the unknown token, once.
    let tokenizer = Tokenizer::from_metadata(&spm()).unwrap();
    let options = EncodeOptions { add_bos: false, add_eos: false, parse_special: false };
    assert_eq!(tokenizer.encode("a\u{e9}A", options).unwrap(), [4, 5, 0, 3]);

    // Without an unknown token it is an error. (Token 0 is the unknown one where the file names none.)
    let tokens = strings(&["\u{2581}", "a", "b"]);
    let mut vocab = Vocab::default();
    vocab.model = "llama";
    vocab.tokens = &tokens;
    vocab.scores = Some(vec![0.0; 3].into());
    vocab.add_bos = Some(false);
    let tokenizer = Tokenizer::from_vocab(&vocab).unwrap();
    assert_eq!(tokenizer.encode("\u{e9}", options).unwrap(), [0, 0]);
}

#[test]
fn empty_tokens_get_a_name() {
    let mut meta = bpe();
    meta.insert("tokenizer.ggml.tokens", strings(&["<s>", "</s>", "a", "b", "c", "ab", ""]));
    meta.insert("tokenizer.ggml.merges", strings(&["a b"]));
    let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
    assert_eq!(tokenizer.token(6), Some("[EMPTY_6]"));
}
