//! The file format: any bytes are a file or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_gguf::Gguf;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(data.to_vec()) else { return };
    for (key, value) in gguf.metadata().iter() {
        let _ = format!("{key} {value:?}");
    }
    for info in gguf.tensors() {
        let Ok(tensor) = gguf.tensor(&info.name) else { continue };
        // Values of large tensors are only more of the same.
        if info.elements() < 1 << 16 {
            let _ = tensor.dequantize();
        }
    }
});
