//! Memory that a file is read into, piece by piece.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use crate::error::Error;

/// The bytes of a file, which are here once: a model keeps them as they are.
#[wasm_bindgen]
#[derive(Debug)]
pub struct ModelBytes {
    bytes: Vec<u8>,
    len: usize,
}

#[wasm_bindgen]
impl ModelBytes {
    /// Room for a file of `len` bytes.
    ///
    /// # Errors
    /// `memory` if there is not enough.
    #[wasm_bindgen(constructor)]
    pub fn new(len: f64) -> Result<ModelBytes, JsValue> {
        let mut bytes = Vec::new();
        // Larger lengths than can be addressed saturate, and are refused.
        match bytes.try_reserve_exact(len as usize) {
            Ok(()) => Ok(Self { bytes, len: len as usize }),
            Err(_) => {
                let message =
                    format!("there is no memory for a file of {len} bytes; WebAssembly has 4 GiB at most");
                Err(Error::new("memory", message).into())
            }
        }
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// `format` if the file is longer than was said.
    pub fn push(&mut self, piece: &Uint8Array) -> Result<(), JsValue> {
        let (start, end) = (self.bytes.len(), self.bytes.len() + piece.length() as usize);
        if end > self.len {
            let message = format!("the file is longer than the {} bytes announced", self.len);
            return Err(Error::new("format", message).into());
        }
        self.bytes.resize(end, 0);
        piece.copy_to(&mut self.bytes[start..]);
        Ok(())
    }
}

impl ModelBytes {
    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}
