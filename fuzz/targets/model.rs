//! Whole models, PowerInfer's among them: what opens computes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sparse_gguf::Gguf;
use sparse_model::{Model, Session};

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(data.to_vec()) else { return };
    let Ok(model) = Model::from_gguf(&gguf, 1) else { return };
    let Ok(mut session) = Session::new(&Arc::new(model), 4) else { return };
    let _ = session.forward(&[0, 1]);
    let _ = session.forward(&[2]);
});
