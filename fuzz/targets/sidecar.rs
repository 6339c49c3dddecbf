//! Sidecars: any file is one for a model, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_gguf::Gguf;
use sparse_model::Sidecar;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(data.to_vec()) else { return };
    let _ = Sidecar::from_gguf(&gguf);
});
