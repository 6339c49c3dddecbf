//! Files that state what is odd, yet harmless, run like the sound one.

use std::path::PathBuf;
use std::sync::Arc;

use sparse_gguf::{Gguf, GgufWriter, Metadata, SharedBytes};
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{GenerateOptions, Model, SamplerConfig, Session, generate};

/// What llama.cpp's `llama-completion` writes behind `hello world` with this model.
const EXPECTED: [u32; 8] = [267, 267, 267, 185, 181, 182, 44, 12];

fn part(number: usize) -> PathBuf {
    format!("{}/tests/data/split/tiny-{number:05}-of-00002.gguf", env!("CARGO_MANIFEST_DIR")).into()
}

/// The model in one file, with other metadata.
fn edited(edit: impl FnOnce(&mut Metadata)) -> Gguf {
    let gguf = Gguf::open(part(1)).unwrap();
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
    for number in [1, 2] {
        assert_eq!(text(&Gguf::open(part(number)).unwrap()), EXPECTED, "part {number} named");
        assert_eq!(text(&Gguf::read(part(number), |_| false).unwrap()), EXPECTED, "part {number} named");
    }
    let parts = [2, 1].map(|number| Arc::new(std::fs::read(part(number)).unwrap()) as SharedBytes);
    assert_eq!(text(&Gguf::from_parts(parts).unwrap()), EXPECTED);
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
