//! Sequences that are computed together, in parts, or from what others left: each has the bits that it has alone.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::sidecar::prepare;
use sparse_model::{
    Error, GenerateOptions, KvFormat, Model, SamplerConfig, Sequence, Session, SessionOptions, Workspace,
};
use sparse_testdata::{File, TinyLlama, variants};

use crate::architectures::file;

const CONTEXT: usize = 256;

fn open(file: &File, threads: usize) -> Model {
    let gguf = Gguf::from_bytes(file.to_bytes()).expect("a GGUF file");
    let mut model = Model::from_gguf(&gguf, threads).expect("a model");
    model.interleave();
    model
}

/// Models of all kinds: formats, architectures, and one that leaves neurons out.
fn models() -> Vec<(String, Arc<Model>)> {
    let llama = TinyLlama { embedding: 256, feed_forward: 512, layers: 2, ..TinyLlama::default() };
    let mut models = Vec::new();
    for format in [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q8_0,
        BlockFormat::Q4K,
        BlockFormat::Q6K,
        BlockFormat::F16,
        BlockFormat::F32,
    ] {
        models.push((format.name().to_owned(), open(&TinyLlama { format, ..llama.clone() }.build(), 2)));
    }
    for format in [BlockFormat::Q4_0, BlockFormat::Q4K, BlockFormat::F32] {
        let experts = TinyLlama { format, feed_forward: 256, experts: Some((6, 2)), ..llama.clone() };
        models.push((format!("{} experts", format.name()), open(&experts.build(), 2)));
    }
    let mut sparse = open(&TinyLlama { activation: Some("relu"), ..llama.clone() }.build(), 2);
    sparse.ffns_mut().for_each(|ffn| drop(ffn.set_selector(Selector::ExactZero).expect("a selector")));
    prepare(&mut sparse, None).expect("columns");
    models.push(("exact zeros".into(), sparse));
    let mut sinks = file("gpt-oss");
    sinks.metadata.insert("gpt-oss.context_length", CONTEXT as u32);
    models.push(("gpt-oss".into(), open(&sinks, 2)));
    for (name, file) in variants() {
        models.push((name.to_owned(), open(&file, 1)));
    }
    models.into_iter().map(|(name, model)| (name, Arc::new(model))).collect()
}

fn prompt(model: &Model, i: usize, len: usize) -> Vec<u32> {
    (0..len).map(|t| ((t * 37 + i * 101 + 3) % model.vocab_len()) as u32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|l| l.to_bits()).collect()
}

fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    logits.iter().enumerate().for_each(|(i, l)| {
        if *l > logits[best] {
            best = i
        }
    });
    best as u32
}

fn sequence(model: &Arc<Model>, kv: KvFormat) -> Sequence {
    Sequence::new(model, SessionOptions::new(CONTEXT.min(model.config().context)).kv(kv)).expect("a sequence")
}

fn prefill(workspace: &mut Workspace, sequence: &mut Sequence, most: usize) -> Vec<u32> {
    loop {
        if let Some(logits) = workspace.prefill(sequence, most).expect("logits") {
            return bits(logits);
        }
    }
}

