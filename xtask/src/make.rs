//! `gen`: files of exact shapes with random weights.

mod idle;
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
use idle::{Idle, IdleGate};

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
    /// Q6_K or IQ4_NL.
    #[arg(long, default_value = "Q4_K", value_parser = format)]
    format: BlockFormat,
    /// Seed of the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Layers, for the shapes `tiny`, `wide`, `7b` and `olmoe`: fewer make a smaller file, which measures the same kernels.
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
    /// 20 layers of 2048/16384, 32 heads, 4096 tokens: the story model's architecture eight times as wide, with as many idle
    /// neurons in its layers as the story model has in its own (each of its five four times). 2.3 billion weights.
    Story,
    /// 32 layers of 4096/11008, 32 heads, 32000 tokens (Llama-7B's shape): 6.7 billion weights.
    #[value(name = "7b")]
    SevenB,
    /// 16 layers of 64 experts of 2048/1024, 8 used by a token, 16 heads, 32000 tokens (OLMoE's shape): 6.8 billion
    /// weights. Experts are equally likely: the hardest case for a cache.
    Olmoe,
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
    /// Experts per layer and per token; `feed_forward` is the length of each.
    experts: Option<(usize, usize)>,
    /// How many gates are above zero, and how a predictor could know; otherwise gates are as random as the rest.
    idle: Option<Idle>,
}

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
            experts: None,
            idle: None,
        };
        Ok(match self {
            Self::Tiny => Shape { layers: 2, vocabulary: 512, ..wide },
            Self::Wide => wide,
            Self::Idle => Shape { idle: Some(Idle { rank: 16, densities: vec![0.1; wide.layers] }), ..wide },
            Self::Story => story::shape(&story::densities()?),
            Self::Olmoe => Shape {
                layers: 16,
                feed_forward: 1024,
                heads: 16,
                kv_heads: 16,
                experts: Some((64, 8)),
                // As large as what layers add to it, so that tokens and their experts differ.
                embedding: 1.0,
                ..wide
            },
            Self::SevenB => Shape { layers: 32, width: 4096, feed_forward: 11008, kv_heads: 32, ..wide },
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
        ensure!(shape.idle.is_none(), "the shape `{}` has a fixed number of layers", args.name.text());
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
    let mut densities = shape.idle.iter().flat_map(|idle| &idle.densities);
    for (index, t) in tensors.iter().enumerate() {
        if t.name.ends_with("ffn_gate.bias") {
            file.write(&t.name, &biases)?;
            continue;
        }
        if let Some(idle) = &shape.idle
            && t.name.ends_with("ffn_gate.weight")
        {
            let density = *densities.next().context("a density for every layer")?;
            let mut gate =
                IdleGate::new(idle.rank, t.dims[0], t.deviation, density, args.seed, index as u64)?;
            for _ in 0..t.dims[1] {
                interrupt::check()?;
                file.write(&t.name, &gate.row(t.format)?)?;
            }
            biases = gate.biases();
            continue;
        }
        let mut weights = Weights::new(t.format, t.mean, t.deviation, args.seed, index as u64);
        let rows: usize = t.dims[1..].iter().product();
        let mut row = vec![0; t.format.row_bytes(t.dims[0]).context("a row has whole blocks")?];
        for _ in 0..rows {
            interrupt::check()?;
            weights.fill(&mut row);
            file.write(&t.name, &row)?;
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
}

impl Shape {
    fn metadata(&self, args: &Args) -> Result<Metadata> {
        let name = args.name.text();
        let mut m = Metadata::new();
        let architecture = if self.experts.is_some() { "olmoe" } else { "llama" };
        m.insert("general.architecture", architecture);
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
            ("rope.dimension_count", self.width / self.heads),
            ("vocab_size", self.vocabulary),
        ] {
            m.insert(format!("{architecture}.{key}"), n as u32);
        }
        if let Some((count, used)) = self.experts {
            m.insert(format!("{architecture}.expert_count"), count as u32);
            m.insert(format!("{architecture}.expert_used_count"), used as u32);
        }
        m.insert(format!("{architecture}.context_length"), self.context);
        m.insert(format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5_f32);
        m.insert(format!("{architecture}.rope.freq_base"), 10_000.0_f32);
        if self.idle.is_some() {
            m.insert(format!("{architecture}.hidden_activation"), "relu");
        }
        let tokens = vocabulary::tokens(self.vocabulary);
        ensure!(tokens.len() == self.vocabulary, "there are only {} pieces", tokens.len());
        vocabulary::insert(tokens, &mut m);
        Ok(m)
    }

    fn tensors(&self, format: BlockFormat) -> Vec<Tensor> {
        let kv_width = self.width / self.heads * self.kv_heads;
        let matrix = |name: String, rows: usize, cols: usize| Tensor {
            name,
            dims: vec![cols, rows],
            format,
            mean: 0.0,
            deviation: DEVIATION,
        };
        let norm = |name: String| Tensor {
            name,
            dims: vec![self.width],
            format: BlockFormat::F32,
            mean: 1.0,
            deviation: 0.1,
        };
        let embedding = matrix("token_embd.weight".into(), self.vocabulary, self.width);
        let mut tensors = vec![Tensor { deviation: self.embedding, ..embedding }];
        let down = match self.neuron_major {
            true => ("ffn_down_t", self.feed_forward, self.width),
            false => ("ffn_down", self.width, self.feed_forward),
        };
        for i in 0..self.layers {
            let of = |part: &str| format!("blk.{i}.{part}.weight");
            tensors.push(norm(of("attn_norm")));
            tensors.push(norm(of("ffn_norm")));
            for (part, rows, cols) in [
                ("attn_q", self.width, self.width),
                ("attn_k", kv_width, self.width),
                ("attn_v", kv_width, self.width),
                ("attn_output", self.width, self.width),
            ] {
                tensors.push(matrix(of(part), rows, cols));
            }
            if let Some((count, _)) = self.experts {
                tensors.push(norm(of("attn_q_norm")));
                tensors.push(Tensor { dims: vec![kv_width], ..norm(of("attn_k_norm")) });
                let router = matrix(of("ffn_gate_inp"), count, self.width);
                tensors.push(Tensor { format: BlockFormat::F32, ..router });
                let experts = |part, rows, cols| Tensor {
                    dims: vec![cols, rows, count],
                    ..matrix(of(part), rows, cols)
                };
                tensors.push(experts("ffn_gate_exps", self.feed_forward, self.width));
                tensors.push(experts("ffn_up_exps", self.feed_forward, self.width));
                tensors.push(experts("ffn_down_exps", self.width, self.feed_forward));
                continue;
            }
            for (part, rows, cols) in
                [("ffn_gate", self.feed_forward, self.width), ("ffn_up", self.feed_forward, self.width), down]
            {
                tensors.push(matrix(of(part), rows, cols));
                if self.idle.is_some() && part == "ffn_gate" {
                    tensors.push(Tensor {
                        name: format!("blk.{i}.ffn_gate.bias"),
                        dims: vec![rows],
                        ..norm(String::new())
                    });
                }
            }
        }
        tensors.push(norm("output_norm.weight".into()));
        tensors.push(matrix("output.weight".into(), self.vocabulary, self.width));
        tensors
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
            (story::shape(&[0.1; 5]), 2_365),
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
            let found = density_of(rank, density);
            assert!((found / density - 1.0).abs() < 0.2, "{found} of {density}");
        }
        assert!(IdleGate::new(16, 256, 0.02, 0.1, 1, 7).unwrap().row(BlockFormat::Q4K).is_err());
    }

    /// How many of 400 gates are above zero, for 50 random inputs.
    fn density_of(rank: usize, density: f64) -> f64 {
        let inputs = 256;
        let mut gate = IdleGate::new(rank, inputs, 0.02, density, 1, 7).unwrap();
        let rows: Vec<Vec<u8>> = (0..400).map(|_| gate.row(BlockFormat::F32).unwrap()).collect();
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        let biases = gate.biases();
        let mut active = 0;
        for t in 0..50_u64 {
            let mut x = vec![0; 4 * inputs];
            Weights::new(BlockFormat::F32, 0.0, 1.0, 9, t).fill(&mut x);
            for (row, bias) in rows.iter().zip(biases.chunks(4)) {
                let sum: f32 = row.chunks(4).zip(x.chunks(4)).map(|(w, x)| value(w) * value(x)).sum();
                active += u32::from(sum + value(bias) > 0.0);
            }
        }
        f64::from(active) / 20_000.0
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
