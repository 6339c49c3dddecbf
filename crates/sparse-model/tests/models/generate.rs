//! Generation: events, ends, stop strings, probabilities.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use sparse_gguf::Gguf;
use sparse_model::tokenizer::Tokenizer;
use sparse_model::{
    Error, Event, GenerateOptions, Generation, Model, Overflow, SamplerConfig, Session, Stop, Token,
    generate, log_sum_exp,
};
use sparse_testdata::TinyLlama;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let gguf = Gguf::from_bytes(TinyLlama::default().build().to_bytes()).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf, 1).expect("a model"))
});

const PROMPT: [u32; 4] = [40, 50, 60, 70];

fn session() -> Session {
    Session::new(&MODEL, 200).expect("a session")
}

/// Lower-case letters and spaces alone, at random.
fn letters(seed: u64) -> SamplerConfig {
    let tokenizer = MODEL.tokenizer();
    let is_text = |id: &u32| {
        let bytes = tokenizer.token_bytes(*id);
        !tokenizer.is_control(*id) && bytes.iter().all(|b| b.is_ascii_lowercase() || *b == b' ')
    };
    let others = (0..MODEL.vocab_len() as u32).filter(|id| !is_text(id));
    SamplerConfig {
        logit_bias: others.map(|id| (id, f32::NEG_INFINITY)).collect(),
        temperature: 1.0,
        seed,
        ..SamplerConfig::default()
    }
}

/// Everything that comes, in order.
struct Story {
    tokens: Vec<Token>,
    text: String,
    end: Generation,
}

fn tell(session: &mut Session, prompt: &[u32], options: &GenerateOptions) -> Story {
    let (mut tokens, mut text, mut end) = (Vec::new(), String::new(), None);
    for event in session.generate(prompt, options) {
        assert!(end.is_none(), "an event behind the end");
        match event.expect("an event") {
            Event::Token(token) => tokens.push(token),
            Event::Text(piece) => {
                assert!(!piece.is_empty());
                text += &piece;
            }
            Event::End(generation) => end = Some(generation),
            other => panic!("{other:?}"),
        }
    }
    Story { tokens, text, end: end.expect("an end") }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.decode_stream();
    let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap_or_default().to_owned()).collect();
    text.push_str(stream.finish().unwrap_or_default());
    text
}

#[test]
fn events_are_what_the_callback_gets_and_what_the_tokens_say() {
    let options = GenerateOptions::new(40)
        .sampler(SamplerConfig { temperature: 1.5, top_k: 0, min_p: 0.0, ..SamplerConfig::default() })
        .ignore_end(true);
    let story = tell(&mut session(), &PROMPT, &options);
    let ids: Vec<u32> = story.tokens.iter().map(|t| t.id).collect();
    assert_eq!((story.end.stop, ids.len(), story.end.decode_steps), (Stop::MaxTokens, 40, 39));
    assert_eq!(ids, story.end.tokens);
    assert_eq!(story.text, decode(MODEL.tokenizer(), &ids));
    assert!(story.tokens.iter().all(|t| t.logprobs.is_none()));
    let mut text = String::new();
    let generation = generate(&mut session(), &PROMPT, &options, |piece| {
        text += piece;
        ControlFlow::Continue(())
    });
    assert_eq!((generation.unwrap().tokens, text), (ids, story.text));
}

