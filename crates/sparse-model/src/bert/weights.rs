//! A BERT model's tensors, converted to what the forward pass reads.

use sparse_core::{Matrix, Storage};

use super::dense::Dense;
use super::sparse::Sparse;
use super::tensors::Tensors;
use super::{BertConfig, EncoderFormat, EncoderOptions, EncoderSparsity};
use crate::Error;

/// Values of the token embedding that are read and converted at a time.
const CHUNK: usize = 1 << 18;

/// Weight and bias of a layer norm.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Tensors of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// Query, key and value, one below the other.
    pub(super) query_key_value: Dense,
    pub(super) attention_output: Dense,
    pub(super) attention_norm: Norm,
    pub(super) up: Dense,
    pub(super) down: Dense,
    /// `up` and `down` again, if they may leave out neurons.
    pub(super) sparse: Option<Sparse>,
    pub(super) output_norm: Norm,
}

/// All tensors of a model.
#[derive(Debug)]
pub(super) struct Weights {
    /// `[vocabulary x embedding]`.
    pub(super) tokens: Matrix,
    /// Embedding of each position plus that of the first token type, `[positions x embedding]`.
    pub(super) positions: Vec<f32>,
    pub(super) embedding_norm: Norm,
    pub(super) layers: Vec<Layer>,
}

impl Weights {
    /// Reads the tensors that `config` implies; every tensor of the file must be one of them.
    pub(super) fn load(
        tensors: &Tensors<'_>,
        config: &BertConfig,
        options: &EncoderOptions,
    ) -> Result<Self, Error> {
        let format = options.format;
        let width = config.embedding;
        let norm = |name: &str| {
            Ok::<_, Error>(Norm {
                weight: tensors.vector(&format!("{name}.weight"), width)?,
                bias: tensors.vector(&format!("{name}.bias"), width)?,
            })
        };
        let dense = |format, names: &[String], rows: usize, cols: usize| {
            let (mut weights, mut bias) = (Vec::new(), Vec::new());
            for name in names {
                weights.extend(tensors.matrix(&format!("{name}.weight"), rows, cols)?);
                bias.extend(tensors.vector(&format!("{name}.bias"), rows)?);
            }
            Dense::new(format, &format!("{}.weight", names[0]), cols, weights, bias)
        };
        let sparse = |i: usize| {
            if options.sparsity == EncoderSparsity::Dense {
                return Ok(None);
            }
            let part = |part: &str, rows, cols| {
                let name = format!("blk.{i}.{part}");
                let weights = tensors.matrix(&format!("{name}.weight"), rows, cols)?;
                Ok::<_, Error>((weights, tensors.vector(&format!("{name}.bias"), rows)?))
            };
            let (up, down) =
                (part("ffn_up", config.feed_forward, width)?, part("ffn_down", width, config.feed_forward)?);
            Sparse::new(
                config,
                options.feed_forward.unwrap_or(format),
                &format!("blk.{i}"),
                (&up.0, up.1),
                (&down.0, down.1),
            )
            .map(Some)
        };
        let types = tensors.matrix("token_types.weight", config.token_types, width)?;
        let rows = config.positions.saturating_add(config.position_offset);
        let mut positions = tensors.matrix("position_embd.weight", rows, width)?;
        positions.drain(..config.position_offset * width);
        for position in positions.chunks_mut(width) {
            position.iter_mut().zip(&types).for_each(|(p, t)| *p += t);
        }
        // Files may state any number of layers; stop at the first that is not there.
        let mut layers = Vec::new();
        for i in 0..config.layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            let feed_forward = |part: &str, rows, cols| {
                dense(options.feed_forward.unwrap_or(format), &[name(part)], rows, cols)
            };
            layers.push(Layer {
                query_key_value: dense(format, &["attn_q", "attn_k", "attn_v"].map(name), width, width)?,
                attention_output: dense(format, &[name("attn_output")], width, width)?,
                attention_norm: norm(&name("attn_output_norm"))?,
                up: feed_forward("ffn_up", config.feed_forward, width)?,
                down: feed_forward("ffn_down", width, config.feed_forward)?,
                sparse: sparse(i)?,
                output_norm: norm(&name("layer_output_norm"))?,
            });
        }
        let weights = Self {
            tokens: token_embedding(tensors, config, format)?,
            positions,
            embedding_norm: norm("token_embd_norm")?,
            layers,
        };
        tensors.all_used()?;
        Ok(weights)
    }

    /// Bytes of all matrices.
    pub(super) fn bytes(&self) -> usize {
        let layers =
            self.layers.iter().flat_map(|l| [&l.query_key_value, &l.attention_output, &l.up, &l.down]);
        let sparse = self.layers.iter().filter_map(|l| l.sparse.as_ref());
        let sparse = sparse.map(|s| s.ffn.bytes() + s.ffn.selector().bytes()).sum::<usize>();
        self.tokens.bytes() + size_of_val(&*self.positions) + layers.map(Dense::bytes).sum::<usize>() + sparse
    }
}

/// The embedding of the tokens: most of a small model's bytes, so that it is never in memory as a whole but in its format.
fn token_embedding(
    tensors: &Tensors<'_>,
    config: &BertConfig,
    format: EncoderFormat,
) -> Result<Matrix, Error> {
    const NAME: &str = "token_embd.weight";
    let (rows, cols) = (config.vocabulary, config.embedding);
    let rounded = format.blocks(cols);
    let format = rounded.blocks();
    let name = tensors.expect(NAME, &[rows, cols])?;
    let fault = |problem: String| Error::Tensor { name: name.clone(), problem };
    let row_bytes = format
        .row_bytes(cols)
        .ok_or_else(|| fault(format!("rows of {cols} values cannot be stored in {}", format.name())))?;
    let some = (CHUNK / cols).clamp(1, rows);
    let mut values = vec![0.0; some * cols];
    let mut converted: Result<(), Error> = Ok(());
    let storage = Storage::filled(rows * row_bytes, |bytes| {
        let parts = bytes.chunks_mut(some * row_bytes).enumerate();
        converted = parts.into_iter().try_for_each(|(i, bytes)| {
            let values = &mut values[..bytes.len() / row_bytes * cols];
            tensors.read(&name, i * some * cols, values)?;
            bytes.copy_from_slice(&rounded.quantize(cols, values, None).map_err(fault)?);
            Ok(())
        });
    });
    converted?;
    Matrix::new(format, cols, storage).map_err(|e| fault(e.to_string()))
}
