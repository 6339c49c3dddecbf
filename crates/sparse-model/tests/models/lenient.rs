//! Files that state what is odd, yet harmless, run like the sound one.

use std::sync::Arc;

use sparse_gguf::{Gguf, GgufWriter, Metadata, SharedBytes};
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{GenerateOptions, Model, SamplerConfig, Session, generate};

/// What llama.cpp's `llama-completion` writes behind `hello world` with this model.
const EXPECTED: [u32; 8] = [267, 267, 267, 185, 181, 182, 44, 12];

/// A model in two files, as a part of this program for targets without files.
static PARTS: [&[u8]; 2] = [
    include_bytes!("../data/split/tiny-00001-of-00002.gguf"),
    include_bytes!("../data/split/tiny-00002-of-00002.gguf"),
];

/// The model in two parts, in any order.
fn parts(order: [usize; 2]) -> Gguf {
    Gguf::from_parts(order.map(|i| Arc::new(PARTS[i]) as SharedBytes)).unwrap()
}

/// The model in one file, with other metadata.
fn edited(edit: impl FnOnce(&mut Metadata)) -> Gguf {
    let gguf = parts([0, 1]);
    let mut writer = GgufWriter::like(&gguf);
    edit(writer.metadata_mut());
    let mut out = writer.start(Vec::new()).unwrap();
    for tensor in gguf.views() {
        out.write(&tensor.info.name, tensor.data).unwrap();
    }
    Gguf::from_bytes(out.finish().unwrap()).unwrap()
}

fn text(gguf: &Gguf) -> Vec<u32> {
    let model = Arc::new(Model::from_gguf(gguf, 1).unwrap());
    let prompt = model.tokenizer().encode("hello world", EncodeOptions::default()).unwrap();
    let mut session = Session::new(&model, 64).unwrap();
    let sampler = SamplerConfig { repetition_penalty: 1.0, ..SamplerConfig::greedy() };
    let options = GenerateOptions::new(EXPECTED.len()).sampler(sampler).ignore_end(true);
    generate(&mut session, &prompt, &options, |_| std::ops::ControlFlow::Continue(())).unwrap().tokens
}

#[test]
fn a_model_in_two_files_writes_what_one_file_does() {
    #[cfg(feature = "fs")]
    for number in [1, 2] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/split");
        let part = format!("{folder}/tiny-{number:05}-of-00002.gguf");
        assert_eq!(text(&Gguf::open(&part).unwrap()), EXPECTED, "part {number} named");
        assert_eq!(text(&Gguf::read(&part, |_| false).unwrap()), EXPECTED, "part {number} named");
    }
    assert_eq!(text(&parts([1, 0])), EXPECTED);
    assert_eq!(text(&edited(|_| {})), EXPECTED);
}

#[test]
fn one_number_for_all_layers_may_be_stated_per_layer() {
    for key in [
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.feed_forward_length",
        "llama.rope.dimension_count",
    ] {
        let per_layer = edited(|meta| {
            if let Some(n) = meta.opt_u32(key).unwrap() {
                meta.insert(key, vec![n as i32; 2]);
            }
        });
        assert_eq!(text(&per_layer), EXPECTED, "{key}");
        let mixed = edited(|meta| {
            meta.insert(key, vec![1i32, 2]);
        });
        assert!(Model::from_gguf(&mixed, 1).is_err(), "{key}");
    }
}

#[test]
fn special_ids_that_name_no_token_are_not_used() {
    for key in ["bos", "unknown", "padding", "eot"] {
        let none = edited(|meta| {
            meta.insert(format!("tokenizer.ggml.{key}_token_id"), u32::MAX);
        });
        assert_eq!(text(&none), EXPECTED, "{key}");
    }
}
