//! A tiny model through ruvllm's trait.

use std::sync::mpsc;

use ruvllm::backends::{GenerateParams, LlmBackend, ModelConfig, StreamEvent};
use ruvllm::serving::FinishReason;
use sparse_ruvllm::SparseLlm;
use sparse_testdata::TinyLlama;

fn with_model(test: impl FnOnce(&mut dyn LlmBackend)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny-llama.gguf");
    std::fs::write(&path, TinyLlama::default().build().to_bytes()).unwrap();
    let mut backend: Box<dyn LlmBackend> = Box::new(SparseLlm::default());
    assert!(!backend.is_model_loaded() && backend.generate("x", GenerateParams::default()).is_err());
    backend.load_model(path.to_str().unwrap(), ModelConfig::default()).unwrap();
    test(&mut *backend);
    backend.unload_model();
    assert!(!backend.is_model_loaded() && backend.model_info().is_none());
}

fn params() -> GenerateParams {
    GenerateParams::default().with_max_tokens(20).with_seed(3)
}

#[test]
fn all_ways_give_the_same_text() {
    with_model(|backend| {
        let text = backend.generate("here and there", params()).unwrap();
        let streamed: String =
            backend.generate_stream("here and there", params()).unwrap().map(|t| t.unwrap().text).collect();
        assert_eq!(streamed, text);
        let (mut pieces, mut done) = (String::new(), None);
        for event in backend.generate_stream_v2("here and there", params()).unwrap() {
            match event.unwrap() {
                StreamEvent::Token(token) => pieces += &token.text,
                StreamEvent::Done { total_tokens, .. } => done = Some(total_tokens),
                StreamEvent::Error(error) => panic!("{error}"),
            }
        }
        assert_eq!(pieces, text);
        let output = backend.generate_detailed("here and there", params(), &mut |_| true).unwrap();
        assert_eq!(output.text, text);
        assert!(done.unwrap() <= output.completion_tokens && output.prompt_tokens > 3);
        let stopped = backend.generate_detailed("here and there", params(), &mut |_| false).unwrap();
        assert!(matches!(stopped.finish_reason, FinishReason::Cancelled));
    });
}

#[test]
fn threads_share_a_backend() {
    with_model(|backend| {
        let alone: Vec<String> =
            (0..4).map(|i| backend.generate("ab", params().with_seed(i)).unwrap()).collect();
        let (sender, receiver) = mpsc::channel();
        let backend = &*backend;
        std::thread::scope(|scope| {
            for i in 0..4 {
                let sender = sender.clone();
                scope.spawn(move || {
                    sender.send((i, backend.generate("ab", params().with_seed(i)).unwrap())).unwrap()
                });
            }
        });
        drop(sender);
        receiver.into_iter().for_each(|(i, text)| assert_eq!(text, alone[i as usize]));
    });
}

#[test]
fn the_model_can_be_looked_at() {
    with_model(|backend| {
        let info = backend.model_info().unwrap();
        assert_eq!((info.hidden_size, info.num_layers, info.max_context_length), (64, 2, 256));
        assert_eq!(backend.get_embeddings("here").unwrap().len(), 64);
        let tokenizer = backend.tokenizer().unwrap();
        let ids = tokenizer.encode("here and there").unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), "here and there");
        assert_eq!(tokenizer.vocab_size(), info.vocab_size);
        assert!(backend.load_model("/no/such/file.gguf", ModelConfig::default()).is_err());
    });
}
