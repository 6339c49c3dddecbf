//! Token ids against llama.cpp's, on two small vocabularies (see `data/tokenizer/make.py`), and decoding.

use serde::Deserialize;
use sparse_gguf::{Gguf, Metadata};
use sparse_model::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};
use std::collections::BTreeMap;

const BPE: &[u8] = include_bytes!("../data/tokenizer/bpe.gguf");
const SPM: &[u8] = include_bytes!("../data/tokenizer/spm.gguf");
const CASES: &str = include_str!("../data/tokenizer/cases.json");
const EXPECTED: &str = include_str!("../data/tokenizer/expected.json");

/// Settings, and the ids of the cases that differ from the same vocabulary's first variant: with control tokens as
/// text, and parsed where that makes a difference.
#[derive(Deserialize)]
struct Variant {
    vocab: String,
    pre: Option<String>,
    prefix: Option<bool>,
    name: Option<String>,
    ids: BTreeMap<usize, Vec<Vec<u32>>>,
}

fn metadata(file: &[u8]) -> Metadata {
    Gguf::from_bytes(file.to_vec()).unwrap().metadata().clone()
}

fn tokenizer(file: &[u8]) -> Tokenizer {
    Tokenizer::from_metadata(&metadata(file)).unwrap()
}

fn cases() -> Vec<String> {
    serde_json::from_str(CASES).unwrap()
}

const PLAIN: EncodeOptions = EncodeOptions { add_bos: false, add_eos: false, parse_special: false };
const PARSED: EncodeOptions = EncodeOptions { add_bos: false, add_eos: false, parse_special: true };

