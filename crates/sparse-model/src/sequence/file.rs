//! Sequences in files: prompt caches.
//!
//! A prompt cache is a GGUF file. Metadata: `sparse.cache.version`, `sparse.model.fingerprint`, `sparse.model.activation`,
//! `sparse.cache.kv` (the format that keys and values were asked to have), `sparse.cache.context`, `sparse.cache.tokens` (those that were computed)
//! and `sparse.cache.checksum`, SHA-256 over tokens and tensors. Tensors: `blk.N.kv` `[blocks x 2 x heads x 128 x head width]`
//! in that format or `F32`, `blk.N.conv` `[taps x width]`.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sparse_gguf::{Gguf, GgufWriter, Metadata, PendingFile};
use sparse_simd::BlockFormat;

use super::{LayerState, Sequence, SessionOptions};
use crate::kv_cache::{BLOCK, KvCache, KvFormat};
use crate::sidecar::hex;
use crate::{Error, Model};

const VERSION: u32 = 1;
const TOKENS: &str = "sparse.cache.tokens";
const CONTEXT: &str = "sparse.cache.context";
const CHECKSUM: &str = "sparse.cache.checksum";

impl Sequence {
    /// Writes the computed tokens, and what the layers remember of them, to a prompt cache; whatever was at `path` stays until
    /// the new file is complete.
    ///
    /// # Errors
    /// If nothing is computed yet, or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        if self.position == 0 {
            return Err(Error::NoTokens);
        }
        let mut tensors = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            tensors.push(match layer {
                LayerState::Kv(cache) => {
                    (format!("blk.{i}.kv"), cache.dims(), cache.block_format(), cache.contents())
                }
                LayerState::Conv(state) => {
                    let bytes = bytemuck::cast_slice(state.inputs()).to_vec();
                    (format!("blk.{i}.conv"), vec![state.inputs().len()], BlockFormat::F32, bytes)
                }
            });
        }
        let tokens: Vec<i32> = self.tokens[..self.position].iter().map(|id| *id as i32).collect();
        let mut meta = Metadata::new();
        meta.insert("sparse.cache.version", VERSION);
        meta.insert("sparse.model.fingerprint", self.model.fingerprint());
        meta.insert("sparse.model.activation", self.model.config().activation().to_string());
        meta.insert("sparse.cache.kv", self.kv.name());
        meta.insert(CONTEXT, self.context as u32);
        meta.insert(CHECKSUM, checksum(&tokens, tensors.iter().map(|t| &t.3[..])));
        meta.insert(TOKENS, tokens);
        let write = || {
            let mut writer = GgufWriter::new(meta);
            for (name, dims, format, _) in &tensors {
                writer.tensor(name, dims, *format)?;
            }
            let mut file = writer.start(PendingFile::create(path)?)?;
            for (name, _, _, bytes) in &tensors {
                file.write(name, bytes)?;
            }
            file.finish()?;
            Ok(())
        };
        write().map_err(|source| in_file(path, source))
    }

    /// The sequence in a prompt cache, whose tokens are not computed again.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged, if it was made with another model, another activation or another format of
    /// keys and values, or does not fit the context; and as [`Sequence::new`].
    pub fn load(model: &Arc<Model>, options: SessionOptions, path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open(model, options, path.as_ref(), None)
    }

    /// The part of a prompt cache that `tokens` begins with, without the last of `tokens`, which is to be computed in any case.
    /// Layers that do not keep all tokens have all of the cache or nothing.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_common(
        model: &Arc<Model>,
        options: SessionOptions,
        path: impl AsRef<Path>,
        tokens: &[u32],
    ) -> Result<Self, Error> {
        Self::open(model, options, path.as_ref(), Some(tokens))
    }

    fn open(
        model: &Arc<Model>,
        options: SessionOptions,
        path: &Path,
        tokens: Option<&[u32]>,
    ) -> Result<Self, Error> {
        let read = || {
            let gguf = Gguf::open(path)?;
            Self::read(model, options, &gguf, tokens)
        };
        read().map_err(|source| in_file(path, source))
    }

    fn read(
        model: &Arc<Model>,
        options: SessionOptions,
        gguf: &Gguf,
        wanted: Option<&[u32]>,
    ) -> Result<Self, Error> {
        let meta = gguf.metadata();
        let refuse = |problem: String| Err(Error::PromptCache { problem });
        match meta.opt_u32("sparse.cache.version")? {
            Some(VERSION) => {}
            Some(other) => {
                return refuse(format!("has version {other}; this program reads version {VERSION}"));
            }
            None => return refuse("is none: sparse.cache.version is absent".into()),
        }
        if meta.string("sparse.model.fingerprint")? != model.fingerprint() {
            return refuse("was made with another model file".into());
        }
        let (made, found) =
            (meta.string("sparse.model.activation")?, model.config().activation().to_string());
        if made != found {
            return refuse(format!(
                "was made with activation {made}, but the model is computed with {found}"
            ));
        }
        let (made, asked) = (meta.string("sparse.cache.kv")?, options.kv.name());
        if made != asked {
            return refuse(format!("has keys and values in {made}, not in {asked}"));
        }
        // Some models turn keys by other angles in long contexts.
        let context = meta.u32(CONTEXT)? as usize;
        let mut frequencies = model.weights().frequencies.iter();
        if frequencies.any(|f| !std::ptr::eq(f.of(context), f.of(options.context))) {
            return refuse(format!(
                "was made for a context of {context}, in which this model has other angles"
            ));
        }
        let tokens = meta.i32s(TOKENS)?;
        let mut sequence = Self::new(model, options)?;
        let ids: Vec<u32> = tokens.iter().map(|id| *id as u32).collect();
        if ids.is_empty() {
            return Err(Error::NoTokens);
        }
        let mut keep = wanted.map_or(ids.len(), |tokens| {
            let common = ids.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            common.min(tokens.len().saturating_sub(1))
        });
        if keep < ids.len() && !sequence.rewinds() {
            keep = 0;
        }
        sequence.check(&ids[..keep])?;
        sequence.check_ids(&ids)?;
        let mut parts = Vec::new();
        for i in 0..sequence.layers.len() {
            let part = if let LayerState::Kv(_) = &sequence.layers[i] { "kv" } else { "conv" };
            parts.push(gguf.tensor(&format!("blk.{i}.{part}"))?);
        }
        if checksum(&tokens, parts.iter().map(|t| t.data)) != meta.string(CHECKSUM)? {
            return refuse("is damaged: its checksum is another one".into());
        }
        for (layer, tensor) in sequence.layers.iter_mut().zip(&parts) {
            let format = tensor.info.format()?;
            let taken = match layer {
                LayerState::Kv(cache) => [KvFormat::F16, KvFormat::F32, KvFormat::Q8]
                    .into_iter()
                    .find(|kv| kv.block_format() == format)
                    .and_then(|kv| cache.restore(kv, tensor.data, ids.len().div_ceil(BLOCK))),
                LayerState::Conv(state) => (format == BlockFormat::F32)
                    .then(|| bytemuck::pod_collect_to_vec(tensor.data))
                    .and_then(|inputs: Vec<f32>| state.restore(&inputs)),
            };
            if taken.is_none() {
                let problem = "has another size or type than the model's layer".into();
                return Err(Error::Tensor { name: tensor.info.name.clone(), problem });
            }
        }
        (sequence.position, sequence.tokens) = (ids.len(), ids);
        if keep == 0 {
            sequence.clear();
        }
        sequence.truncate(keep)?;
        Ok(sequence)
    }
}

impl KvCache {
    fn dims(&self) -> Vec<usize> {
        vec![self.head_dim(), self.bytes() / self.block_format().row_bytes(self.head_dim()).unwrap_or(1)]
    }
}

fn checksum<'a>(tokens: &[i32], tensors: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    tokens.iter().for_each(|id| hash.update(id.to_le_bytes()));
    tensors.for_each(|bytes| hash.update(bytes));
    hex(hash)
}

fn in_file(path: &Path, source: Error) -> Error {
    Error::File { path: path.to_owned(), source: Box::new(source) }
}
