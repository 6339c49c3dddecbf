//! A language model's tensors, taken out of a GGUF file without copying the large ones.

mod experts;
#[cfg(feature = "fs")]
pub(crate) mod neurons;
#[cfg(feature = "fs")]
pub(crate) mod records;
#[cfg(feature = "fs")]
pub(crate) mod stored;
#[cfg(feature = "fs")]
mod watched;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use half::f16;
use sparse_core::{
    Down, Linear, LowRankPredictor, Matrix, PredictorInput, Rule, Selector, SparseFfn, Storage, StoredExperts,
};
use sparse_gguf::{BlockFormat, GgmlType, Gguf, SharedBytes, TensorInfo, TensorView, i2_s_to_tq2_0};

use crate::activation::ActivationSource;
use crate::config::{AttentionSpec, FeedForwardSpec, LayerSpec, Mixer, ModelConfig, NormKind, QkNorm};
use crate::rope::RopeConfig;
use crate::{Error, FeedForward, arch};

/// Tensors of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) mixer_norm: Option<Norm>,
    pub(crate) mixer: MixerWeights,
    pub(crate) mixer_post_norm: Option<Norm>,
    pub(crate) ffn_norm: Option<Norm>,
    pub(crate) ffn: FeedForward,
    pub(crate) ffn_post_norm: Option<Norm>,
}

/// Tensors of a token mixer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a layer has one, and most are the larger")]
pub(crate) enum MixerWeights {
    Attention(Attention),
    ShortConv(ShortConv),
}

/// Tensors of attention.
#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) spec: AttentionSpec,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) query_norm: Option<Norm>,
    pub(crate) key_norm: Option<Norm>,
    pub(crate) sub_norm: Option<Norm>,
    /// A score per query head, or none.
    pub(crate) sinks: Vec<f32>,
    pub(crate) output: Linear,
}

/// Tensors of a gated short convolution.
#[derive(Debug)]
pub(crate) struct ShortConv {
    /// `[3 width x width]`: gate of the input, gate of the output, input.
    pub(crate) input: Linear,
    /// `[taps x width]`, oldest tap first.
    pub(crate) taps: Vec<f32>,
    pub(crate) output: Linear,
}

impl MixerWeights {
    /// The matrices, in the order of use.
    fn linears_mut(&mut self) -> [Option<&mut Linear>; 4] {
        match self {
            Self::Attention(a) => [&mut a.query, &mut a.key, &mut a.value, &mut a.output].map(Some),
            Self::ShortConv(c) => [Some(&mut c.input), Some(&mut c.output), None, None],
        }
    }

    /// Bytes that computing a token reads.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |l: &Linear| l.weight().bytes();
        match self {
            Self::Attention(a) => [&a.query, &a.key, &a.value, &a.output].into_iter().map(bytes).sum(),
            Self::ShortConv(c) => bytes(&c.input) + bytes(&c.output) + 4 * c.taps.len(),
        }
    }
}

/// A norm's weights; a layer norm has a bias, too.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A rotary embedding's angles per position, a value per pair.
#[derive(Debug)]
pub(crate) struct Frequencies {
    pub(crate) short: Vec<f32>,
    /// For contexts longer than this many tokens, if they have angles of their own.
    pub(crate) long: Option<(usize, Vec<f32>)>,
}

impl Frequencies {
    /// The angles of sessions of `context` tokens.
    pub(crate) fn of(&self, context: usize) -> &[f32] {
        match &self.long {
            Some((above, long)) if context > *above => long,
            _ => &self.short,
        }
    }
}

/// All tensors of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Token embedding, `[vocabulary x embedding]`; also the head when that is tied.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    /// The norm before the head, with the factor on the logits.
    pub(crate) output_norm: Norm,
    head: Option<Matrix>,
    /// Bias of the logits.
    pub(crate) head_bias: Option<Vec<f32>>,
    /// Of each of the configuration's rotary embeddings.
    pub(crate) frequencies: Vec<Frequencies>,
}