#[test]
fn ids_are_those_of_llama_cpp() {
    let variants: Vec<Variant> = serde_json::from_str(EXPECTED).unwrap();
    let cases = cases();
    let mut failures = Vec::new();
    for v in &variants {
        let mut meta = metadata(if v.vocab == "bpe.gguf" { BPE } else { SPM });
        if let Some(pre) = &v.pre {
            meta.insert("tokenizer.ggml.pre", pre.as_str());
        }
        if let Some(prefix) = v.prefix {
            meta.insert("tokenizer.ggml.add_space_prefix", prefix);
        }
        if let Some(name) = &v.name {
            meta.insert("general.name", name.as_str());
        }
        let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
        let base = variants.iter().find(|b| b.vocab == v.vocab).unwrap();
        for (i, text) in cases.iter().enumerate() {
            let expected = v.ids.get(&i).unwrap_or_else(|| &base.ids[&i]);
            for (options, expected) in [(PLAIN, &expected[0]), (PARSED, expected.last().unwrap())] {
                let found = tokenizer.encode(text, options).unwrap();
                if found != *expected {
                    let (pre, prefix, name) = (&v.pre, v.prefix, &v.name);
                    failures.push(format!(
                        "case {i} {text:?}, {pre:?} {prefix:?} {name:?} {options:?}\n  {found:?}\n  {expected:?}"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} cases differ\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_case_comes_back_from_byte_level_bpe() {
    let tokenizer = tokenizer(BPE);
    for text in cases() {
        // Bytes that this vocabulary lacks.
        if text.bytes().any(|b| [0x04, 0x06, 0xF1].contains(&b)) {
            continue;
        }
        for options in [PLAIN, PARSED] {
            let ids = tokenizer.encode(&text, options).unwrap();
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
    }
}

#[test]
fn every_case_comes_back_from_sentencepiece() {
    let tokenizer = tokenizer(SPM);
    for text in cases() {
        // SentencePiece cannot tell its own space character from a space.
        if text.contains('\u{2581}') {
            continue;
        }
        let ids = tokenizer.encode(&text, PLAIN).unwrap();
        if ids.iter().any(|&id| tokenizer.is_control(id) || tokenizer.token(id) == Some("Once upon")) {
            continue;
        }
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
}

#[test]
fn a_byte_without_a_token_is_left_out() {
    let tokenizer = tokenizer(BPE);
    let [with, without] = ["a\u{4}b", "a"].map(|t| tokenizer.encode(t, PLAIN).unwrap());
    assert_eq!(with[..1], without);
    assert_eq!(tokenizer.decode(&with, true), "ab");
}

#[test]
fn special_tokens_are_added_as_the_file_says() {
    let (bpe, spm) = (metadata(BPE), metadata(SPM));
    for (meta, begin) in [(&bpe, false), (&spm, false)] {
        for (add_bos, add_eos) in [(None, None), (Some(true), Some(false)), (Some(false), Some(true))] {
            let mut meta = meta.clone();
            if let Some(add) = add_bos {
                meta.insert("tokenizer.ggml.add_bos_token", add);
            }
            if let Some(add) = add_eos {
                meta.insert("tokenizer.ggml.add_eos_token", add);
            }
            let tokenizer = Tokenizer::from_metadata(&meta).unwrap();
            let plain = tokenizer.encode("a b", PLAIN).unwrap();
            let ids =
                tokenizer.encode("a b", EncodeOptions { add_bos: true, add_eos: true, ..PLAIN }).unwrap();
            let mut expected = plain;
            if add_bos.unwrap_or(begin) {
                expected.insert(0, tokenizer.bos().unwrap());
            }
            if add_eos.unwrap_or(false) {
                expected.push(tokenizer.eos().unwrap());
            }
            assert_eq!(ids, expected, "{add_bos:?} {add_eos:?}");
            assert_eq!(tokenizer.add_bos(), add_bos.unwrap_or(begin));
            assert_eq!(tokenizer.add_eos(), add_eos.unwrap_or(false));
        }
    }
}

#[test]
fn the_kind_of_tokenizer_decides_whether_texts_begin_with_a_token() {
    for (file, pre, begin) in
        [(BPE, "gpt-2", false), (BPE, "llama-bpe", true), (BPE, "dbrx", false), (SPM, "", true)]
    {
        // The key of the test files, without its value.
        let mut meta = Metadata::new();
        for (key, value) in metadata(file).iter().filter(|(key, _)| *key != "tokenizer.ggml.add_bos_token") {
            meta.insert(key, value.clone());
        }
        meta.insert("tokenizer.ggml.pre", pre);
        assert_eq!(Tokenizer::from_metadata(&meta).unwrap().add_bos(), begin, "{pre}");
    }
}

#[test]
fn tokens_by_id_and_by_text() {
    let tokenizer = tokenizer(BPE);
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.token(end), Some("<|im_end|>"));
    assert!(tokenizer.is_control(end) && tokenizer.is_eog(end));
    assert!(tokenizer.is_eog(tokenizer.eos().unwrap()));
    let start = tokenizer.token_id("<|im_start|>").unwrap();
    assert!(tokenizer.is_control(start) && !tokenizer.is_eog(start));
    let word = tokenizer.token_id("Hello").unwrap();
    assert!(!tokenizer.is_control(word) && !tokenizer.is_eog(word));
    let outside = tokenizer.vocab_len() as u32;
    assert_eq!(tokenizer.token(outside), None);
    assert!(!tokenizer.is_control(outside) && !tokenizer.is_eog(outside));
    assert_eq!(tokenizer.token_id("no such token"), None);
}

#[test]
fn control_tokens_are_shown_or_left_out() {
    let tokenizer = tokenizer(BPE);
    let text = "<|im_start|>user<repo_name><|im_end|>";
    let ids = tokenizer.encode(text, PARSED).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), text);
    assert_eq!(tokenizer.decode(&ids, true), "user<repo_name>");
}

#[test]
fn the_space_before_a_text_is_sentencepieces_own() {
    let tokenizer = tokenizer(SPM);
    let ids = tokenizer.encode("the  end", PLAIN).unwrap();
    assert!(tokenizer.token(ids[0]).unwrap().starts_with('\u{2581}'));
    assert_eq!(tokenizer.decode(&ids, true), "the  end");

    let bos = [&[tokenizer.bos().unwrap()], ids.as_slice()].concat();
    assert_eq!(tokenizer.decode(&bos, true), "the  end");
    assert_eq!(tokenizer.decode(&bos, false), "<s> the  end");

    // A text that continues another keeps it.
    let mut stream = tokenizer.decode_stream();
    let mut text = String::new();
    for &id in &ids {
        text.extend(stream.push(id));
    }
    assert_eq!(text, " the  end");
}

#[test]
fn a_stream_never_gives_half_a_character() {
    for file in [BPE, SPM] {
        let tokenizer = tokenizer(file);
        let ids = tokenizer.encode("\u{13003}\u{13004}", PLAIN).unwrap();
        assert!(ids.len() >= 8, "characters of the test are single bytes");
        let mut stream = tokenizer.decode_stream();
        let pieces = ids.iter().map(|&id| stream.push(id).map(str::to_owned)).collect::<Vec<_>>();
        let texts = pieces.iter().flatten().filter(|t| *t != " ").collect::<Vec<_>>();
        assert_eq!(texts, ["\u{13003}", "\u{13004}"], "{pieces:?}");
        assert_eq!(stream.finish(), None);

        // Without its last byte, a character comes out as a replacement: at the end, or when it cannot go on.
        let half = &ids[..ids.len() - 1];
        let mut stream = tokenizer.decode_stream();
        half.iter().for_each(|&id| {
            stream.push(id);
        });
        assert_eq!(stream.finish(), Some("\u{FFFD}"));
        assert_eq!(stream.finish(), None);
        half.iter().for_each(|&id| {
            stream.push(id);
        });
        let letter = tokenizer.token_id("e").unwrap();
        assert_eq!(stream.push(letter), Some("\u{FFFD}e"));
    }
}

#[test]
fn an_id_outside_the_vocabulary_is_a_replacement_character() {
    let tokenizer = tokenizer(BPE);
    assert_eq!(tokenizer.decode(&[u32::MAX], true), "\u{FFFD}");
    assert_eq!(tokenizer.decode_stream().push(1 << 30), Some("\u{FFFD}"));
}

#[test]
fn bytes_that_are_not_utf8_are_refused_where_they_are() {
    let tokenizer = tokenizer(BPE);
    let good = tokenizer.encode_bytes("h\u{e9}llo".as_bytes(), PLAIN).unwrap();
    assert_eq!(good, tokenizer.encode("h\u{e9}llo", PLAIN).unwrap());
    for (bytes, offset, byte) in [
        (&b"\xFF"[..], 0, 0xFF),
        (b"abc\x80def", 3, 0x80),
        (b"\xC3\xA9 \xE2\x82", 3, 0xE2),
        (b"surrogate \xED\xA0\x80", 10, 0xED),
        (b"overlong \xC0\xAF", 9, 0xC0),
    ] {
        let error = tokenizer.encode_bytes(bytes, PLAIN).unwrap_err();
        assert!(
            matches!(error, TokenizerError::InvalidUtf8 { offset: o, byte: b } if (o, b) == (offset, byte)),
            "{bytes:?}: {error}"
        );
        assert!(error.to_string().contains(&format!("offset {offset}")), "{error}");
    }
}

#[test]
fn long_texts_take_time_in_proportion() {
    // Quadratic time would take minutes.
    let unbroken = "ab".repeat(200_000);
    let spaces = " ".repeat(200_000);
    let mixed = "ab  c\u{4e00}\n".repeat(50_000);
    for file in [BPE, SPM] {
        let tokenizer = tokenizer(file);
        for text in [&unbroken, &spaces, &mixed] {
            let ids = tokenizer.encode(text, PARSED).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).len(), text.len());
        }
    }
}
