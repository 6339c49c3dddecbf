//! `gen`: files of exact shapes with random weights.

mod experts;
mod idle;
mod published;
mod story;
mod vocabulary;

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use sparse_gguf::{BlockFormat, GgufWriter, Metadata};
use sparse_testdata::Weights;

use crate::interrupt;
use idle::{Gates, Idle, IdleGate};

/// Standard deviation of most weights.
const DEVIATION: f32 = 0.02;

/// Writes a GGUF file of an exact shape with random weights.
///
/// For measuring and testing: the text it generates is noise. Weights have mean 0 and a standard deviation of 0.02,
/// the tokenizer is SentencePiece with byte fallback. The same seed gives the same file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shape.
    name: Name,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Format of all matrices, norms being F32: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K,
    /// Q6_K, IQ4_NL, TQ2_0 and others. Shapes with idle neurons: F32 to Q8_0, and TQ2_0.
    #[arg(long, default_value = "Q4_K", value_parser = format)]
    format: BlockFormat,
    /// Seed of the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Layers, if not as many as the shape has: fewer make a smaller file, which measures the same kernels.
    #[arg(long)]
    layers: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// 2 layers of 2048/5632, 32 heads, 4 key-value heads, 512 tokens: 90 million weights.
    Tiny,
    /// 22 layers of 2048/5632, 32 heads, 4 key-value heads, 32000 tokens (TinyLlama's shape): 1.1 billion weights.
    Wide,
    /// The same shape with ReLU, gates of low rank and biases that leave nine neurons in ten idle: a model as sparse as
    /// training can make them. For the formats F32 to Q8_0.
    Idle,
    /// 24 layers of 2048/16384 with ReLU, 4 key-value heads, 8192 tokens: nine tenths of the weights are feed-forward. 3 % of
    /// the neurons are active, and a quarter of them makes 80 % of that: for memory budgets. For the formats F32 to Q8_0.
    /// 2.7 billion weights.
    Hot,
    /// 20 layers of 2048/16384, 32 heads, 4096 tokens: the story model's architecture eight times as wide, with as many idle
    /// neurons in its layers as the story model has in its own (each of its five four times). 2.3 billion weights.
    Story,
    /// 32 layers of 4096/11008, 32 heads, 32000 tokens (Llama-7B's shape): 6.7 billion weights.
    #[value(name = "7b")]
    SevenB,
    /// 16 layers of 64 experts of 2048/1024, 8 used by a token, 16 heads, 32000 tokens (OLMoE's shape): 6.8 billion
    /// weights. Experts are equally likely: the hardest case for a cache.
    Olmoe,
    /// 24 layers of 32 experts of 2880/2880, 4 used by a token, 64 heads, 32000 tokens (gpt-oss-20b's shape): 20 billion
    /// weights. Experts are in MXFP4, as published; for the formats with blocks of 32 values.
    #[value(name = "gpt-oss-20b")]
    GptOss,
    /// SparseLM-2B: 38 layers of 2048/5632, ReLU, 3 % of the neurons active. 2.1 billion weights.
    #[value(name = "sparselm-2b")]
    SparseLm,
    /// SparseQwen2-7B: 28 layers of 3584/18944, ReLU on gate and up, 10 % active. 7.6 billion weights.
    #[value(name = "sparseqwen2-7b")]
    SparseQwen2,
    /// AFM-4.5B: 36 layers of 2560/18432 without gates, squared ReLU, 15 % active. 4.6 billion weights.
    #[value(name = "afm-4.5b")]
    Afm,
    /// BitNet-b1.58-2B-4T: 30 layers of 2560/6912, squared ReLU, a head of 128,256 in F16, 20 % active. For the format
    /// TQ2_0. 2.4 billion weights.
    #[value(name = "bitnet-2b")]
    BitNet,
    /// SmallThinker-4B-A0.6B as one expert: 32 layers of 1536/3072, ReLU, 40 % active. 1.1 billion weights.
    #[value(name = "smallthinker-4b")]
    SmallThinker,
}

struct Shape {
    layers: usize,
    width: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    context: u32,
    /// Deviation of the embedding's weights.
    embedding: f32,
    /// Whether `down` has a row per neuron.
    neuron_major: bool,
    /// How many gates are above zero, and how a predictor could know; otherwise gates are as random as the rest.
    idle: Option<Idle>,
    family: Family,
}