impl Weights {
    /// Takes the tensors that `config` implies; every tensor of the file must be one of them. Layers with `stored` experts
    /// leave those in the file.
    pub(crate) fn load(
        gguf: &Gguf,
        config: &ModelConfig,
        vocab: usize,
        stored: &[Option<StoredExperts>],
    ) -> Result<Self, Error> {
        let file = Source { gguf, config, stored, used: RefCell::default() };
        let width = config.embedding;
        let layers = config.layers.iter().enumerate().map(|(i, spec)| file.layer(i, spec));
        let layers = layers.collect::<Result<_, _>>()?;
        let optional = |name: &str| file.has(name).then(|| file.matrix(name, vocab, width)).transpose();
        let mut output_norm = file.norm(config.output_norm, width)?;
        for w in output_norm.weight.iter_mut().chain(output_norm.bias.iter_mut().flatten()) {
            *w *= config.logit_scale;
        }
        let weights = Self {
            embedding: file.matrix("token_embd.weight", vocab, width)?,
            layers,
            output_norm,
            head: optional("output.weight")?,
            head_bias: file.optional_vector("output.bias", vocab)?,
            frequencies: file.frequencies()?,
        };
        file.all_used()?;
        Ok(weights)
    }

    /// The output head, `[vocabulary x embedding]`: its own tensor, or the embedding when they are tied.
    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn head_mut(&mut self) -> &mut Matrix {
        self.head.as_mut().unwrap_or(&mut self.embedding)
    }

    /// The matrices that are always multiplied as a whole, in the order of use; the head among them if `with_head`.
    pub(crate) fn whole_matrices_mut(&mut self, with_head: bool) -> impl Iterator<Item = &mut Matrix> {
        let head = self.head.as_mut().or(Some(&mut self.embedding)).filter(|_| with_head);
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let mixer = layer.mixer.linears_mut().into_iter().flatten().filter_map(Linear::matrix_mut);
            mixer.chain(layer.ffn.whole_matrices_mut())
        });
        layers.chain(head)
    }
}

/// Whether a model without selectors and screen multiplies the tensor called `name`, if that is quantized, as a whole;
/// `tied` says whether the embedding is the head, too.
pub fn is_multiplied(name: &str, tied: bool) -> bool {
    let head = if tied { "token_embd.weight" } else { "output.weight" };
    name == head || name.starts_with("blk.") && !name.ends_with(".ffn_down_t.weight")
}

/// Whether the tensor called `name` has the weights or the biases of experts.
pub fn is_expert(name: &str) -> bool {
    name.ends_with("_exps.weight") || name.ends_with("_exps.bias")
}

/// The file that tensors are taken from, and which were.
struct Source<'a> {
    gguf: &'a Gguf,
    config: &'a ModelConfig,
    /// The experts of every layer, where they are read when they are needed.
    stored: &'a [Option<StoredExperts>],
    used: RefCell<HashSet<String>>,
}

