//! A llama model's tensors, taken out of a GGUF file without copying the large ones.

use std::cell::RefCell;
use std::collections::HashSet;

use sparse_core::{Down, Linear, Matrix, Selector, SparseFfn, Storage};
use sparse_gguf::{Gguf, TensorInfo};

use crate::{Error, LlamaConfig};

/// Tensors of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) ffn: SparseFfn,
}

/// All tensors of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Token embedding, `[vocabulary x embedding]`; also the head when that is tied.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    head: Option<Matrix>,
    /// Angle per position of each rotary pair.
    pub(crate) rope_frequencies: Vec<f32>,
}

impl Weights {
    /// Takes the tensors that `config` implies; every tensor of the file must be one of them.
    pub(crate) fn load(gguf: &Gguf, config: &LlamaConfig, vocab: usize) -> Result<Self, Error> {
        let file = Source { gguf, used: RefCell::default() };
        let width = config.embedding;
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        // Files may state any number of layers; stop at the first that is not there.
        let mut layers = Vec::new();
        for i in 0..config.layers {
            let linear = |name: &str, rows, cols| file.linear(&format!("blk.{i}.{name}"), rows, cols);
            let norm = |name: &str| file.vector(&format!("blk.{i}.{name}.weight"), width);
            layers.push(Layer {
                attention_norm: norm("attn_norm")?,
                query: linear("attn_q", q_width, width)?,
                key: linear("attn_k", kv_width, width)?,
                value: linear("attn_v", kv_width, width)?,
                attention_output: linear("attn_output", width, q_width)?,
                ffn_norm: norm("ffn_norm")?,
                ffn: file.ffn(i, config)?,
            });
        }
        let rope_divisors = file.optional("rope_freqs.weight").map(|_| {
            let divisors = file.vector("rope_freqs.weight", config.rope.dims / 2)?;
            match divisors.iter().all(|d| *d > 0.0) {
                true => Ok(divisors),
                false => Err(Error::Tensor {
                    name: "rope_freqs.weight".into(),
                    problem: "holds values that are not positive".into(),
                }),
            }
        });
        let weights = Self {
            embedding: file.matrix("token_embd.weight", vocab, width)?,
            layers,
            output_norm: file.vector("output_norm.weight", width)?,
            head: file
                .optional("output.weight")
                .map(|_| file.matrix("output.weight", vocab, width))
                .transpose()?,
            rope_frequencies: config.rope.frequencies(rope_divisors.transpose()?.as_deref()),
        };
        file.all_used()?;
        Ok(weights)
    }

    /// The output head, `[vocabulary x embedding]`: its own tensor, or the embedding when they are tied.
    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// The file that tensors are taken from, and which were.
struct Source<'a> {
    gguf: &'a Gguf,
    used: RefCell<HashSet<String>>,
}

impl<'a> Source<'a> {
    fn optional(&self, name: &str) -> Option<&'a TensorInfo> {
        self.gguf.info(name)
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error> {
        let tensor = self.gguf.tensor(name)?;
        expect_shape(name, &tensor.info.dims, &[cols, rows])?;
        self.used.borrow_mut().insert(name.to_owned());
        let (owner, range) = self.gguf.shared(name)?;
        let storage = Storage::Shared { owner, range };
        Matrix::new(tensor.info.format()?, cols, storage)
            .map_err(|e| Error::Tensor { name: name.to_owned(), problem: e.to_string() })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.gguf.tensor(name)?;
        expect_shape(name, &tensor.info.dims, &[len])?;
        self.used.borrow_mut().insert(name.to_owned());
        let values = tensor.dequantize()?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(Error::Tensor {
                name: name.to_owned(),
                problem: format!("value {i} is {}, not a finite number", values[i]),
            }),
        }
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        self.optional(name).map(|_| self.vector(name, len)).transpose()
    }

    fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, Error> {
        let weight = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear::new(weight, bias)?)
    }

    /// The feed-forward part of layer `i`. A file made for skipping neurons has `ffn_down_t`, a row per neuron, in place
    /// of `ffn_down` (the name is PowerInfer's).
    fn ffn(&self, i: usize, config: &LlamaConfig) -> Result<SparseFfn, Error> {
        let (width, hidden) = (config.embedding, config.feed_forward);
        let name = |part: &str| format!("blk.{i}.{part}");
        let gate = self.linear(&name("ffn_gate"), hidden, width)?;
        let up = self.linear(&name("ffn_up"), hidden, width)?;
        let transposed = name("ffn_down_t.weight");
        let down = match self.optional(&transposed) {
            Some(_) => Down::Neurons(self.matrix(&transposed, hidden, width)?.into()),
            None => Down::Rows(self.matrix(&name("ffn_down.weight"), width, hidden)?),
        };
        let ffn = SparseFfn::gated(gate, up, down, config.activation)?;
        let ffn = ffn.with_up_activation(config.up_activation);
        let mut ffn = match self.optional_vector(&name("ffn_down.bias"), width)? {
            Some(bias) => ffn.with_down_bias(bias)?,
            None => ffn,
        };
        // Leaving out what is exactly zero costs nothing where the file is made for it.
        if config.activation.has_zeros() && matches!(ffn.down(), Down::Neurons(_)) {
            ffn.set_selector(Selector::ExactZero)?;
        }
        Ok(ffn)
    }

    /// A tensor that nothing reads means that the model is not quite what it says: better no answer than a
    /// wrong one.
    fn all_used(&self) -> Result<(), Error> {
        let used = self.used.borrow();
        match self.gguf.tensors().find(|t| !used.contains(&t.name)) {
            None => Ok(()),
            Some(t) => Err(Error::Tensor {
                name: t.name.clone(),
                problem: "is not part of the llama architecture as its metadata describes it".into(),
            }),
        }
    }
}

/// Which layer's feed-forward weight the tensor called `name` is, and which: `gate`, `up`, `down`, or `down_t`, which has a
/// row per neuron.
pub fn ffn_weight(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once(".ffn_")?;
    let known = matches!(part, "gate" | "up" | "down" | "down_t");
    Some((layer.parse().ok().filter(|_| known)?, part))
}

/// Trailing dimensions of 1 do not count.
fn expect_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<(), Error> {
    let significant = |dims: &[usize]| dims.iter().rposition(|d| *d != 1).map_or(0, |i| i + 1);
    if found[..significant(found)] == expected[..significant(expected)] {
        return Ok(());
    }
    Err(Error::TensorShape { name: name.to_owned(), expected: expected.to_vec(), found: found.to_vec() })
}