#[test]
fn steps_together_have_the_bits_of_steps_alone() {
    const STEPS: usize = 4;
    for (name, model) in models() {
        for kv in [KvFormat::F16, KvFormat::Q8] {
            if Sequence::new(&model, SessionOptions::new(8).kv(kv)).is_err() {
                continue;
            }
            let prompts: Vec<_> = (0..11).map(|i| prompt(&model, i, 1 + 13 * i)).collect();
            let options = SessionOptions::new(CONTEXT.min(model.config().context)).kv(kv);
            let alone: Vec<Vec<Vec<u32>>> = prompts
                .iter()
                .map(|prompt| {
                    let mut session = Session::with_options(&model, options).unwrap();
                    let mut logits = vec![bits(session.forward(prompt).unwrap())];
                    for _ in 0..STEPS {
                        let next = best(
                            &logits.last().unwrap().iter().map(|b| f32::from_bits(*b)).collect::<Vec<_>>(),
                        );
                        logits.push(bits(session.forward(&[next]).unwrap()));
                    }
                    logits
                })
                .collect();
            let mut workspace = Workspace::new(&model, options.context);
            let mut sequences: Vec<_> = prompts.iter().map(|_| sequence(&model, kv)).collect();
            for ((sequence, prompt), alone) in sequences.iter_mut().zip(&prompts).zip(&alone) {
                sequence.extend(prompt).unwrap();
                assert_eq!(prefill(&mut workspace, sequence, 256), alone[0], "{name} {kv:?}: prompt");
            }
            for step in 0..STEPS {
                // Not always the same company.
                let mut some: Vec<_> =
                    sequences.iter_mut().enumerate().filter(|(i, _)| i % (step + 1) == 0).collect();
                for (i, sequence) in &mut some {
                    let done = sequence.position() - prompts[*i].len();
                    let logits: Vec<f32> = alone[*i][done].iter().map(|b| f32::from_bits(*b)).collect();
                    sequence.extend(&[best(&logits)]).unwrap();
                }
                let numbers: Vec<usize> = some.iter().map(|(i, _)| *i).collect();
                let mut parts: Vec<&mut Sequence> = some.into_iter().map(|(_, s)| s).collect();
                let mut found = Vec::new();
                workspace
                    .steps(&mut parts, |part, token, logits| {
                        found.push((part, token, bits(logits)));
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(found.len(), numbers.len());
                for (part, token, logits) in found {
                    let i = numbers[part];
                    let done = sequences[i].position() - prompts[i].len();
                    assert_eq!(token, 0);
                    assert!(logits == alone[i][done], "{name} {kv:?}: sequence {i}, step {done}");
                }
            }
        }
    }
}

#[test]
fn a_prompt_has_the_same_bits_in_whichever_parts() {
    for (name, model) in models() {
        let len = 200.min(model.config().context);
        let prompt = prompt(&model, 5, len);
        let mut workspace = Workspace::new(&model, CONTEXT);
        let mut whole = sequence(&model, KvFormat::F16);
        whole.extend(&prompt).unwrap();
        let expected = prefill(&mut workspace, &mut whole, 256);
        for most in [64, 71, 100, 180] {
            let mut parts = sequence(&model, KvFormat::F16);
            parts.extend(&prompt).unwrap();
            assert!(prefill(&mut workspace, &mut parts, most) == expected, "{name}: parts of {most}");
        }
        // From what another sequence has computed, if enough is left to compute.
        for at in [1, 7, 128, 150, 168] {
            let Ok(mut fork) = whole.fork(at.min(len)) else { continue };
            if len < at + 32 {
                continue;
            }
            assert_eq!(fork.position(), at);
            fork.extend(&prompt[at..]).unwrap();
            assert!(prefill(&mut workspace, &mut fork, 256) == expected, "{name}: from position {at}");
        }
    }
}

#[test]
fn forks_do_not_disturb_each_other() {
    let model = Arc::new(open(&TinyLlama::default().build(), 1));
    let mut workspace = Workspace::new(&model, CONTEXT);
    let mut first = sequence(&model, KvFormat::F16);
    first.extend(&prompt(&model, 1, 140)).unwrap();
    prefill(&mut workspace, &mut first, 256);
    let mut second = first.fork(130).unwrap();
    let bytes = first.kv_bytes();
    second.extend(&prompt(&model, 2, 60)).unwrap();
    prefill(&mut workspace, &mut second, 256);
    let mut again = first.fork(140).unwrap();
    first.extend(&prompt(&model, 3, 50)).unwrap();
    again.extend(&prompt(&model, 3, 50)).unwrap();
    assert_eq!(prefill(&mut workspace, &mut first, 256), prefill(&mut workspace, &mut again, 256));
    assert!(first.kv_bytes() >= bytes);
    first.clear();
    assert_eq!(first.kv_bytes(), 0);
}

#[test]
fn drafts_from_the_text_change_nothing() {
    // Repetitive on purpose: greedy text of random weights runs in circles.
    let models = [TinyLlama::default(), TinyLlama { format: BlockFormat::F32, ..TinyLlama::default() }];
    for model in models.map(|m| Arc::new(open(&m.build(), 1))) {
        for sampler in [
            SamplerConfig::greedy(),
            SamplerConfig { repetition_penalty: 1.1, ..SamplerConfig::greedy() },
            SamplerConfig { temperature: 0.3, seed: 5, ..SamplerConfig::default() },
        ] {
            let run = |lookup, max_tokens| {
                let mut options = GenerateOptions::new(max_tokens).sampler(sampler.clone()).ignore_end(true);
                options.lookup = lookup;
                let mut session = Session::new(&model, 220).unwrap();
                let tokens = prompt(&model, 3, 20).repeat(2);
                let made = sparse_model::generate(&mut session, &tokens, &options, |_| {
                    std::ops::ControlFlow::Continue(())
                });
                let made = made.unwrap();
                (made.tokens, made.stop, session.tokens().to_vec(), session.position())
            };
            for max_tokens in [1, 50, 100, 1000] {
                assert_eq!(run(true, max_tokens), run(false, max_tokens), "{max_tokens} tokens, {sampler:?}");
            }
        }
    }
}

#[test]
fn more_than_the_context_is_refused_and_nothing_is_computed() {
    let model = Arc::new(open(&TinyLlama::default().build(), 1));
    let mut workspace = Workspace::new(&model, 8);
    let mut full = Sequence::new(&model, SessionOptions::new(8)).unwrap();
    full.extend(&[1; 9]).unwrap();
    assert!(matches!(full.extend(&[1]), Err(Error::ContextFull { needed: 10, context: 8 })));
    let mut other = Sequence::new(&model, SessionOptions::new(8)).unwrap();
    other.extend(&[1]).unwrap();
    let error = workspace.steps(&mut [&mut other, &mut full], |_, _, _| Ok(())).unwrap_err();
    assert!(matches!(error, Error::ContextFull { needed: 9, context: 8 }), "{error}");
    assert_eq!((other.position(), full.position()), (0, 0));
}
