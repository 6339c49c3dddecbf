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