#[test]
fn the_seed_decides_the_text() {
    let options = |seed| GenerateOptions::new(30).sampler(letters(seed));
    let text = |seed| tell(&mut session(), &PROMPT, &options(seed)).text;
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn a_stop_string_ends_the_text_before_it_wherever_tokens_begin() {
    let free = GenerateOptions::new(60).sampler(letters(3));
    let whole = tell(&mut session(), &PROMPT, &free).text;
    let mut across = 0;
    for (start, len) in [(5, 1), (10, 2), (20, 3), (7, 5), (30, 8), (0, 1)] {
        let stop = &whole[start..start + len];
        let options = free.clone().stop(["not there", stop]);
        let mut session = session();
        let story = tell(&mut session, &PROMPT, &options);
        assert_eq!(story.text, whole[..whole.find(stop).unwrap()], "{stop:?}");
        assert_eq!(story.end.stop, Stop::StopString(1));
        // The tokens of the stop string are part of the sequence.
        let text = decode(MODEL.tokenizer(), &story.end.tokens);
        assert!(text.starts_with(&format!("{}{stop}", story.text)), "{stop:?}: {text:?}");
        assert_eq!(session.tokens(), [&PROMPT[..], &story.end.tokens].concat());
        across += usize::from(
            !MODEL.tokenizer().token_bytes(*story.end.tokens.last().unwrap()).starts_with(stop.as_bytes()),
        );
    }
    assert!(across > 2, "stop strings that tokens cut");
    let story = tell(&mut session(), &PROMPT, &free.clone().stop(["not there"]));
    assert_eq!((story.text, story.end.stop), (whole, Stop::MaxTokens));
}

#[test]
fn a_stop_token_is_no_text_but_part_of_the_sequence() {
    let free = GenerateOptions::new(60).sampler(letters(3));
    let all = tell(&mut session(), &PROMPT, &free).end.tokens;
    let at = 9;
    let first = all.iter().position(|t| *t == all[at]).unwrap();
    let mut options = free;
    options.stop_tokens = vec![all[at]];
    let mut session = session();
    let story = tell(&mut session, &PROMPT, &options);
    assert_eq!((story.end.stop, &story.end.tokens[..]), (Stop::StopToken(all[at]), &all[..first]));
    assert_eq!(session.tokens().last(), Some(&all[at]));
}

#[test]
fn probabilities_are_the_models_own() {
    // Biases and temperature change what is chosen, not how probable it was.
    let mut options = GenerateOptions::new(12).sampler(letters(5));
    options.logprobs = Some(3);
    let story = tell(&mut session(), &PROMPT, &options);
    let mut other = session();
    for (i, token) in story.tokens.iter().enumerate() {
        let logits = other.forward(if i == 0 { &PROMPT } else { &[] }).unwrap();
        let found = token.logprobs.as_ref().expect("asked for");
        let logprob = |id: u32| (f64::from(logits[id as usize]) - log_sum_exp(logits)) as f32;
        assert_eq!(found.logprob, logprob(token.id));
        assert_eq!(found.top.len(), 3);
        assert!(found.top.iter().all(|(id, p)| *p == logprob(*id)));
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(logits[found.top[0].0 as usize], best);
        other.push(token.id).unwrap();
    }
}

#[test]
fn whoever_cancels_gets_an_end() {
    let cancel = Arc::new(AtomicBool::new(false));
    let mut options = GenerateOptions::new(1000).sampler(letters(1));
    options.cancel = Some(Arc::clone(&cancel));
    let mut long = session();
    let mut events = Vec::new();
    for event in long.generate(&PROMPT, &options) {
        events.push(event.unwrap());
        let tokens = events.iter().filter(|e| matches!(e, Event::Token(_))).count();
        cancel.store(tokens == 5, Ordering::Relaxed);
    }
    let Some(Event::End(end)) = events.last() else { panic!("{events:?}") };
    assert_eq!((end.stop, end.tokens.len()), (Stop::Cancelled, 5));
    // Before it begins, nothing is computed.
    let mut none = session();
    cancel.store(true, Ordering::Relaxed);
    assert_eq!(tell(&mut none, &PROMPT, &options).end.stop, Stop::Cancelled);
    assert_eq!(none.position(), 0);
}

#[test]
fn a_dropped_generation_leaves_what_it_gave_out() {
    let options = GenerateOptions::new(50).sampler(letters(8));
    let expected = tell(&mut session(), &PROMPT, &options).end.tokens;
    let mut session = session();
    let some = session.generate(&PROMPT, &options).take(7);
    let given = some.filter(|e| matches!(e, Ok(Event::Token(_)))).count();
    assert!(given > 0);
    assert_eq!(session.tokens(), [&PROMPT[..], &expected[..given]].concat());
}

#[test]
fn a_full_context_ends_or_shifts() {
    let mut options = GenerateOptions::new(60).sampler(SamplerConfig::greedy()).ignore_end(true);
    let short = || Session::new(&MODEL, 16).unwrap();
    let story = tell(&mut short(), &PROMPT, &options);
    assert_eq!((story.end.stop, story.end.tokens.len()), (Stop::ContextFull, 13));

    options.overflow = Overflow::Shift { keep: 3 };
    let mut shifted = short();
    let story = tell(&mut shifted, &PROMPT, &options);
    assert_eq!((story.end.stop, story.end.tokens.len()), (Stop::MaxTokens, 60));
    assert_eq!(shifted.tokens()[..3], PROMPT[..3]);
    // What follows a shift is what follows a prompt of the tokens that are left: 17 tokens less half of 14.
    let all = [&PROMPT[..], &story.end.tokens].concat();
    let left = [&PROMPT[..3], &all[10..17]].concat();
    let after =
        tell(&mut short(), &left, &GenerateOptions::new(6).sampler(SamplerConfig::greedy()).ignore_end(true));
    assert_eq!(after.end.tokens, all[17..23]);
    // More to keep than fits is no reason to fail.
    options.overflow = Overflow::Shift { keep: 1000 };
    assert_eq!(tell(&mut short(), &PROMPT, &options).end.tokens.len(), 60);
    // A prompt that does not fit is an error in any case.
    let mut session = short();
    let error = session.generate(&[1; 17], &options).next().unwrap().unwrap_err();
    assert!(matches!(error, Error::ContextFull { needed: 17, context: 16 }));
}

#[test]
fn penalties_look_at_the_new_text_alone_if_asked_to() {
    let prompt: Vec<u32> = (0..MODEL.vocab_len() as u32).collect();
    let mut options = GenerateOptions::new(1).sampler(SamplerConfig {
        presence_penalty: 5.0,
        frequency_penalty: 1.0,
        penalty_window: usize::MAX,
        ..SamplerConfig::greedy()
    });
    options = options.ignore_end(true);
    let free = GenerateOptions::new(1).sampler(SamplerConfig::greedy()).ignore_end(true);
    // Of every token once the penalty is the same for all; of most of them it is not.
    let most = &prompt[..200];
    let other = || Session::new(&MODEL, 256).unwrap();
    let expected = tell(&mut other(), most, &free).end.tokens;
    options.penalize_prompt = false;
    assert_eq!(tell(&mut other(), most, &options).end.tokens, expected);
    options.penalize_prompt = true;
    assert!(tell(&mut other(), most, &options).end.tokens[0] >= 200);
}

#[test]
fn what_makes_no_sense_is_the_first_item() {
    for options in [
        GenerateOptions::new(5).stop([""]),
        GenerateOptions::new(5).sampler(SamplerConfig { top_p: 2.0, ..SamplerConfig::default() }),
    ] {
        let mut session = session();
        let mut events = session.generate(&PROMPT, &options);
        assert!(matches!(events.next(), Some(Err(Error::Setting { .. }))));
        assert!(events.next().is_none());
    }
    let mut empty = session();
    let error = empty.generate(&[], &GenerateOptions::default()).next().unwrap().unwrap_err();
    assert!(matches!(error, Error::NoTokens));
}

#[test]
fn a_generation_that_owns_its_session_writes_the_same_and_gives_it_back() {
    let options = GenerateOptions::new(20).sampler(letters(3)).ignore_end(true);
    let story = tell(&mut session(), &PROMPT, &options);
    let mut events = session().into_generate(&PROMPT, &options);
    let (mut text, mut tokens) = (String::new(), 0);
    for event in events.by_ref() {
        match event.expect("an event") {
            Event::Text(piece) => text += &piece,
            Event::Token(_) => tokens += 1,
            _ => {}
        }
    }
    assert_eq!((&text, tokens), (&story.text, story.tokens.len()));
    assert_eq!(events.into_session().tokens().len(), PROMPT.len() + tokens);
}
