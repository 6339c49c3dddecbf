//! Where a model's tensors come from: a GGUF file, or a safetensors file.

use std::cell::RefCell;
use std::collections::HashSet;

use sha2::{Digest, Sha256};
use sparse_gguf::Gguf;

use super::BertConfig;
use crate::Error;
use crate::sidecar::hex;

/// A file with tensors.
pub(super) trait Source {
    /// What the file calls the tensor that llama.cpp calls `name`.
    fn resolve(&self, name: &str) -> String;
    /// Dimensions of a tensor, that of contiguous values last.
    fn dims(&self, name: &str) -> Option<Vec<usize>>;
    /// The values from `start` on, as many as `out` takes; they are known to be there.
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), Error>;
    /// A tensor that nothing reads, of those that matter; `used` are those that something read.
    fn unused(&self, used: &HashSet<String>) -> Option<String>;
}

/// The tensors of a file, by the names that llama.cpp gives them in GGUF files of architecture `bert`.
pub(super) struct Tensors<'a> {
    source: &'a dyn Source,
    used: RefCell<HashSet<String>>,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(source: &'a dyn Source) -> Self {
        Self { source, used: RefCell::default() }
    }

    /// The file's name of a tensor of this shape, the dimension of contiguous values last.
    pub(super) fn expect(&self, name: &str, expected: &[usize]) -> Result<String, Error> {
        let name = self.source.resolve(name);
        let found = self.source.dims(&name).ok_or_else(|| Error::Tensor {
            name: name.clone(),
            problem: "is not in the file, but the model's configuration asks for it".into(),
        })?;
        if found != expected {
            return Err(Error::TensorShape { name, expected: expected.to_vec(), found });
        }
        self.used.borrow_mut().insert(name.clone());
        Ok(name)
    }

    /// Values of a tensor, by the file's name of it, from `start` on; all of them must be finite.
    pub(super) fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), Error> {
        self.source.read(name, start, out)?;
        match out.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::Tensor {
                name: name.to_owned(),
                problem: format!("value {} is {}, not a finite number", start + i, out[i]),
            }),
        }
    }

    /// All values of a matrix.
    pub(super) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Vec<f32>, Error> {
        self.values(name, &[rows, cols])
    }

    /// All values of a vector.
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.values(name, &[len])
    }

    /// All values of a tensor.
    pub(super) fn values(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
        let name = self.expect(name, dims)?;
        let mut values = vec![0.0; dims.iter().product()];
        self.read(&name, 0, &mut values)?;
        Ok(values)
    }

    /// Tells models apart: a hash of the configuration, and of the first and the last row of every matrix of the layers and
    /// of the tokens' embedding, as f32 values, so that the same values in another file have the same. Models that differ
    /// elsewhere alone are taken to be the same; training changes those rows, too.
    pub(super) fn fingerprint(&self, config: &BertConfig) -> Result<String, Error> {
        let mut hash = Sha256::new();
        hash.update(format!("{config:?}\n"));
        let mut rows = |name: &str, rows: usize, cols: usize| {
            let (name, mut row) = (self.expect(name, &[rows, cols])?, vec![0.0; cols]);
            for r in [0, rows - 1] {
                self.read(&name, r * cols, &mut row)?;
                row.iter().for_each(|v| hash.update(v.to_le_bytes()));
            }
            Ok::<_, Error>(())
        };
        let (width, neurons) = (config.embedding, config.feed_forward);
        rows("token_embd.weight", config.vocabulary, width)?;
        for i in 0..config.layers {
            for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
                rows(&format!("blk.{i}.{part}.weight"), width, width)?;
            }
            rows(&format!("blk.{i}.ffn_up.weight"), neurons, width)?;
            rows(&format!("blk.{i}.ffn_down.weight"), width, neurons)?;
        }
        Ok(hex(hash))
    }

    /// A tensor that nothing reads means that the model is not quite what it says: better no answer than a wrong one.
    pub(super) fn all_used(&self) -> Result<(), Error> {
        match self.source.unused(&self.used.borrow()) {
            None => Ok(()),
            Some(name) => Err(Error::Tensor {
                name,
                problem: "is not part of the bert architecture as its configuration describes it".into(),
            }),
        }
    }
}

impl Source for Gguf {
    fn resolve(&self, name: &str) -> String {
        name.to_owned()
    }

    fn dims(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).map(|info| info.dims.iter().rev().copied().collect())
    }

    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), Error> {
        let tensor = self.tensor(name)?;
        let format = tensor.info.format()?;
        let fault = || Error::Tensor {
            name: name.to_owned(),
            problem: format!("values {start} to {} are no whole blocks", start + out.len()),
        };
        let first = format.row_bytes(start).ok_or_else(fault)?;
        let len = format.row_bytes(out.len()).ok_or_else(fault)?;
        // Only fails if `out` and the bytes do not fit, which `row_bytes` has seen to.
        format
            .decode(&tensor.data[first..first + len], out)
            .map_err(|e| Error::Tensor { name: name.to_owned(), problem: e.to_string() })
    }

    fn unused(&self, used: &HashSet<String>) -> Option<String> {
        self.tensors().find(|t| !used.contains(&t.name)).map(|t| t.name.clone())
    }
}
