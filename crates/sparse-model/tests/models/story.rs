//! The story model's greedy text, the same on every machine.

use std::sync::Arc;

use sparse_gguf::Gguf;
use sparse_model::{Model, Session};

/// The model in the program `sparse`.
static MODEL: &[u8] = include_bytes!("../../../sparse-cli/story/story.gguf");
const PROMPT: &str = "Once upon a time";
/// What follows the prompt at level `scalar`.
const TEXT: &str = ", there was a little girl named Lily. She loved to play outside in the sunshine. One \
    day, she saw a big, scary dog. The dog was very friendly and Lily wanted to pet him. She \
    ran over to the dog and said, \"Hi, dog! Do you want to play with me?\" The dog barked \
    and wagged its tail. Lily was scared and didn't know what to do.\nSuddenly, the dog \
    started to chase Lily. Lily was scared and";
/// Where the two most probable tokens are closer than this, levels may differ and the comparison ends.
const MARGIN: f32 = 0.01;
const TOKENS: usize = 96;

#[test]
fn the_greedy_text_is_the_same_on_every_machine() {
    let gguf = Gguf::from_shared(Arc::new(MODEL)).unwrap();
    let model = Arc::new(Model::from_gguf(&gguf, 1).unwrap());
    let mut session = Session::new(&model, 256).unwrap();
    let mut tokens = model.tokenizer().encode(PROMPT, Default::default()).unwrap();
    let start = tokens.len();
    let mut next = tokens.clone();
    while tokens.len() < start + TOKENS {
        let logits = session.forward(&next).unwrap();
        let above = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(above);
        if logits[order[0]] - logits[order[1]] < MARGIN {
            break;
        }
        next = vec![order[0] as u32];
        tokens.extend(&next);
    }
    let text = model.tokenizer().decode(&tokens[start..], true);
    assert!(tokens.len() >= start + TOKENS / 2, "too close a call after {} tokens", tokens.len() - start);
    assert!(TEXT.starts_with(&text), "found {text:?}");
}

#[test]
fn the_neurons_that_fire_are_those_that_were_counted() {
    let gguf = Gguf::from_shared(Arc::new(MODEL)).unwrap();
    let sparse = Arc::new(Model::from_gguf(&gguf, 1).unwrap());
    let mut dense = Model::from_gguf(&gguf, 1).unwrap();
    dense.make_dense().unwrap();
    let mut fired = Vec::new();
    for model in [sparse, Arc::new(dense)] {
        let prompt = model.tokenizer().encode(PROMPT, Default::default()).unwrap();
        let mut session = Session::new(&model, 16).unwrap();
        session.forward(&prompt).unwrap();
        assert!(session.neurons().is_empty(), "nobody asked");
        session.keep_neurons(true);
        session.forward(&[300]).unwrap();
        let count = |neurons: &Vec<f32>| neurons.iter().filter(|h| **h != 0.0).count() as u64;
        let counts: Vec<u64> = session.neurons().iter().map(count).collect();
        let computed: Vec<u64> = session.ffn_counts().iter().map(|c| c.down).collect();
        let neurons = session.neurons()[0].len() as u64;
        let dense = computed.iter().all(|down| *down == neurons);
        assert!(dense || counts == computed, "{counts:?} fired, {computed:?} were computed");
        let most = counts.len() as u64 * neurons / 4;
        assert!((1..most).contains(&counts.iter().sum()), "{counts:?} of {neurons}");
        fired.push((counts, dense));
    }
    assert_eq!((fired[0].1, fired[1].1), (false, true));
    // The first layer's input is the same whatever is left out.
    assert_eq!(fired[0].0[0], fired[1].0[0]);
}