impl Source<'_> {
    fn layer(&self, i: usize, spec: &LayerSpec) -> Result<Layer, Error> {
        let width = self.config.embedding;
        let norm = |wanted: bool, name: &str| {
            wanted.then(|| self.norm(&format!("blk.{i}.{name}"), width)).transpose()
        };
        Ok(Layer {
            mixer_norm: norm(spec.norms_before, "attn_norm")?,
            mixer: match &spec.mixer {
                Mixer::Attention(spec) => MixerWeights::Attention(self.attention(i, spec)?),
                Mixer::ShortConv { taps } => MixerWeights::ShortConv(self.short_conv(i, *taps)?),
            },
            mixer_post_norm: norm(spec.norms_after, "post_attention_norm")?,
            ffn_norm: norm(spec.norms_before, self.config.ffn_norm)?,
            ffn: match &spec.feed_forward.experts {
                None => FeedForward::Network(self.ffn(i, &spec.feed_forward)?),
                Some(experts) => FeedForward::Experts(self.experts(i, &spec.feed_forward, experts)?),
            },
            ffn_post_norm: norm(spec.norms_after, "post_ffw_norm")?,
        })
    }

    /// Attention of layer `i`. Some files have queries, keys and values in one matrix, `attn_qkv`.
    fn attention(&self, i: usize, spec: &AttentionSpec) -> Result<Attention, Error> {
        let (width, q_width, kv_width) = (self.config.embedding, spec.query_width(), spec.kv_width());
        let name = |part: &str| format!("blk.{i}.{part}");
        let [query, key, value] = match self.has(&name("attn_qkv.weight")) {
            true => {
                let rows = [q_width, kv_width, kv_width];
                self.fused(&name("attn_qkv"), rows, width)?
            }
            false => [
                self.linear(&name("attn_q"), q_width, width)?,
                self.linear(&name("attn_k"), kv_width, width)?,
                self.linear(&name("attn_v"), kv_width, width)?,
            ],
        };
        let qk_norm = |part: &str, all: usize| {
            let len = match spec.qk_norm {
                QkNorm::None => return Ok(None),
                QkNorm::Heads => spec.head_dim,
                QkNorm::Width => all,
            };
            self.rms_norm(&name(part), len).map(Some)
        };
        Ok(Attention {
            query,
            key,
            value,
            query_norm: qk_norm("attn_q_norm", q_width)?,
            key_norm: qk_norm("attn_k_norm", kv_width)?,
            sinks: match spec.sinks {
                true => self.vector(&name("attn_sinks.weight"), spec.heads)?,
                false => Vec::new(),
            },
            sub_norm: spec.sub_norm.then(|| self.rms_norm(&name("attn_sub_norm"), q_width)).transpose()?,
            output: self.linear(&name("attn_output"), width, q_width)?,
            spec: spec.clone(),
        })
    }

    fn short_conv(&self, i: usize, taps: usize) -> Result<ShortConv, Error> {
        let width = self.config.embedding;
        let name = |part: &str| format!("blk.{i}.shortconv.{part}");
        // A row of taps per channel.
        let conv = name("conv.weight");
        let per_channel = self.values(&conv, &[taps, width])?;
        let by_tap = (0..taps).flat_map(|t| per_channel.iter().skip(t).step_by(taps).copied());
        Ok(ShortConv {
            input: self.linear(&name("in_proj"), 3 * width, width)?,
            taps: by_tap.collect(),
            output: self.linear(&name("out_proj"), width, width)?,
        })
    }

    /// The feed-forward part of layer `i`. A file made for skipping neurons has `ffn_down_t`, a row per neuron, in place
    /// of `ffn_down` (the name is PowerInfer's). Some files have gate and up in one matrix, `ffn_up`.
    fn ffn(&self, i: usize, spec: &FeedForwardSpec) -> Result<SparseFfn, Error> {
        let (width, hidden) = (self.config.embedding, spec.neurons);
        let name = |part: &str| format!("blk.{i}.{part}");
        let transposed = name("ffn_down_t.weight");
        let unnamed = self.config.activation_source == ActivationSource::Architecture;
        if unnamed && self.has(&transposed) && !spec.activation.has_zeros() {
            return Err(arch::unnamed_activation(self.config, &format!("tensor {transposed}")));
        }
        let (gate, up) = match (spec.gated, self.has(&name("ffn_gate.weight"))) {
            (false, _) => (None, self.linear(&name("ffn_up"), hidden, width)?),
            (true, false) if self.rows(&name("ffn_up.weight")) == Some(2 * hidden) => {
                let [gate, up] = self.fused(&name("ffn_up"), [hidden, hidden], width)?;
                (Some(gate), up)
            }
            (true, _) => {
                let gate = self.linear(&name("ffn_gate"), hidden, width)?;
                (Some(gate), self.linear(&name("ffn_up"), hidden, width)?)
            }
        };
        let down = match self.has(&transposed) {
            true => Down::Neurons(self.matrix(&transposed, hidden, width)?.into()),
            false => Down::Rows(self.matrix(&name("ffn_down.weight"), width, hidden)?),
        };
        let ffn = match gate {
            Some(gate) => SparseFfn::gated(gate, up, down, spec.activation)?,
            None => SparseFfn::plain(up, down, spec.activation)?,
        };
        let ffn = ffn.with_up_activation(spec.up_activation);
        let mut ffn = match self.optional_vector(&name("ffn_down.bias"), width)? {
            Some(bias) => ffn.with_down_bias(bias)?,
            None => ffn,
        };
        if spec.sub_norm {
            let weight = self.vector(&name("ffn_sub_norm.weight"), hidden)?;
            ffn = ffn.with_hidden_norm(weight, self.config.norm_epsilon)?;
        }
        // Leaving out what is exactly zero costs nothing where the file is made for it.
        if spec.activation.has_zeros() && matches!(ffn.down(), Down::Neurons(_)) {
            ffn.set_selector(Selector::ExactZero)?;
        }
        if let Some(selector) = self.predictor(i, hidden)? {
            ffn.set_selector(selector)?;
        }
        Ok(ffn)
    }

    /// The selector of PowerInfer's files: `fc2 relu(fc1 x)` scores the neurons, given the residual stream before the norm.
    /// Those whose score is at least the file's threshold are computed.
    fn predictor(&self, i: usize, neurons: usize) -> Result<Option<Selector>, Error> {
        const THRESHOLD: &str = "powerinfer.sparse_threshold";
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        let Some(rank) = self.rows(&name("fc1")) else { return Ok(None) };
        let p = self.matrix(&name("fc1"), rank, self.config.embedding)?;
        let q = self.matrix(&name("fc2"), neurons, rank)?;
        let predictor = LowRankPredictor::new(p, q, vec![0.0; neurons])?.with_relu();
        let threshold = self.gguf.metadata().opt_f32(THRESHOLD)?.unwrap_or(0.0);
        if threshold.is_nan() {
            return Err(Error::metadata(THRESHOLD, "is NaN"));
        }
        Ok(Some(Selector::LowRank {
            predictor: predictor.with_input(PredictorInput::Own),
            // The rule keeps what is above it.
            rule: Rule::Threshold(threshold.next_down()),
        }))
    }

    /// Angles of all rotary embeddings, with the file's divisors.
    fn frequencies(&self) -> Result<Vec<Frequencies>, Error> {
        let divisors = |name: &str, pairs: usize| match self.optional_vector(name, pairs)? {
            Some(divisors) if divisors.iter().any(|d| *d <= 0.0) => {
                Err(fault(name, "holds values that are not positive"))
            }
            divisors => Ok(divisors),
        };
        let of = |rope: &RopeConfig| {
            let pairs = rope.dims / 2;
            let short = match divisors("rope_freqs.weight", pairs)? {
                Some(divisors) => Some(divisors),
                None => divisors("rope_factors_short.weight", pairs)?,
            };
            let long = divisors("rope_factors_long.weight", pairs)?;
            Ok(Frequencies {
                short: rope.frequencies(short.as_deref()),
                long: long.map(|long| (rope.original_context, rope.frequencies(Some(&long)))),
            })
        };
        self.config.ropes.iter().map(of).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.gguf.info(name).is_some()
    }

    /// Rows of a matrix that may be in the file.
    fn rows(&self, name: &str) -> Option<usize> {
        self.gguf.info(name).map(TensorInfo::rows)
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error> {
        self.parts(name, [rows], cols).map(|[matrix]| matrix)
    }

    /// Matrices that the file has as one, below each other.
    fn parts<const N: usize>(&self, name: &str, rows: [usize; N], cols: usize) -> Result<[Matrix; N], Error> {
        let parts = self.rows_of(name, &[cols, rows.iter().sum()], rows)?;
        Ok(parts.try_into().expect("as many as rows"))
    }

    /// The tensor called `name`, which must have the shape `dims`, taken apart into so many rows each.
    fn rows_of(
        &self,
        name: &str,
        dims: &[usize],
        rows: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Matrix>, Error> {
        let tensor = self.take(name, dims)?;
        let (format, owner, all) = self.blocks(name, tensor)?;
        let row_bytes = all.len() / tensor.info.rows().max(1);
        let mut end = all.start;
        let part = |rows: usize| {
            let start = end;
            end += rows * row_bytes;
            let storage = Storage::Shared { owner: owner.clone(), range: start..end };
            Matrix::new(format, dims[0], storage).map_err(|e| fault(name, e.to_string()))
        };
        rows.into_iter().map(part).collect()
    }

    /// A matrix's format, and where its blocks are: in the file, unless it takes other blocks to multiply with them. Matrices
    /// in ternary formats and NVFP4 may have a scale of their own (`NAME.scale`, one per expert), which their blocks take in.
    fn blocks(
        &self,
        name: &str,
        tensor: TensorView<'_>,
    ) -> Result<(BlockFormat, SharedBytes, Range<usize>), Error> {
        let repacked = match tensor.info.ty {
            GgmlType::I2_S => Some(i2_s_to_tq2_0(tensor)?),
            _ => None,
        };
        let format = if repacked.is_some() { BlockFormat::Tq2_0 } else { tensor.info.format()? };
        let beside = |what: &str| name.strip_suffix(".weight").map(|name| format!("{name}.{what}"));
        // For products that round their inputs to four bits, as none here does.
        self.used.borrow_mut().extend(beside("input_scale"));
        let scale = beside("scale").filter(|scale| self.has(scale));
        let (format, repacked) = match scale {
            None => (format, repacked),
            Some(scale) => {
                let factors = self.vector(&scale, tensor.info.dims.get(2).copied().unwrap_or(1))?;
                if factors.iter().all(|factor| *factor == 1.0) {
                    (format, repacked)
                } else {
                    let blocks = repacked.as_deref().unwrap_or(tensor.data);
                    let (format, blocks) =
                        scaled(format, blocks, &factors).map_err(|problem| fault(&scale, problem))?;
                    (format, Some(blocks))
                }
            }
        };
        match repacked {
            None => self.gguf.shared(name).map(|(owner, all)| (format, owner, all)).map_err(Error::from),
            Some(blocks) => {
                let all = 0..blocks.len();
                Ok((format, Arc::new(blocks), all))
            }
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.values(name, &[len])
    }

    fn values(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
        let values = self.take(name, dims)?.dequantize()?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(fault(name, format!("value {i} is {}, not a finite number", values[i]))),
        }
    }

    /// The tensor called `name`, which must have this shape.
    fn take(&self, name: &str, dims: &[usize]) -> Result<TensorView<'_>, Error> {
        let tensor = self.gguf.tensor(name)?;
        expect_shape(name, &tensor.info.dims, dims)?;
        self.used.borrow_mut().insert(name.to_owned());
        Ok(tensor)
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, Error> {
        self.fused(name, [rows], cols).map(|[linear]| linear)
    }

    /// Maps that the file has as one, below each other.
    fn fused<const N: usize>(&self, name: &str, rows: [usize; N], cols: usize) -> Result<[Linear; N], Error> {
        let weights = self.parts(&format!("{name}.weight"), rows, cols)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows.iter().sum())?;
        let mut rest = bias.as_deref();
        let mut out = Vec::with_capacity(N);
        for weight in weights {
            let bias = rest.map(|b| b.split_at(weight.rows()));
            rest = bias.map(|b| b.1);
            out.push(Linear::new(weight, bias.map(|b| b.0.to_vec()))?);
        }
        Ok(out.try_into().expect("as many as weights"))
    }

    /// A norm of the residual stream.
    fn norm(&self, name: &str, len: usize) -> Result<Norm, Error> {
        let mut norm = self.rms_norm(name, len)?;
        if self.config.norm == NormKind::Layer {
            norm.bias = Some(match self.optional_vector(&format!("{name}.bias"), len)? {
                Some(bias) => bias,
                None => vec![0.0; len],
            });
        }
        Ok(norm)
    }

    fn rms_norm(&self, name: &str, len: usize) -> Result<Norm, Error> {
        Ok(Norm { weight: self.vector(&format!("{name}.weight"), len)?, bias: None })
    }

    /// A tensor that nothing reads means that the model is not quite what it says: better no answer than a
    /// wrong one.
    fn all_used(&self) -> Result<(), Error> {
        let used = self.used.borrow();
        match self.gguf.tensors().find(|t| !used.contains(&t.name)) {
            None => Ok(()),
            Some(t) => {
                let name = self.config.architecture;
                let problem = format!("is not part of the {name} architecture as its metadata describes it");
                Err(fault(&t.name, problem))
            }
        }
    }
}

