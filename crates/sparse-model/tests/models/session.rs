//! A session: what it forgets, what it keeps, and generation over several calls.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{
    Error, GenerateOptions, Generation, KvFormat, Model, SamplerConfig, Session, SessionOptions, Stop,
    generate,
};
use sparse_testdata::{File, Tensor, TinyLlama};

fn model(file: &File) -> Arc<Model> {
    let gguf = Gguf::from_bytes(file.to_bytes()).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf, 1).expect("a model"))
}

/// Single precision everywhere, so that a batch differs from single tokens by rounding alone.
fn exact() -> File {
    TinyLlama { format: BlockFormat::F32, ..TinyLlama::default() }.build()
}

static EXACT: LazyLock<Arc<Model>> = LazyLock::new(|| model(&exact()));

fn session(context: usize) -> Session {
    Session::with_options(&EXACT, SessionOptions::new(context).kv(KvFormat::F32)).expect("a session")
}

fn options(max_tokens: usize, ignore_end: bool) -> GenerateOptions {
    let sampler = SamplerConfig { repetition_penalty: 1.3, ..SamplerConfig::greedy() };
    GenerateOptions::new(max_tokens).sampler(sampler).ignore_end(ignore_end)
}

fn run(session: &mut Session, prompt: &[u32], options: &GenerateOptions) -> Generation {
    generate(session, prompt, options, |_| ControlFlow::Continue(())).expect("text")
}

#[test]
fn truncating_is_as_good_as_a_new_session() {
    let model = model(&TinyLlama::default().build());
    let mut used = Session::new(&model, 32).unwrap();
    used.forward(&[1, 2, 3, 4, 5, 6, 7]).unwrap();
    used.truncate(3).unwrap();
    assert_eq!((used.position(), used.tokens()), (3, &[1, 2, 3][..]));
    let after = used.forward(&[9, 8]).unwrap().to_vec();
    let mut fresh = Session::new(&model, 32).unwrap();
    fresh.forward(&[1, 2, 3]).unwrap();
    assert_eq!(after, fresh.forward(&[9, 8]).unwrap());
}

#[test]
fn a_session_refuses_what_it_cannot_compute() {
    let model = model(&TinyLlama::default().build());
    let vocab = model.vocab_len();
    let mut session = Session::new(&model, 8).unwrap();
    assert!(matches!(session.forward(&[]), Err(Error::NoTokens)));
    assert!(matches!(session.forward(&[vocab as u32]), Err(Error::TokenId { .. })));
    assert!(matches!(session.push(vocab as u32), Err(Error::TokenId { .. })));
    assert!(matches!(session.forward(&[1; 9]), Err(Error::ContextFull { needed: 9, context: 8 })));
    assert_eq!(session.position(), 0);
    session.forward(&[1; 8]).unwrap();
    assert!(matches!(session.forward(&[1]), Err(Error::ContextFull { needed: 9, context: 8 })));
    session.push(1).unwrap();
    assert!(matches!(session.push(1), Err(Error::ContextFull { .. })));
    assert!(matches!(session.forward(&[]), Err(Error::ContextFull { needed: 9, context: 8 })));
    assert!(Session::new(&model, 0).is_err());
    assert!(Session::new(&model, 257).is_err());
}

#[test]
fn pushed_tokens_are_computed_with_the_next_ones() {
    let mut whole = session(16);
    let expected = whole.forward(&[5, 6, 7, 8]).unwrap().to_vec();
    let mut pushed = session(16);
    for token in [5, 6, 7] {
        pushed.push(token).unwrap();
    }
    assert_eq!((pushed.position(), pushed.tokens()), (0, &[5, 6, 7][..]));
    assert_eq!(pushed.forward(&[8]).unwrap(), expected);
    assert_eq!((pushed.position(), pushed.tokens()), (4, &[5, 6, 7, 8][..]));

    // The logits of all given tokens, and of none that waited.
    let mut each = session(16);
    each.push(5).unwrap();
    let mut seen = Vec::new();
    each.forward_each(&[6, 7, 8], |t, logits| seen.push((t, logits.to_vec()))).unwrap();
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(seen[2].1.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3));
}