/// What differs between architectures.
#[derive(Clone, Copy)]
struct Family {
    /// `general.architecture`.
    name: &'static str,
    /// `NAME.hidden_activation`, where it is not the architecture's own.
    activation: Option<&'static str>,
    /// Whether neurons have gates.
    gated: bool,
    /// Whether the embedding is the head, too.
    tied: bool,
    /// Width of a head, where it is not the width over the number of heads.
    head_dim: Option<usize>,
    /// Name of the norm before the feed-forward network.
    ffn_norm: &'static str,
    /// The matrices that have biases.
    biases: &'static [&'static str],
    /// Whether there are norms of all queries and of all keys.
    qk_norms: bool,
    /// Whether heads have sinks.
    sinks: bool,
    /// Whether there are norms before both output projections.
    sub_norms: bool,
    /// Experts per layer and per token; `feed_forward` is the length of each.
    experts: Option<(usize, usize)>,
    /// Format of the embedding, where it is not that of all matrices.
    embedding_format: Option<BlockFormat>,
    /// Format of experts, where it is not that of all matrices.
    expert_format: Option<BlockFormat>,
    /// Adds the keys that the others do not have.
    keys: fn(&mut Metadata),
}

const LLAMA: Family = Family {
    name: "llama",
    activation: None,
    gated: true,
    tied: false,
    head_dim: None,
    ffn_norm: "ffn_norm",
    biases: &[],
    qk_norms: false,
    sinks: false,
    sub_norms: false,
    experts: None,
    embedding_format: None,
    expert_format: None,
    keys: |_| (),
};

impl Name {
    fn shape(self) -> Result<Shape> {
        let wide = Shape {
            layers: 22,
            width: 2048,
            feed_forward: 5632,
            heads: 32,
            kv_heads: 4,
            vocabulary: 32000,
            context: 2048,
            embedding: DEVIATION,
            neuron_major: false,
            idle: None,
            family: LLAMA,
        };
        Ok(match self {
            Self::Tiny => Shape { layers: 2, vocabulary: 512, ..wide },
            Self::Wide => wide,
            Self::Idle => Shape {
                idle: Some(Idle { rank: 16, densities: vec![0.1], spread: 0.0 }),
                family: Family { activation: Some("relu"), ..LLAMA },
                ..wide
            },
            Self::Hot => published::hot(),
            Self::Story => story::shape(&story::densities()?),
            Self::Olmoe => experts::olmoe(),
            Self::GptOss => experts::gpt_oss(),
            Self::SevenB => Shape { layers: 32, width: 4096, feed_forward: 11008, kv_heads: 32, ..wide },
            Self::SparseLm => published::sparselm(),
            Self::SparseQwen2 => published::sparseqwen2(),
            Self::Afm => published::afm(),
            Self::BitNet => published::bitnet(),
            Self::SmallThinker => published::smallthinker(),
        })
    }

