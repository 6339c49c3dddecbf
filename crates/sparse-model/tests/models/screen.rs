//! Screened heads: the same texts from fewer rows.

use std::ops::ControlFlow;
use std::sync::Arc;

use sparse_core::{LazyScreen, Margins};
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::sidecar::HeadScreen;
use sparse_model::{Error, GenerateOptions, Model, SamplerConfig, Session, generate};
use sparse_testdata::TinyLlama;

fn model(tiny: &TinyLlama, margin: Option<f32>) -> Arc<Model> {
    let gguf = Gguf::from_bytes(tiny.build().to_bytes()).expect("a GGUF file");
    let mut model = Model::from_gguf(&gguf, 1).expect("a model");
    if let Some(margin) = margin {
        let margins = Margins { best: margin, mass: margin };
        HeadScreen { margins, ..HeadScreen::default() }.apply(&mut model).unwrap();
        assert!(model.screen().is_some());
    }
    Arc::new(model)
}

/// The tokens after a few prompts, and how often the screen could tell.
fn texts(model: &Arc<Model>, sampler: &SamplerConfig) -> (Vec<Vec<u32>>, u64) {
    let mut told = 0;
    let texts = (0..6_u32).map(|i| {
        let mut session = Session::new(model, 40).unwrap();
        let sampler = SamplerConfig { seed: i.into(), ..sampler.clone() };
        let options = GenerateOptions::new(30).sampler(sampler).ignore_end(true);
        let made = generate(&mut session, &[i * 40 + 3, 7], &options, |_| ControlFlow::Continue(())).unwrap();
        let counts = session.screen_counts();
        if model.has_screen() {
            assert_eq!(counts.tokens, made.decode_steps as u64);
        }
        told += counts.tokens - counts.fallbacks;
        made.tokens
    });
    (texts.collect(), told)
}

#[test]
fn texts_are_the_same_for_every_kind_of_head() {
    let greedy = SamplerConfig::greedy();
    let penalty = SamplerConfig { repetition_penalty: 1.3, ..SamplerConfig::greedy() };
    let top_k = SamplerConfig { top_k: 4, ..SamplerConfig::default() };
    let min_p = SamplerConfig { top_k: 0, top_p: 1.0, min_p: 0.5, ..SamplerConfig::default() };
    let mut failures = Vec::new();
    for format in [BlockFormat::F32, BlockFormat::F16, BlockFormat::Q8_0, BlockFormat::Q4_0] {
        for tied in [true, false] {
            let tiny = TinyLlama { format, tied, ..TinyLlama::default() };
            let (whole, screened) = (model(&tiny, None), model(&tiny, Some(6.0)));
            for (name, sampler) in
                [("greedy", &greedy), ("penalty", &penalty), ("top-k", &top_k), ("min-p", &min_p)]
            {
                let (expected, _) = texts(&whole, sampler);
                let (found, told) = texts(&screened, sampler);
                if found != expected || told == 0 {
                    failures.push(format!("{} tied {tied} {name}, told {told}", format.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn only_candidates_are_screened_and_bytes_are_counted() {
    let tiny = TinyLlama { tied: false, ..TinyLlama::default() };
    let screened = model(&tiny, Some(4.0));
    let mut session = Session::new(&screened, 40).unwrap();
    assert_eq!(session.forward(&[5]).unwrap().len(), screened.vocab_len());
    assert_eq!(session.screen_counts().tokens, 0);
    assert_eq!(session.bytes_per_token(), screened.bytes_per_token());
    let sampler = sparse_model::Sampler::new(SamplerConfig::greedy());
    let (mut rows, head) = (0, screened.head());
    for id in 10..30 {
        let logits = session.candidates(&[id], &sampler, &[]).unwrap();
        assert_eq!(logits.ids.is_none(), logits.values.len() == head.rows());
        rows += logits.values.len();
    }
    let counts = session.screen_counts();
    assert_eq!(counts.tokens, 20);
    let screen = screened.screen().unwrap().bytes();
    assert_eq!(counts.bytes as usize, 20 * screen + rows * head.row_bytes());
    let average = counts.bytes as usize / 20;
    assert_eq!(session.bytes_per_token(), screened.bytes_per_token() - head.bytes() + average);
    // Open sampling needs everything.
    let open = SamplerConfig { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerConfig::default() };
    assert!(session.candidates(&[1], &sparse_model::Sampler::new(open), &[]).unwrap().ids.is_none());
    assert_eq!(session.screen_counts().tokens, 20);
}

/// The first tokens are given the whole head, and all calls of a session the same one whatever others do meanwhile.
#[test]
fn a_session_makes_the_screen_while_it_decodes() {
    let gguf = Gguf::from_bytes(TinyLlama::default().build().to_bytes()).unwrap();
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    HeadScreen::default().apply(&mut model).unwrap();
    let model = Arc::new(model);
    let sampler = sparse_model::Sampler::new(SamplerConfig::greedy());
    let tokens = LazyScreen::PARTS + 5;
    let mut sessions = [Session::new(&model, tokens).unwrap(), Session::new(&model, tokens).unwrap()];
    for session in &mut sessions {
        for i in 0..tokens {
            session.candidates(&[i as u32 % 50], &sampler, &[]).unwrap();
            assert_eq!(session.screen_counts().tokens as usize, (i + 1).saturating_sub(LazyScreen::PARTS));
        }
    }
    // What is there already is used at once.
    let mut later = Session::new(&model, 4).unwrap();
    later.candidates(&[3], &sampler, &[]).unwrap();
    assert_eq!(later.screen_counts().tokens, 1);
}

#[test]
fn damaged_heads_are_noticed() {
    let mut file = TinyLlama { tied: false, ..TinyLlama::default() }.build();
    file.tensor_mut("output.weight").poison();
    let mut model = Model::from_gguf(&Gguf::from_bytes(file.to_bytes()).unwrap(), 1).unwrap();
    HeadScreen::default().apply(&mut model).unwrap();
    let mut session = Session::new(&Arc::new(model), 8).unwrap();
    let sampler = sparse_model::Sampler::new(SamplerConfig::greedy());
    let result = session.candidates(&[4], &sampler, &[]);
    assert!(matches!(result, Err(Error::NotFinite { position: 0 })), "{result:?}");
}

#[test]
fn a_screen_of_another_head_is_refused() {
    let wide = TinyLlama { embedding: 128, ..TinyLlama::default() };
    let gguf = |tiny: &TinyLlama| Gguf::from_bytes(tiny.build().to_bytes()).unwrap();
    let other = Model::from_gguf(&gguf(&wide), 1).unwrap();
    let screen = other.make_screen(&HeadScreen::default()).unwrap();
    let mut model = Model::from_gguf(&gguf(&TinyLlama::default()), 1).unwrap();
    assert!(
        model.set_screen(Some(screen)).unwrap_err().to_string().starts_with("tensor screen: a screen of")
    );
    assert!(model.screen().is_none());
}