/// An end-of-generation token is part of the sequence, though not of the text.
#[test]
fn a_token_that_ends_a_turn_is_kept() {
    // All logits are the head's bias, which answers everything with `<|im_end|>`, token 2.
    let mut file = exact();
    let vocab = file.tensor("token_embd.weight").dims[1];
    let one_hot: Vec<f32> = (0..vocab).map(|id| f32::from(id == 2)).collect();
    *file.tensor_mut("output_norm.weight") =
        Tensor::new("output_norm.weight", &[64], BlockFormat::F32, &[0.0; 64]);
    file.tensors.push(Tensor::new("output.bias", &[vocab], BlockFormat::F32, &one_hot));
    let model = model(&file);
    let mut session = Session::new(&model, 32).unwrap();
    let turn = run(&mut session, &[5, 6], &options(10, false));
    assert_eq!((turn.stop, turn.tokens.len()), (Stop::End, 0));
    assert_eq!(session.tokens(), [5, 6, 2]);
    let turn = run(&mut session, &[7], &options(10, false));
    assert_eq!((turn.stop, session.tokens()), (Stop::End, &[5, 6, 2, 7, 2][..]));
}

#[test]
fn an_empty_prompt_goes_on() {
    let mut whole = session(64);
    let expected = run(&mut whole, &[1, 2, 3], &options(12, true)).tokens;
    let mut parts = session(64);
    assert!(generate(&mut parts, &[], &options(1, true), |_| ControlFlow::Continue(())).is_err());
    let mut found = run(&mut parts, &[1, 2, 3], &options(0, true)).tokens;
    for n in [1, 4, 0, 7] {
        found.extend(run(&mut parts, &[], &options(n, true)).tokens);
    }
    assert_eq!(found, expected);
    // A stop by the caller loses nothing.
    let mut stopped = session(64);
    let first = generate(&mut stopped, &[1, 2, 3], &options(12, true), |_| ControlFlow::Break(())).unwrap();
    assert_eq!(first.stop, Stop::Cancelled);
    let rest = run(&mut stopped, &[], &options(12 - first.tokens.len(), true));
    assert_eq!([first.tokens, rest.tokens].concat(), expected);
}

#[test]
fn a_full_context_says_so_and_goes_nowhere() {
    let mut session = session(8);
    let first = run(&mut session, &[1, 2, 3], &options(100, true));
    assert_eq!((first.stop, first.tokens.len(), session.position()), (Stop::ContextFull, 6, 8));
    let again = generate(&mut session, &[], &options(1, true), |_| ControlFlow::Continue(()));
    assert!(matches!(again, Err(Error::ContextFull { needed: 9, context: 8 })), "{again:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A conversation over one session gives the same tokens as the same text in one prompt.
    #[test]
    fn a_conversation_equals_one_prompt(
        turns in prop::collection::vec((prop::collection::vec(0..268_u32, 0..5), 0..6_usize), 1..6),
        ignore_end: bool,
    ) {
        let mut conversation = session(256);
        for (prompt, n) in turns {
            let options = options(n, ignore_end);
            let text = [conversation.tokens(), &prompt].concat();
            if text.is_empty() {
                continue;
            }
            let turn = run(&mut conversation, &prompt, &options);
            let mut fresh = session(256);
            let alone = run(&mut fresh, &text, &options);
            prop_assert_eq!(&turn.tokens, &alone.tokens);
            prop_assert_eq!(turn.stop, alone.stop);
            prop_assert_eq!(conversation.tokens(), fresh.tokens());
        }
    }
}

/// Keys beyond half precision and queries smaller by the same factor: the same function.
#[test]
fn keys_beyond_half_precision_are_kept_in_single_precision() {
    let scaled = |factor: f32, name: &str, tensor: &mut Tensor| {
        let values: Vec<f32> = tensor.values().iter().map(|v| v * factor).collect();
        *tensor = Tensor::new(name, &tensor.dims.clone(), BlockFormat::F32, &values);
    };
    let mut file = exact();
    for i in 0..2 {
        for (part, factor) in [("attn_k", 131_072.0), ("attn_q", 1.0 / 131_072.0)] {
            let name = format!("blk.{i}.{part}.weight");
            scaled(factor, &name, file.tensor_mut(&name));
        }
    }
    let model = model(&file);
    let tokens: Vec<u32> = (0..20).map(|i| (i * 37 + 3) % 268).collect();
    let expected = session(32).forward(&tokens).unwrap().to_vec();
    for (kv, batch) in [(KvFormat::F16, 20), (KvFormat::F16, 1), (KvFormat::F32, 20)] {
        let mut session = Session::with_options(&model, SessionOptions::new(32).kv(kv)).unwrap();
        let mut found = Vec::new();
        for part in tokens.chunks(batch) {
            found = session.forward(part).unwrap().to_vec();
        }
        assert_eq!(session.kv_format(), KvFormat::F32);
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Values stay in half precision until the first token that does not fit.
        assert!(worst < 5e-3, "{kv:?}, batches of {batch}: {worst}");
    }
}