/// Blocks whose scales are larger by a factor, each for its share of the blocks. The error is a problem in words.
fn scaled(format: BlockFormat, blocks: &[u8], factors: &[f32]) -> Result<(BlockFormat, Vec<u8>), String> {
    let shares = blocks.chunks((blocks.len() / factors.len()).max(1)).zip(factors);
    let shares = shares.map(|(share, factor)| (share.chunks_exact(format.block_bytes()), *factor));
    match format {
        BlockFormat::Tq1_0 | BlockFormat::Tq2_0 => {
            let mut out = Vec::with_capacity(blocks.len());
            for (blocks, factor) in shares {
                for block in blocks {
                    let (codes, d) = block.split_last_chunk::<2>().expect("a block ends in its scale");
                    let scale = f16::from_le_bytes(*d).to_f32() * factor;
                    let rounded = f16::from_f32(scale);
                    if !rounded.is_finite() {
                        return Err(format!("is {factor}, which takes a block's scale to {scale}"));
                    }
                    out.extend_from_slice(codes);
                    out.extend(rounded.to_le_bytes());
                }
            }
            Ok((format, out))
        }
        BlockFormat::NvFp4 => {
            let mut out = Vec::with_capacity(
                blocks.len() * BlockFormat::NvFp4Scaled.block_bytes() / format.block_bytes(),
            );
            for (blocks, factor) in shares {
                blocks.for_each(|block| out.extend([&factor.to_le_bytes(), block].concat()));
            }
            Ok((BlockFormat::NvFp4Scaled, out))
        }
        _ => Err(format!(
            "is {}: a scale beside a matrix is supported for TQ1_0, TQ2_0, I2_S and NVFP4, not {}",
            factors[0],
            format.name()
        )),
    }
}

fn fault(name: &str, problem: impl Into<String>) -> Error {
    Error::Tensor { name: name.to_owned(), problem: problem.into() }
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
