//! `gen`: llama files of exact shapes with random weights.

mod idle;
mod vocabulary;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use sparse_gguf::{BlockFormat, GgufWriter, Metadata};
use sparse_testdata::Weights;

use crate::interrupt;
use idle::IdleGate;

/// Writes a llama GGUF file of an exact shape with random weights.
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
    /// 32 layers of 4096/11008, 32 heads, 32000 tokens (Llama-7B's shape): 6.7 billion weights.
    #[value(name = "7b")]
    SevenB,
}

struct Shape {
    layers: usize,
    width: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    context: u32,
}

impl Name {
    fn shape(self) -> Shape {
        let wide = Shape {
            layers: 22,
            width: 2048,
            feed_forward: 5632,
            heads: 32,
            kv_heads: 4,
            vocabulary: 32000,
            context: 2048,
        };
        match self {
            Self::Tiny => Shape { layers: 2, vocabulary: 512, ..wide },
            Self::Wide | Self::Idle => wide,
            Self::SevenB => Shape { layers: 32, width: 4096, feed_forward: 11008, kv_heads: 32, ..wide },
        }
    }

    fn text(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

fn format(name: &str) -> Result<BlockFormat, String> {
    let find = |f: &BlockFormat| f.name().eq_ignore_ascii_case(name);
    BlockFormat::ALL
        .into_iter()
        .find(find)
        .ok_or_else(|| format!("expected one of {}", BlockFormat::ALL.map(BlockFormat::name).join(", ")))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let shape = args.name.shape();
    let idle = matches!(args.name, Name::Idle);
    let tensors = shape.tensors(args.format, idle);
    let mut writer = GgufWriter::new(shape.metadata(args)?);
    for t in &tensors {
        writer.tensor(&t.name, &t.dims, t.format)?;
    }
    let mut file =
        writer.create(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let mut biases = Vec::new();
    for (index, t) in tensors.iter().enumerate() {
        if idle && t.name.ends_with("ffn_gate.bias") {
            file.write(&t.name, &biases)?;
            continue;
        }
        if idle && t.name.ends_with("ffn_gate.weight") {
            let mut gate = IdleGate::new(t.dims[0], t.deviation, args.seed, index as u64)?;
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
        m.insert("general.architecture", "llama");
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
            m.insert(format!("llama.{key}"), n as u32);
        }
        m.insert("llama.context_length", self.context);
        m.insert("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
        m.insert("llama.rope.freq_base", 10_000.0_f32);
        if matches!(args.name, Name::Idle) {
            m.insert("llama.hidden_activation", "relu");
        }
        let tokens = vocabulary::tokens(self.vocabulary);
        ensure!(tokens.len() == self.vocabulary, "there are only {} pieces", tokens.len());
        vocabulary::insert(tokens, &mut m);
        Ok(m)
    }

    fn tensors(&self, format: BlockFormat, idle: bool) -> Vec<Tensor> {
        let kv_width = self.width / self.heads * self.kv_heads;
        let matrix = |name: String, rows: usize, cols: usize| Tensor {
            name,
            dims: vec![cols, rows],
            format,
            mean: 0.0,
            deviation: 0.02,
        };
        let norm = |name: String| Tensor {
            name,
            dims: vec![self.width],
            format: BlockFormat::F32,
            mean: 1.0,
            deviation: 0.1,
        };
        let mut tensors = vec![matrix("token_embd.weight".into(), self.vocabulary, self.width)];
        for i in 0..self.layers {
            let of = |part: &str| format!("blk.{i}.{part}.weight");
            tensors.push(norm(of("attn_norm")));
            tensors.push(norm(of("ffn_norm")));
            for (part, rows, cols) in [
                ("attn_q", self.width, self.width),
                ("attn_k", kv_width, self.width),
                ("attn_v", kv_width, self.width),
                ("attn_output", self.width, self.width),
                ("ffn_gate", self.feed_forward, self.width),
                ("ffn_up", self.feed_forward, self.width),
                ("ffn_down", self.width, self.feed_forward),
            ] {
                tensors.push(matrix(of(part), rows, cols));
                if idle && part == "ffn_gate" {
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
        for (name, millions) in [(Name::Tiny, 90), (Name::Wide, 1_100), (Name::SevenB, 6_738)] {
            let shape = name.shape();
            let count: usize =
                shape.tensors(BlockFormat::Q4K, false).iter().map(|t| t.dims.iter().product::<usize>()).sum();
            assert_eq!(count / 1_000_000, millions, "{}", name.text());
        }
    }

    #[test]
    fn the_tiny_file_opens_and_is_labelled() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tiny.gguf");
        run(&Args { name: Name::Tiny, out: out.clone(), format: BlockFormat::Q2K, seed: 5 }).unwrap();
        let gguf = Gguf::open(out).unwrap();
        assert_eq!(gguf.tensors().len(), 3 + 2 * 9);
        assert_eq!(
            gguf.metadata().opt_string("general.name").unwrap(),
            Some("random weights, shape tiny, seed 5")
        );
        assert!(
            gguf.metadata().opt_string("general.description").unwrap().unwrap().contains("Not a trained")
        );
        let up = gguf.tensor("blk.1.ffn_up.weight").unwrap().dequantise().unwrap();
        assert!(up.iter().all(|w| w.is_finite() && w.abs() < 0.3));
    }

    #[test]
    fn nine_idle_neurons_in_ten() {
        let inputs = 256;
        let mut gate = IdleGate::new(inputs, 0.02, 1, 7).unwrap();
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
        let density = f64::from(active) / 20_000.0;
        assert!((0.08..0.12).contains(&density), "{density}");
        assert!(gate.row(BlockFormat::Q4K).is_err());
    }

    #[test]
    fn format_names_are_ggmls() {
        assert_eq!(format("q4_K"), Ok(BlockFormat::Q4K));
        assert!(format("q7").unwrap_err().starts_with("expected one of F32, F16, BF16, Q4_0"));
    }
}
