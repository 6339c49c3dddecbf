//! Tokenizers out of metadata: texts become ids of the vocabulary and a text again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_gguf::Gguf;
use sparse_model::tokenizer::Tokenizer;

const TEXT: &str = "Hello wörld, 12345 don't\n\n  \u{1f600} <s></s>\0 \u{4f60}\u{597d}";

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(data.to_vec()) else { return };
    let Ok(tokenizer) = Tokenizer::from_metadata(gguf.metadata()) else { return };
    if let Ok(ids) = tokenizer.encode(TEXT, Default::default()) {
        let _ = tokenizer.decode(&ids, true);
    }
});