    fn text(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

fn format(name: &str) -> Result<BlockFormat, String> {
    let find = |f: &BlockFormat| f.name().eq_ignore_ascii_case(name);
    BlockFormat::GGML
        .into_iter()
        .find(find)
        .ok_or_else(|| format!("expected one of {}", BlockFormat::GGML.map(BlockFormat::name).join(", ")))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut shape = args.name.shape()?;
    if let Some(layers) = args.layers {
        shape.layers = layers.get();
    }
    let tensors = shape.tensors(args.format);
    let mut writer = GgufWriter::new(shape.metadata(args)?);
    for t in &tensors {
        writer.tensor(&t.name, &t.dims, t.format)?;
    }
    let mut file =
        writer.create(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let mut biases = Vec::new();
    for (stream, t) in (0..).zip(&tensors) {
        match t.content {
            Content::Random => {
                let mut weights = Weights::new(t.format, t.mean, t.deviation, args.seed, stream);
                let mut row = vec![0; t.format.row_bytes(t.dims[0]).context("a row has whole blocks")?];
                for _ in 0..t.rows() {
                    interrupt::check()?;
                    weights.fill(&mut row);
                    file.write(&t.name, &row)?;
                }
            }
            Content::Gate(gates) => {
                let mut gate = IdleGate::new(gates, t.dims[0], t.deviation, args.seed, stream)?;
                for _ in 0..t.rows() {
                    interrupt::check()?;
                    file.write(&t.name, &gate.row(t.format)?)?;
                }
                biases = gate.biases();
            }
            Content::Biases => file.write(&t.name, &biases)?,
        }
    }
    file.finish()?;
    let count: usize = tensors.iter().map(|t| t.dims.iter().product::<usize>()).sum();
    println!(
        "{}: {} tensors, {:.1} million random weights, {:.1} MB",
        args.out.display(),
        tensors.len(),
        count as f64 / 1e6,
        fs::metadata(&args.out)?.len() as f64 / 1e6
    );
    Ok(())
}

/// A tensor to be made up.
struct Tensor {
    name: String,
    dims: Vec<usize>,
    format: BlockFormat,
    mean: f32,
    deviation: f32,
    content: Content,
}

impl Tensor {
    fn rows(&self) -> usize {
        self.dims[1..].iter().product()
    }
}

/// What a tensor is filled with.
#[derive(Clone, Copy)]
enum Content {
    Random,
    /// Rows of which a share is above zero, with the biases that follow.
    Gate(Gates),
    /// The biases of the tensor before.
    Biases,
}

impl Shape {
    fn head_dim(&self) -> usize {
        self.family.head_dim.unwrap_or(self.width / self.heads)
    }

    fn metadata(&self, args: &Args) -> Result<Metadata> {
        let name = args.name.text();
        let family = self.family.name;
        let mut m = Metadata::new();
        m.insert("general.architecture", family);
        m.insert("general.name", format!("random weights, shape {name}, seed {}", args.seed));
        m.insert(
            "general.description",
            "Random weights for measuring and testing, made by cargo xtask gen. Not a trained model.",
        );
        m.insert("general.quantization_version", 2u32);
        for (key, n) in [
            ("block_count", self.layers),
            ("embedding_length", self.width),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", self.head_dim()),
            ("attention.key_length", self.head_dim()),
            ("attention.value_length", self.head_dim()),
            ("vocab_size", self.vocabulary),
        ] {
            m.insert(format!("{family}.{key}"), n as u32);
        }
        m.insert(format!("{family}.context_length"), self.context);
        m.insert(format!("{family}.attention.layer_norm_rms_epsilon"), 1e-5_f32);
        m.insert(format!("{family}.rope.freq_base"), 10_000.0_f32);
        if let Some((count, used)) = self.family.experts {
            m.insert(format!("{family}.expert_count"), count as u32);
            m.insert(format!("{family}.expert_used_count"), used as u32);
        }
        if let Some(activation) = self.family.activation {
            m.insert(format!("{family}.hidden_activation"), activation);
        }
        (self.family.keys)(&mut m);
        let tokens = vocabulary::tokens(self.vocabulary);
        ensure!(tokens.len() == self.vocabulary, "there are only {} pieces", tokens.len());
        vocabulary::insert(tokens, &mut m);
        Ok(m)
    }

    fn tensors(&self, format: BlockFormat) -> Vec<Tensor> {
        let (q_width, kv_width) = (self.head_dim() * self.heads, self.head_dim() * self.kv_heads);
        let matrix = |name: String, rows: usize, cols: usize| Tensor {
            name,
            dims: vec![cols, rows],
            format,
            mean: 0.0,
            deviation: DEVIATION,
            content: Content::Random,
        };
        let norm = |name: String, len: usize| Tensor {
            name,
            dims: vec![len],
            format: BlockFormat::F32,
            mean: 1.0,
            deviation: 0.1,
            content: Content::Random,
        };
        let bias = |i: usize, part: &str, dims: Vec<usize>| Tensor {
            mean: 0.0,
            dims,
            ..norm(format!("blk.{i}.{part}.bias"), 0)
        };
        let embedding = matrix("token_embd.weight".into(), self.vocabulary, self.width);
        let mut tensors = vec![Tensor {
            deviation: self.embedding,
            format: self.family.embedding_format.unwrap_or(format),
            ..embedding
        }];
        let down = match self.neuron_major {
            true => ("ffn_down_t", self.feed_forward, self.width),
            false => ("ffn_down", self.width, self.feed_forward),
        };
        let gate = self.family.gated.then_some(("ffn_gate", self.feed_forward, self.width));
        for i in 0..self.layers {
            let of = |part: &str| format!("blk.{i}.{part}.weight");
            tensors.push(norm(of("attn_norm"), self.width));
            tensors.push(norm(of(self.family.ffn_norm), self.width));
            if self.family.sub_norms {
                tensors.push(norm(of("attn_sub_norm"), q_width));
                tensors.push(norm(of("ffn_sub_norm"), self.feed_forward));
            }
            let attention = [
                ("attn_q", q_width, self.width),
                ("attn_k", kv_width, self.width),
                ("attn_v", kv_width, self.width),
                ("attn_output", self.width, q_width),
            ];
            let ffn = gate.into_iter().chain([("ffn_up", self.feed_forward, self.width), down]);
            let ffn = ffn.filter(|_| self.family.experts.is_none());
            for (part, rows, cols) in attention.into_iter().chain(ffn) {
                let content = self.content(i, part);
                tensors.push(Tensor { content, ..matrix(of(part), rows, cols) });
                match content {
                    Content::Gate(_) => {
                        tensors.push(Tensor { content: Content::Biases, ..bias(i, part, vec![rows]) });
                    }
                    _ if self.family.biases.contains(&part) => tensors.push(bias(i, part, vec![rows])),
                    _ => {}
                }
            }
            if self.family.qk_norms {
                tensors.push(norm(of("attn_q_norm"), q_width));
                tensors.push(norm(of("attn_k_norm"), kv_width));
            }
            if self.family.sinks {
                tensors.push(Tensor { mean: 0.0, ..norm(of("attn_sinks"), self.heads) });
            }
            if let Some((count, _)) = self.family.experts {
                let router = matrix(of("ffn_gate_inp"), count, self.width);
                tensors.push(Tensor { format: BlockFormat::F32, ..router });
                for (part, rows, cols) in [
                    ("ffn_gate_exps", self.feed_forward, self.width),
                    ("ffn_up_exps", self.feed_forward, self.width),
                    ("ffn_down_exps", self.width, self.feed_forward),
                ] {
                    tensors.push(Tensor {
                        dims: vec![cols, rows, count],
                        format: self.family.expert_format.unwrap_or(format),
                        ..matrix(of(part), rows, cols)
                    });
                    if self.family.biases.contains(&part) {
                        tensors.push(bias(i, part, vec![rows, count]));
                    }
                }
                if self.family.biases.contains(&"ffn_gate_inp") {
                    tensors.push(bias(i, "ffn_gate_inp", vec![count]));
                }
            }
        }
        tensors.push(norm("output_norm.weight".into(), self.width));
        if !self.family.tied {
            tensors.push(matrix("output.weight".into(), self.vocabulary, self.width));
        }
        tensors
    }

    /// What a matrix of layer `i` is filled with. Of two matrices that decide together who is idle, each
    /// lets the root of the share through.
    fn content(&self, i: usize, part: &str) -> Content {
        let Some(idle) = &self.idle else { return Content::Random };
        let gates = |density| Content::Gate(Gates { rank: idle.rank, density, spread: idle.spread });
        match (part, self.family.activation) {
            ("ffn_gate" | "ffn_up", Some("drelu")) => gates(idle.density(i).sqrt()),
            ("ffn_gate", _) => gates(idle.density(i)),
            ("ffn_up", _) if !self.family.gated => gates(idle.density(i)),
            _ => Content::Random,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparse_gguf::Gguf;

    #[test]
    fn shapes_have_the_weights_their_names_promise() {
        let of_name = |name: Name| name.shape().unwrap();
        for (shape, millions) in [
            (of_name(Name::Tiny), 90),
            (of_name(Name::Wide), 1_100),
            (of_name(Name::SevenB), 6_738),
            (of_name(Name::Olmoe), 6_844),
            (of_name(Name::GptOss), 19_940),
            (of_name(Name::Hot), 2_676),
            (story::shape(&[0.1; 5]), 2_365),
            (of_name(Name::SparseLm), 2_053),
            (of_name(Name::SparseQwen2), 7_616),
            (of_name(Name::Afm), 4_619),
            (of_name(Name::BitNet), 2_413),
            (of_name(Name::SmallThinker), 1_096),
        ] {
            let count: usize =
                shape.tensors(BlockFormat::Q4_0).iter().map(|t| t.dims.iter().product::<usize>()).sum();
            assert_eq!(count / 1_000_000, millions);
        }
    }

    #[test]
    fn the_tiny_file_opens_and_is_labelled() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tiny.gguf");
        run(&Args { name: Name::Tiny, out: out.clone(), format: BlockFormat::Q2K, seed: 5, layers: None })
            .unwrap();
        let gguf = Gguf::open(out).unwrap();
        assert_eq!(gguf.tensors().len(), 3 + 2 * 9);
        assert_eq!(
            gguf.metadata().opt_string("general.name").unwrap(),
            Some("random weights, shape tiny, seed 5")
        );
        assert!(
            gguf.metadata().opt_string("general.description").unwrap().unwrap().contains("Not a trained")
        );
        let up = gguf.tensor("blk.1.ffn_up.weight").unwrap().dequantize().unwrap();
        assert!(up.iter().all(|w| w.is_finite() && w.abs() < 0.3));
    }

    #[test]
    fn as_many_idle_neurons_as_asked_for() {
        for (rank, density) in [(16, 0.1), (64, 0.03), (64, 0.3)] {
            let found = shares(Gates { rank, density, spread: 0.0 }).iter().sum::<f64>() / 400.0;
            assert!((found / density - 1.0).abs() < 0.2, "{found} of {density}");
        }
        assert!(gate(16, 0.1).row(BlockFormat::Q4K).is_err());
    }

    #[test]
    fn a_quarter_of_the_neurons_makes_four_fifths() {
        let mut shares = shares(Gates { rank: 64, density: 0.05, spread: published::SPREAD });
        shares.sort_by(|a, b| b.total_cmp(a));
        let (hot, all): (f64, f64) = (shares[..104].iter().sum(), shares.iter().sum());
        assert!((0.7..0.9).contains(&(hot / all)), "{hot} of {all}");
        assert!((10.0..30.0).contains(&all), "{all}");
    }

    #[test]
    fn published_shapes_have_the_tensors_of_their_architectures() {
        for (name, format, tensors) in [
            (Name::SparseLm, BlockFormat::Q4_0, 2 + 10),
            (Name::SparseQwen2, BlockFormat::Q4_0, 3 + 14),
            (Name::Afm, BlockFormat::Q4_0, 3 + 9),
            (Name::BitNet, BlockFormat::Tq2_0, 2 + 12),
            (Name::SmallThinker, BlockFormat::Q4_0, 3 + 10),
            (Name::Olmoe, BlockFormat::Q4_0, 3 + 12),
            (Name::GptOss, BlockFormat::Q8_0, 3 + 19),
        ] {
            let mut shape = name.shape().unwrap();
            shape.layers = 1;
            let found = shape.tensors(format);
            assert_eq!(found.len(), tensors, "{}", name.text());
            if shape.family.experts.is_some() {
                continue;
            }
            let biased = found.iter().filter(|t| matches!(t.content, Content::Gate(_))).count();
            assert_eq!(biased, if shape.family.activation == Some("drelu") { 2 } else { 1 });
        }
        let ternary: Vec<u8> = gate(16, 0.1).row(BlockFormat::Tq2_0).unwrap();
        let mut values = [0.0; 256];
        BlockFormat::Tq2_0.decode(&ternary, &mut values).unwrap();
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        assert!((50..120).contains(&zeros), "{zeros} of 256 are zero");
    }

    fn gate(rank: usize, density: f64) -> IdleGate {
        IdleGate::new(Gates { rank, density, spread: 0.0 }, 256, 0.02, 1, 7).unwrap()
    }

    /// Share of 50 random inputs that each of 400 gates is above zero for.
    fn shares(gates: Gates) -> Vec<f64> {
        let inputs = 256;
        let mut gate = IdleGate::new(gates, inputs, 0.02, 1, 7).unwrap();
        let rows: Vec<Vec<u8>> = (0..400).map(|_| gate.row(BlockFormat::F32).unwrap()).collect();
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        let biases = gate.biases();
        let mut shares = vec![0.0; rows.len()];
        for t in 0..50_u64 {
            let mut x = vec![0; 4 * inputs];
            Weights::new(BlockFormat::F32, 0.0, 1.0, 9, t).fill(&mut x);
            for ((row, bias), share) in rows.iter().zip(biases.chunks(4)).zip(&mut shares) {
                let sum: f32 = row.chunks(4).zip(x.chunks(4)).map(|(w, x)| value(w) * value(x)).sum();
                *share += f64::from(u8::from(sum + value(bias) > 0.0)) / 50.0;
            }
        }
        shares
    }

    #[test]
    fn the_story_shape_has_the_story_models_densities() {
        let shape = story::shape(&[0.3, 0.05, 0.04, 0.06, 0.1]);
        let idle = shape.idle.as_ref().unwrap();
        assert_eq!(idle.densities.len(), shape.layers);
        assert_eq!((idle.densities[3], idle.densities[4], idle.densities[19]), (0.3, 0.05, 0.1));
        let tensors = shape.tensors(BlockFormat::Q4_0);
        let down = tensors.iter().find(|t| t.name == "blk.19.ffn_down_t.weight").unwrap();
        assert_eq!(down.dims, [2048, 16384]);
        assert!(!tensors.iter().any(|t| t.name.contains("ffn_down.")));
    }

    #[test]
    fn format_names_are_ggmls() {
        assert_eq!(format("q4_K"), Ok(BlockFormat::Q4K));
        assert!(format("q7").unwrap_err().starts_with("expected one of F32, F16, BF16, Q4_0"));
    }
}
