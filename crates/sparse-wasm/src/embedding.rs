//! Sentence embeddings.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use js_sys::{Array, Object, Uint8Array};
use serde_json::json;
use sparse_gguf::Gguf;
use sparse_model::{Encoder, ModelFiles, Prompt, ReadSeek};
use wasm_bindgen::prelude::*;

use crate::ModelBytes;
use crate::error::Error;
use crate::options::{self, EmbeddingOptions};

/// A sentence-embedding model.
#[wasm_bindgen]
#[derive(Debug)]
pub struct EmbeddingModel {
    encoder: Encoder,
}

#[wasm_bindgen]
impl EmbeddingModel {
    /// Reads a model from a GGUF file of architecture `bert`. `options` are JSON.
    ///
    /// # Errors
    /// `format` or `unsupported` for files that cannot be used, `option` for options.
    #[wasm_bindgen(js_name = fromGguf)]
    pub fn from_gguf(bytes: ModelBytes, options: &str) -> Result<EmbeddingModel, JsValue> {
        let options = options::parse::<EmbeddingOptions>(options)?.options()?;
        let gguf = Gguf::from_bytes(bytes.into_vec()).map_err(Error::from)?;
        Ok(Self { encoder: Encoder::from_gguf(&gguf, &options).map_err(Error::from)? })
    }

    /// Reads a model from the files of a sentence-transformers folder: an object of `Uint8Array`s by path in the folder. They
    /// stay in JavaScript's memory; weights are converted tensor by tensor.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf), and `missing-file`.
    #[wasm_bindgen(js_name = fromFiles)]
    pub fn from_files(files: &Object, options: &str) -> Result<EmbeddingModel, JsValue> {
        let options = options::parse::<EmbeddingOptions>(options)?.options()?;
        let mut folder = HashMap::new();
        for entry in Object::entries(files).iter() {
            let entry: Array = entry.unchecked_into();
            let (Some(name), Ok(bytes)) = (entry.get(0).as_string(), entry.get(1).dyn_into()) else {
                return Err(Error::option("files: expected an object of Uint8Arrays").into());
            };
            folder.insert(name, bytes);
        }
        Ok(Self { encoder: Encoder::from_files(&Folder(folder), &options).map_err(Error::from)? })
    }

    /// What the model is, as JSON: `EmbeddingModelInfo` of `index.d.ts`.
    pub fn info(&self) -> String {
        json!({
            "dimension": self.encoder.dimension(),
            "maxTokens": self.encoder.max_tokens(),
            "normalized": self.encoder.normalizes(),
            "prompts": self.encoder.prompts().collect::<Vec<_>>(),
            "bytes": self.encoder.bytes(),
        })
        .to_string()
    }

    /// Embeddings of texts, one behind the other. `prompt` is `query`, `document`, the name of another one, or nothing for the
    /// model's default.
    ///
    /// # Errors
    /// `not-finite` if weights are damaged, `option` if there is no such prompt.
    pub fn embed(&self, texts: Vec<String>, prompt: Option<String>) -> Result<Vec<f32>, JsValue> {
        let prompt = match prompt.as_deref() {
            None => Prompt::Default,
            Some("query") => Prompt::Query,
            Some("document") => Prompt::Document,
            Some(name) => Prompt::Named(name.to_owned()),
        };
        let encoder = self.encoder.prompted(&prompt).map_err(Error::from)?;
        let embeddings: Result<Vec<_>, _> = encoder.embed_stream(&texts).collect();
        Ok(embeddings.map_err(Error::from)?.concat())
    }
}

/// Files in JavaScript's memory.
struct Folder(HashMap<String, Uint8Array>);

impl ModelFiles for Folder {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadSeek + '_>> {
        let bytes = path.to_str().and_then(|path| self.0.get(path)).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(File { bytes, position: 0 }))
    }
}

/// One of them, open.
struct File<'a> {
    bytes: &'a Uint8Array,
    position: u64,
}

impl Read for File<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let start = self.position.min(self.bytes.length().into()) as u32;
        let end = start + out.len().min((self.bytes.length() - start) as usize) as u32;
        let read = (end - start) as usize;
        self.bytes.subarray(start, end).copy_to(&mut out[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for File<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => u64::from(self.bytes.length()).checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
