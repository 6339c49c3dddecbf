//! Tensors in a safetensors file.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};

use super::tensors::Source;
use crate::Error;

/// What llama.cpp and the transformers library call the same part.
const NAMES: [(&str, &str); 4] = [
    ("token_embd", "embeddings.word_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("token_embd_norm", "embeddings.LayerNorm"),
];

/// The same for the parts of a layer.
const LAYER_NAMES: [(&str, &str); 8] = [
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

/// What transformers calls the tensor that llama.cpp calls `name`.
fn transformers_name(name: &str) -> Option<String> {
    let (part, kind) = name.rsplit_once('.')?;
    let find = |names: &[(&str, &'static str)], part: &str| names.iter().find(|n| n.0 == part).map(|n| n.1);
    let part = match part.strip_prefix("blk.").and_then(|part| part.split_once('.')) {
        Some((layer, part)) => format!("encoder.layer.{layer}.{}", find(&LAYER_NAMES, part)?),
        None => find(&NAMES, part)?.to_owned(),
    };
    Some(format!("{part}.{kind}"))
}

/// Tensors that sentence embeddings do not need: a table of numbers, and heads for other tasks.
fn is_idle(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
        || ["pooler.", "cls.", "classifier."]
            .iter()
            .any(|part| name.trim_start_matches("bert.").starts_with(part))
}

/// A safetensors file. Tensors are read from it piece by piece, so that a model that is converted when it is loaded is never
/// in memory twice.
pub(super) struct Safetensors {
    file: RefCell<File>,
    metadata: Metadata,
    /// Offset of the tensors in the file.
    start: u64,
}

/// The longest header that the safetensors library reads, in bytes.
const MAX_HEADER: u64 = 100_000_000;

impl Safetensors {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path)?;
        let found = file.metadata()?.len();
        let truncated = |expected: u64| Error::Truncated { expected, found };
        let mut len = [0; 8];
        if found < 8 {
            return Err(truncated(8));
        }
        file.read_exact(&mut len)?;
        let len = u64::from_le_bytes(len);
        if len > MAX_HEADER {
            return Err(safetensors::SafeTensorError::HeaderTooLarge.into());
        }
        let start = 8 + len;
        if found < start {
            return Err(truncated(start));
        }
        let mut header = vec![0; len as usize];
        file.read_exact(&mut header)?;
        // Checks that tensors follow each other and are as long as their shapes say.
        let metadata: Metadata = serde_json::from_slice(&header)?;
        let expected = start.saturating_add(metadata.data_len() as u64);
        if found < expected {
            return Err(truncated(expected));
        }
        Ok(Self { file: RefCell::new(file), metadata, start })
    }
}

impl Source for Safetensors {
    fn resolve(&self, name: &str) -> String {
        let Some(name) = transformers_name(name) else { return name.to_owned() };
        // Models saved with a head have a prefix; very old ones have other names for a norm's parts.
        let old =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let names = [&name, &old].map(|n| [n.clone(), format!("bert.{n}")]);
        names.into_iter().flatten().find(|n| self.metadata.info(n).is_some()).unwrap_or(name)
    }

    fn dims(&self, name: &str) -> Option<Vec<usize>> {
        self.metadata.info(name).map(|info| info.shape.clone())
    }

    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), Error> {
        let info = self.metadata.info(name).expect("a tensor that `dims` knows");
        match info.dtype {
            Dtype::F32 => self.bytes(info.data_offsets.0, start, out, f32::from_le_bytes),
            Dtype::F16 => self.bytes(info.data_offsets.0, start, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.bytes(info.data_offsets.0, start, out, |b| bf16::from_le_bytes(b).to_f32()),
            other => Err(Error::Tensor {
                name: name.to_owned(),
                problem: format!("type {other} is not supported (supported: F32, F16, BF16)"),
            }),
        }
    }

    fn unused(&self, used: &HashSet<String>) -> Option<String> {
        self.metadata.offset_keys().into_iter().find(|name| !used.contains(name) && !is_idle(name))
    }
}

impl Safetensors {
    fn bytes<const N: usize>(
        &self,
        tensor: usize,
        start: usize,
        out: &mut [f32],
        value: impl Fn([u8; N]) -> f32,
    ) -> Result<(), Error> {
        let mut bytes = vec![0; out.len() * N];
        let mut file = self.file.borrow_mut();
        file.seek(SeekFrom::Start(self.start + (tensor + start * N) as u64))?;
        file.read_exact(&mut bytes)?;
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *out = value(*bytes);
        }
        Ok(())
    }
}
