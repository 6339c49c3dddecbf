//! The generation backend: many texts at once, each as it is alone.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use sparse_integration::{
    EngineOptions, Error, Event, GenerateOptions, InferenceBackend, Request, SamplerConfig,
    SparseInferenceBackend, Stop,
};
use sparse_model::{Model, ModelOptions, Session};
use sparse_testdata::TinyLlama;

fn folder(file: &TinyLlama) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, file.build().to_bytes()).unwrap();
    (folder, path)
}

fn backend(options: EngineOptions) -> SparseInferenceBackend {
    let (_folder, path) = folder(&TinyLlama::default());
    let model = Model::open_with(path, &ModelOptions::new(2)).unwrap();
    SparseInferenceBackend::with_model("tiny", Arc::new(model), options).unwrap()
}

fn prompt(i: usize) -> Vec<u32> {
    (0..2 + 9 * i).map(|t| ((t * 37 + i * 11 + 3) % 268) as u32).collect()
}

fn options(i: usize, tokens: usize) -> GenerateOptions {
    let sampler = SamplerConfig { temperature: 1.0, seed: i as u64, ..SamplerConfig::default() };
    GenerateOptions::new(tokens).sampler(sampler).ignore_end(true)
}

#[test]
fn a_path_is_enough() {
    let (_folder, path) = folder(&TinyLlama::default());
    let backend = SparseInferenceBackend::new(&path).unwrap();
    let tokens = backend.encode("here and there").unwrap();
    let output = backend.generate(tokens.clone(), &options(1, 20)).unwrap();
    // What a session says.
    let model = Arc::new(Model::open(&path, 1).unwrap());
    let mut session = Session::new(&model, 100).unwrap();
    let expected =
        sparse_model::generate(&mut session, &tokens, &options(1, 20), |_| ControlFlow::Continue(()))
            .unwrap();
    assert_eq!(output.tokens.iter().map(|t| t.id).collect::<Vec<_>>(), expected.tokens);
    assert_eq!((output.stop, backend.name(), backend.context()), (Stop::MaxTokens, "tiny", 256));
    let dynamic: &dyn InferenceBackend = &backend;
    assert_eq!(dynamic.generate(&tokens, &options(1, 20)).unwrap().text, output.text);
    assert!(SparseInferenceBackend::new("nowhere.gguf").is_err());
}

#[test]
fn texts_are_the_same_alone_and_together() {
    let backend = backend(EngineOptions::default());
    let alone: Vec<String> =
        (0..16).map(|i| backend.generate(prompt(i), &options(i, 40)).unwrap().text).collect();
    // Also those that share beginnings with what is kept by now.
    for _ in 0..3 {
        thread::scope(|scope| {
            let texts: Vec<_> = (0..16)
                .map(|i| {
                    let backend = &backend;
                    scope.spawn(move || backend.generate(prompt(i), &options(i, 40)).unwrap().text)
                })
                .collect();
            for (i, (text, alone)) in texts.into_iter().zip(&alone).enumerate() {
                assert_eq!(text.join().unwrap(), *alone, "text {i}");
            }
        });
    }
    let statistics = backend.statistics();
    assert_eq!((statistics.texts, statistics.active, statistics.waiting), (64, 0, 0));
    assert!(statistics.step_tokens > statistics.steps, "some steps had several texts");
    assert!(statistics.known_tokens > 0, "some beginnings were known");
}

#[test]
fn a_known_beginning_is_not_computed_again() {
    let backend = backend(EngineOptions::default());
    let mut prompt = prompt(20);
    let first = backend.generate(&prompt, &options(1, 8)).unwrap();
    let before = backend.statistics().prompt_tokens;
    assert_eq!(backend.generate(&prompt, &options(1, 8)).unwrap().text, first.text);
    let statistics = backend.statistics();
    assert_eq!(statistics.prompt_tokens - before, 32);
    assert_eq!(statistics.known_tokens, prompt.len() as u64 - 32);
    // One that goes on otherwise.
    prompt.truncate(100);
    prompt.extend([5; 40]);
    backend.generate(&prompt, &options(1, 8)).unwrap();
    assert_eq!(backend.statistics().known_tokens - statistics.known_tokens, 100);
}

#[test]
fn what_is_not_wanted_any_more_ends() {
    let backend = backend(EngineOptions::default());
    // By the callback.
    let mut seen = 0;
    let output = backend.generate_each(prompt(1), &options(1, 1000), |_| {
        seen += 1;
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(output.unwrap().stop, Stop::Cancelled);
    // By a flag, before and while it is computed.
    let cancel = Arc::new(AtomicBool::new(true));
    let mut cancelled = options(1, 1000);
    cancelled.cancel = Some(Arc::clone(&cancel));
    let output = backend.generate(prompt(1), &cancelled).unwrap();
    assert_eq!((output.stop, output.tokens.len()), (Stop::Cancelled, 0));
    cancel.store(false, Ordering::Relaxed);
    let output = backend.generate_each(prompt(1), &cancelled, |event| {
        if let Event::Token(_) = event {
            cancel.store(true, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(output.unwrap().stop, Stop::Cancelled);
    assert!(backend.generate(prompt(1), &options(1, 3)).is_ok());
}

#[test]
fn errors_reach_who_asked_and_nobody_else() {
    let backend = backend(EngineOptions::default());
    let error = backend.generate([0; 300], &options(1, 3)).unwrap_err();
    assert!(error.to_string().contains("300 tokens do not fit"), "{error}");
    assert!(backend.generate([], &options(1, 3)).is_err());
    assert!(backend.generate([9999], &options(1, 3)).is_err());
    assert!(backend.generate(prompt(1), &options(1, 3).stop([""])).is_err());
    let output = backend.generate(prompt(1), &options(1, 1000)).unwrap();
    assert_eq!(output.stop, Stop::ContextFull);
    assert_eq!(backend.statistics().failed, 4);
}

#[test]
fn too_many_are_refused_and_none_is_taken_after_the_end() {
    let mut engine = EngineOptions::default();
    (engine.parallel, engine.queue) = (1, 2);
    let backend = backend(engine);
    let (sender, receiver) = mpsc::channel();
    let submit = || {
        let sender = sender.clone();
        backend.submit(Request::new(prompt(1), options(1, 100)), move |event| {
            // Whoever asked is there until the end.
            let _ = sender.send(event);
            ControlFlow::Continue(())
        })
    };
    let refused = (0..50).filter(|_| matches!(submit(), Err(Error::Busy { .. }))).count();
    assert!(refused > 0);
    backend.shut_down();
    assert!(matches!(submit(), Err(Error::Stopped)));
    // Ends when what was taken is done.
    drop(backend);
    drop(sender);
    let ends = receiver.iter().filter(|event| matches!(event, Ok(Event::End(_)))).count();
    assert_eq!(ends, 50 - refused);
}
