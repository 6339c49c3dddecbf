//! Prompt caches in files: whole or not at all.

use std::path::Path;
use std::sync::Arc;

use sparse_gguf::Gguf;
use sparse_model::{Error, KvFormat, Model, Sequence, Session, SessionOptions};
use sparse_testdata::{File, TinyLlama, variants};

fn open(file: &File) -> Arc<Model> {
    let gguf = Gguf::from_bytes(file.to_bytes()).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf, 1).expect("a model"))
}

fn tokens(model: &Model, len: usize) -> Vec<u32> {
    (0..len).map(|t| ((t * 37 + 3) % model.vocab_len()) as u32).collect()
}

fn save(model: &Arc<Model>, options: SessionOptions, len: usize, path: &Path) -> Session {
    let mut session = Session::with_options(model, options).unwrap();
    session.forward(&tokens(model, len)).unwrap();
    session.sequence().save(path).unwrap();
    session
}

#[test]
fn what_comes_out_is_what_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt.cache");
    let mut models =
        vec![("llama".to_owned(), open(&TinyLlama { embedding: 128, ..TinyLlama::default() }.build()))];
    models.extend(variants().into_iter().map(|(name, file)| (name.to_owned(), open(&file))));
    for (name, model) in models {
        for kv in [KvFormat::F16, KvFormat::F32, KvFormat::Q8] {
            let options = SessionOptions::new(200.min(model.config().context)).kv(kv);
            if Sequence::new(&model, options).is_err() {
                continue;
            }
            let len = 150.min(options.context - 2);
            let mut session = save(&model, options, len, &path);
            let mut other = Session::with_options(&model, options).unwrap();
            *other.sequence_mut() = Sequence::load(&model, options, &path).unwrap();
            assert_eq!((other.position(), other.tokens()), (len, session.tokens()), "{name}");
            let expected = session.forward(&[5]).unwrap().to_vec();
            assert_eq!(other.forward(&[5]).unwrap(), expected, "{name} {kv:?}");
        }
    }
}

#[test]
fn caches_of_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt.cache");
    let llama = TinyLlama { embedding: 128, ..TinyLlama::default() };
    let (model, options) = (open(&llama.build()), SessionOptions::new(100));
    save(&model, options, 50, &path);
    let refused = |model: &Arc<Model>, options, says: &str| {
        let error = Sequence::load(model, options, &path).expect_err(says);
        let (Error::File { .. }, text) = (&error, error.to_string()) else { panic!("{error:?}") };
        assert!(text.contains("prompt.cache") && text.contains(says), "{says}: {text}");
    };
    refused(&open(&TinyLlama { seed: 2, ..llama.clone() }.build()), options, "another model");
    let gguf = Gguf::from_bytes(llama.build().to_bytes()).unwrap();
    let mut relu = sparse_model::ModelOptions::new(1);
    relu = relu.activation(Some("relu".parse().unwrap()));
    let other = Arc::new(Model::from_gguf_with(&gguf, &relu).unwrap());
    refused(&other, options, "activation silu");
    refused(&model, options.kv(KvFormat::Q8), "f16, not in q8_0");
    refused(&model, SessionOptions::new(40), "50 tokens do not fit");
    assert!(Sequence::load(&model, options, folder.path().join("absent")).is_err());
    let empty = Sequence::new(&model, options).unwrap();
    assert!(matches!(empty.save(folder.path().join("empty")), Err(Error::NoTokens)));
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt.cache");
    let (model, options) = (open(&TinyLlama::default().build()), SessionOptions::new(100));
    save(&model, options, 40, &path);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(Sequence::load(&model, options, &path).is_err(), "cut at {at}");
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        // Bytes between tensors mean nothing.
        if let Ok(loaded) = Sequence::load(&model, options, &path) {
            let mut sessions = [options, options].map(|o| Session::with_options(&model, o).unwrap());
            *sessions[0].sequence_mut() = loaded;
            sessions[1].forward(&tokens(&model, 40)).unwrap();
            let [a, b] = sessions.each_mut().map(|s| s.forward(&[1]).unwrap().to_vec());
            assert_eq!(a, b, "a changed byte at {at}");
        }
    }
}
