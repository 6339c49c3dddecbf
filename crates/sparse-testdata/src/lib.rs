//! Tiny models for tests: llama GGUF files and BERT encoders of random weights, whole or damaged, without any download.
//!
//! ```
//! use sparse_testdata::TinyLlama;
//!
//! let mut file = TinyLlama::default().build();
//! file.tensor_mut("blk.1.ffn_up.weight").poison();
//! let bytes = file.to_bytes();
//! assert_eq!(&bytes[..4], b"GGUF");
//! ```
//!
//! Functions here panic when a test asks for something impossible.

mod bert;
mod tensor;
mod variants;
mod vocabulary;
mod weights;

use sparse_gguf::{BlockFormat, Gguf, GgufWriter, Metadata, TensorView};

pub use bert::{BERT_EPSILON, TinyBert, word_pieces, write_safetensors};
pub use tensor::Tensor;
pub use variants::variants;
pub use vocabulary::Vocabulary;
pub use weights::Weights;

/// A llama model to be made; every field has a small default.
#[derive(Clone, Debug)]
pub struct TinyLlama {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Neurons per feed-forward layer; of each expert, if there are experts.
    pub feed_forward: usize,
    /// Experts per layer, and how many a token uses.
    pub experts: Option<(usize, usize)>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Context length.
    pub context: u32,
    /// Tokenizer.
    pub vocabulary: Vocabulary,
    /// Format of all matrices but those in `formats`.
    pub format: BlockFormat,
    /// Formats of the matrices whose name contains the text; the first match counts.
    pub formats: Vec<(&'static str, BlockFormat)>,
    /// Whether the head is the embedding, or else a matrix of its own.
    pub tied: bool,
    /// `llama.hidden_activation`, if the file is to state it.
    pub activation: Option<&'static str>,
    /// Seed of the weights: same seed, same bytes.
    pub seed: u64,
}

impl Default for TinyLlama {
    fn default() -> Self {
        Self {
            layers: 2,
            embedding: 64,
            feed_forward: 160,
            experts: None,
            heads: 4,
            kv_heads: 2,
            context: 256,
            vocabulary: Vocabulary::Gpt2,
            format: BlockFormat::Q8_0,
            formats: Vec::new(),
            tied: true,
            activation: None,
            seed: 1,
        }
    }
}

impl TinyLlama {
    /// Makes the model.
    pub fn build(&self) -> File {
        File { metadata: self.metadata(), tensors: self.tensors() }
    }

    fn metadata(&self) -> Metadata {
        let mut m = Metadata::new();
        m.insert("general.architecture", "llama");
        m.insert("general.name", "Tiny Llama");
        for (key, n) in [
            ("block_count", self.layers),
            ("embedding_length", self.embedding),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", self.embedding / self.heads),
            ("vocab_size", self.vocabulary.len()),
        ] {
            m.insert(format!("llama.{key}"), n as u32);
        }
        m.insert("llama.context_length", self.context);
        m.insert("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
        m.insert("llama.rope.freq_base", 10_000.0_f32);
        if let Some((count, used)) = self.experts {
            m.insert("llama.expert_count", count as u32);
            m.insert("llama.expert_used_count", used as u32);
        }
        if let Some(name) = self.activation {
            m.insert("llama.hidden_activation", name);
        }
        self.vocabulary.write(&mut m);
        m
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = Vec::new();
        let mut stream = 0;
        let mut random = |name, dims: &[usize], format, distribution| {
            tensors.push(Tensor::random(name, dims, format, distribution, self.seed, stream));
            stream += 1;
        };
        let mut matrix = |name: String, dims: &[usize]| {
            let format =
                self.formats.iter().find(|(part, _)| name.contains(part)).map_or(self.format, |f| f.1);
            // Wide enough for attention and logits to be far from uniform.
            random(name, dims, format, (0.0, 2.0 / (dims[0] as f32).sqrt()));
        };
        let (width, hidden, vocabulary) = (self.embedding, self.feed_forward, self.vocabulary.len());
        let kv_width = width / self.heads * self.kv_heads;
        matrix("token_embd.weight".into(), &[width, vocabulary]);
        for i in 0..self.layers {
            for (name, rows, cols) in [
                ("attn_q", width, width),
                ("attn_k", kv_width, width),
                ("attn_v", kv_width, width),
                ("attn_output", width, width),
            ] {
                matrix(format!("blk.{i}.{name}.weight"), &[cols, rows]);
            }
            for (name, rows, cols) in
                [("ffn_gate", hidden, width), ("ffn_up", hidden, width), ("ffn_down", width, hidden)]
            {
                match self.experts {
                    None => matrix(format!("blk.{i}.{name}.weight"), &[cols, rows]),
                    Some((count, _)) => {
                        matrix(format!("blk.{i}.{name}_exps.weight"), &[cols, rows, count]);
                    }
                }
            }
            if let Some((count, _)) = self.experts {
                matrix(format!("blk.{i}.ffn_gate_inp.weight"), &[width, count]);
            }
        }
        if !self.tied {
            matrix("output.weight".into(), &[width, vocabulary]);
        }
        let norms =
            (0..self.layers).flat_map(|i| ["attn_norm", "ffn_norm"].map(|n| format!("blk.{i}.{n}.weight")));
        for name in norms.chain(["output_norm.weight".to_owned()]) {
            random(name, &[width], BlockFormat::F32, (1.0, 0.1));
        }
        tensors
    }
}

/// A GGUF file before it is written: change it as a test needs.
#[derive(Clone, Debug)]
pub struct File {
    /// Key-value pairs.
    pub metadata: Metadata,
    /// Tensors, in the order of the file.
    pub tensors: Vec<Tensor>,
}

impl File {
    /// What `gguf` holds.
    pub fn from_gguf(gguf: &Gguf) -> Self {
        let tensor = |view: TensorView<'_>| Tensor {
            name: view.info.name.clone(),
            dims: view.info.dims.clone(),
            format: view.info.format().expect("a format of blocks"),
            data: view.data.to_vec(),
        };
        Self { metadata: gguf.metadata().clone(), tensors: gguf.views().map(tensor).collect() }
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The tensor called `name`, to be changed.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Takes the tensor called `name` out.
    pub fn remove(&mut self, name: &str) -> Tensor {
        let at = self.tensors.iter().position(|t| t.name == name);
        self.tensors.remove(at.unwrap_or_else(|| panic!("no tensor {name}")))
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new(self.metadata.clone());
        for t in &self.tensors {
            writer.tensor(&t.name, &t.dims, t.format).expect("a tensor that files can hold");
        }
        let mut data = writer.start(Vec::new()).expect("a header that files can hold");
        for t in &self.tensors {
            data.write(&t.name, &t.data).expect("data as long as the shape says");
        }
        data.finish().expect("all tensors written")
    }
}
