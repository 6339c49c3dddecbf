//! The BERT encoder against a plain implementation in f64, on tiny random models.

mod folders;
mod library;

use std::fs;

use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{Encoder, EncoderFormat, EncoderOptions, Error, Pooling};
use sparse_testdata::{BERT_EPSILON, Tensor, TinyBert, word_pieces};
use tempfile::TempDir;

const TEXTS: [&str; 8] = [
    "",
    "the cat sat on the mat.",
    "Cats!",
    "\u{0}\u{1}\u{7f}",
    "sitting, the CAT sat 42 times on mats; who knows",
    "a",
    "\u{6f22}\u{6f22} on \u{6f22}",
    "the the the the the the the the the the the the the the the the the the the the the the the the the the the the the the \
     the the the the the the the the",
];

/// The encoder written for reading: no batches, no tricks, f64.
struct Plain<'a> {
    model: &'a TinyBert,
    tensors: Vec<Tensor>,
}

type Vectors = Vec<Vec<f64>>;

impl Plain<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"));
        tensor.values().into_iter().map(f64::from).collect()
    }

    fn linear(&self, name: &str, x: &Vectors) -> Vectors {
        let (weight, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        x.iter().map(|x| weight.chunks(x.len()).zip(&bias).map(|(w, b)| dot(w, x) + b).collect()).collect()
    }

    fn norm(&self, name: &str, x: &Vectors, y: &Vectors) -> Vectors {
        let (weight, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        x.iter()
            .zip(y)
            .map(|(x, y)| {
                let sum: Vec<f64> = x.iter().zip(y).map(|(x, y)| x + y).collect();
                let mean = sum.iter().sum::<f64>() / sum.len() as f64;
                let variance = sum.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / sum.len() as f64;
                let deviation = (variance + f64::from(BERT_EPSILON)).sqrt();
                let scaled = sum.iter().zip(&weight).zip(&bias);
                scaled.map(|((v, w), b)| (v - mean) / deviation * w + b).collect()
            })
            .collect()
    }

    fn attention(&self, layer: &str, x: &Vectors) -> Vectors {
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|n| self.linear(&format!("{layer}.{n}"), x));
        let head = self.model.embedding / self.model.heads;
        let mut out = vec![vec![0.0; self.model.embedding]; x.len()];
        for start in (0..self.model.embedding).step_by(head) {
            for (q, out) in q.iter().zip(&mut out) {
                let range = start..start + head;
                let score =
                    |k: &Vec<f64>| range.clone().map(|i| q[i] * k[i]).sum::<f64>() / (head as f64).sqrt();
                let weights: Vec<f64> = k.iter().map(|k| score(k).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in range.clone() {
                    out[i] = weights.iter().zip(&v).map(|(w, v)| w / total * v[i]).sum();
                }
            }
        }
        self.linear(&format!("{layer}.attn_output"), &out)
    }

    /// `x Phi(x)`, with the series of the error function that has positive terms only.
    fn gelu(x: f64) -> f64 {
        let z = (x / f64::sqrt(2.0)).clamp(-6.0, 6.0);
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= 2.0 * z * z / f64::from(2 * n + 1);
            sum += term;
        }
        x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * sum) / 2.0
    }

    fn vectors(&self, ids: &[u32]) -> Vectors {
        let width = self.model.embedding;
        let row = |name: &str, i: usize| self.values(name)[i * width..][..width].to_vec();
        let tokens = ids.iter().map(|&id| row("token_embd.weight", id as usize)).collect();
        let places = (0..ids.len()).map(|p| {
            let (position, kind) = (row("position_embd.weight", p), row("token_types.weight", 0));
            position.iter().zip(kind).map(|(p, t)| p + t).collect()
        });
        let mut x = self.norm("token_embd_norm", &tokens, &places.collect());
        for i in 0..self.model.layers {
            let layer = format!("blk.{i}");
            x = self.norm(&format!("{layer}.attn_output_norm"), &self.attention(&layer, &x), &x);
            let mut hidden = self.linear(&format!("{layer}.ffn_up"), &x);
            hidden.iter_mut().flatten().for_each(|v| *v = Self::gelu(*v));
            x = self.norm(
                &format!("{layer}.layer_output_norm"),
                &self.linear(&format!("{layer}.ffn_down"), &hidden),
                &x,
            );
        }
        x
    }

    fn embedding(&self, ids: &[u32], pooling: Pooling) -> Vec<f64> {
        let vectors = self.vectors(ids);
        let count = if pooling == Pooling::Cls { 1 } else { vectors.len() };
        let mean = |i: usize| vectors[..count].iter().map(|v| v[i]).sum::<f64>() / count as f64;
        (0..self.model.embedding).map(mean).collect()
    }
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum();
    let length = |sum: f64| sum.sqrt();
    dot / length(a.iter().map(|a| f64::from(*a).powi(2)).sum()) / length(b.iter().map(|b| b * b).sum())
}

fn options(format: EncoderFormat, threads: usize) -> EncoderOptions {
    let mut options = EncoderOptions::default();
    (options.format, options.threads) = (format, threads);
    options
}

fn f32() -> EncoderOptions {
    options(EncoderFormat::F32, 1)
}

fn folder_of(model: &TinyBert) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    model.write_folder(folder.path());
    folder
}

/// The ids that the tiny vocabulary gives, worked out by hand.
#[test]
fn token_ids_are_those_of_the_vocabulary() {
    let id = |piece: &str| word_pieces().iter().position(|p| p == piece).unwrap() as u32;
    let ids = |pieces: &[&str]| pieces.iter().map(|p| id(p)).collect::<Vec<u32>>();
    let model = TinyBert::default();
    let folder = folder_of(&model);
    let gguf = Gguf::from_bytes(model.gguf().to_bytes()).unwrap();
    for encoder in [Encoder::open(folder.path(), &f32()).unwrap(), Encoder::from_gguf(&gguf, &f32()).unwrap()]
    {
        for (text, pieces) in [
            ("", &["[CLS]", "[SEP]"][..]),
            ("\u{0}\u{1b}\u{7f}", &["[CLS]", "[SEP]"]),
            ("the  CATS!", &["[CLS]", "the", "cat", "##s", "!", "[SEP]"]),
            ("c\u{e1}t,m\u{6f22}", &["[CLS]", "cat", ",", "m", "\u{6f22}", "[SEP]"]),
            ("\u{3b1} [SEP]a9", &["[CLS]", "[UNK]", "[SEP]", "a", "##9", "[SEP]"]),
            (
                "[unused0]",
                &["[CLS]", "[UNK]", "u", "##n", "##u", "##s", "##e", "##d", "##0", "[UNK]", "[SEP]"],
            ),
        ] {
            assert_eq!(encoder.tokens(text).unwrap(), ids(pieces), "{text:?}");
        }
    }
}

#[test]
fn embeddings_agree_with_the_plain_implementation() {
    // Heads of 16, 12 and 64 values; in the second, no width is a multiple of a vector's length.
    for model in [
        TinyBert::default(),
        TinyBert { embedding: 36, heads: 3, feed_forward: 50, ..TinyBert::default() },
        TinyBert { heads: 1, layers: 1, feed_forward: 256, ..TinyBert::default() },
    ] {
        let folder = folder_of(&model);
        let plain = Plain { model: &model, tensors: model.tensors() };
        for pooling in [Pooling::Mean, Pooling::Cls] {
            let mut options = f32();
            (options.pooling, options.normalize) = (Some(pooling), Some(false));
            let encoder = Encoder::open(folder.path(), &options).unwrap();
            for (text, found) in TEXTS.iter().zip(encoder.embed_batch(&TEXTS).unwrap()) {
                let expected = plain.embedding(&encoder.tokens(text).unwrap(), pooling);
                for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                    let off = (f64::from(*a) - b).abs();
                    assert!(off < 2e-5, "{model:?} {pooling:?} {text:?}: value {i} is {a}, expected {b}");
                }
            }
        }
    }
}

#[test]
fn quantized_embeddings_are_near_and_every_format_loads() {
    let model = TinyBert::default();
    let folder = folder_of(&model);
    let plain = Plain { model: &model, tensors: model.tensors() };
    for (format, least) in [
        ("f32", 0.999_999),
        ("int8", 0.999),
        ("f16", 0.999_99),
        ("bf16", 0.999),
        ("Q8_0", 0.999),
        ("Q5_1", 0.98),
        ("q4_0", 0.9),
        ("Bit7", 0.999),
        ("Bit5", 0.98),
        ("bit3", 0.7),
    ] {
        let format: EncoderFormat = format.parse().unwrap();
        let encoder = Encoder::open(folder.path(), &options(format, 1)).unwrap();
        for (text, found) in TEXTS.iter().zip(encoder.embed_batch(&TEXTS).unwrap()) {
            let cosine = cosine(&found, &plain.embedding(&encoder.tokens(text).unwrap(), Pooling::Mean));
            assert!(cosine > least, "{format} {text:?}: cosine {cosine}");
            let length: f32 = found.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-5, "{format} {text:?}: length {length}");
        }
    }
}

#[test]
fn feed_forward_layers_may_have_a_format_of_their_own() {
    let folder = folder_of(&TinyBert::default());
    let open = |format, feed_forward: Option<&str>| {
        let mut options = options(format, 1);
        options.feed_forward = feed_forward.map(|name| name.parse().unwrap());
        Encoder::open(folder.path(), &options).unwrap()
    };
    let embed = |encoder: &Encoder| encoder.embed("the cat sat on the mat").unwrap();
    let whole = open(EncoderFormat::F32, None);
    let exact: Vec<f64> = embed(&whole).into_iter().map(f64::from).collect();
    for name in ["Bit3", "Bit5", "Bit7", "Q4_0", "int8"] {
        let mixed = open(EncoderFormat::F32, Some(name));
        assert!(mixed.bytes() < whole.bytes(), "{name}");
        let only = open(name.parse().unwrap(), None);
        let [all, some] = [&only, &mixed].map(|e| cosine(&embed(e), &exact));
        assert!(some < 0.999_999_9 && some > all.min(0.99), "{name}: {some}, everywhere {all}");
    }
    assert_eq!(embed(&open(EncoderFormat::F32, Some("f32"))), embed(&whole));
    let int8 = open(EncoderFormat::Int8, Some("f32"));
    assert!(cosine(&embed(&int8), &exact) > 0.999);
}

#[test]
fn folder_and_gguf_hold_the_same_model() {
    let model = TinyBert::default();
    let folder = folder_of(&model);
    let path = folder.path().join("model.gguf");
    fs::write(&path, model.gguf().to_bytes()).unwrap();
    for format in [EncoderFormat::F32, EncoderFormat::Int8] {
        let mut options = options(format, 1);
        options.max_tokens = Some(32);
        let [a, b] = [folder.path(), &path].map(|p| Encoder::open(p, &options).unwrap());
        assert_eq!(a.embed_batch(&TEXTS).unwrap(), b.embed_batch(&TEXTS).unwrap(), "{format}");
    }
    let gguf = Encoder::open(&path, &f32()).unwrap();
    assert_eq!((gguf.max_tokens(), gguf.pooling(), gguf.normalizes()), (48, &[Pooling::Mean][..], true));
}

/// Many texts of many lengths: groups of all kinds, on some threads and alone.
#[test]
fn an_embedding_depends_neither_on_its_batch_nor_on_threads() {
    let model = TinyBert { positions: 300, embedding: 96, feed_forward: 128, ..TinyBert::default() };
    let folder = folder_of(&model);
    let texts: Vec<String> =
        (0..150).map(|i| "the cat sat on a mat. ".repeat(1 + i * i % 47).split_off(i % 3)).collect();
    for format in [EncoderFormat::F32, EncoderFormat::Int8, EncoderFormat::Blocks(BlockFormat::Q4_0.into())] {
        let encoder = |threads| {
            let mut options = options(format, threads);
            options.max_tokens = Some(300);
            Encoder::open(folder.path(), &options).unwrap()
        };
        let alone = encoder(1);
        let one_by_one: Vec<Vec<f32>> = texts.iter().map(|text| alone.embed(text).unwrap()).collect();
        for threads in [1, 2, 3] {
            let encoder = encoder(threads);
            assert!(
                encoder.embed_batch(&texts).unwrap() == one_by_one,
                "{format}, a batch, {threads} threads"
            );
            let few: Vec<_> = texts[..30].iter().map(|text| encoder.embed(text).unwrap()).collect();
            assert!(few == one_by_one[..30], "{format}, one by one, {threads} threads");
            let stream: Result<Vec<_>, _> = encoder.embed_stream(&texts).collect();
            assert!(stream.unwrap() == one_by_one, "{format}, a stream, {threads} threads");
        }
    }
}

#[test]
fn one_encoder_serves_several_threads() {
    let folder = folder_of(&TinyBert::default());
    let encoder = Encoder::open(folder.path(), &options(EncoderFormat::Int8, 2)).unwrap();
    let expected = encoder.embed_batch(&TEXTS).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(encoder.embed_batch(&TEXTS).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn batches_may_be_empty_or_long_and_streams_are_lazy() {
    let folder = folder_of(&TinyBert::default());
    let encoder = Encoder::open(folder.path(), &f32()).unwrap();
    assert_eq!(encoder.embed_batch(&["cat"; 300]).unwrap().len(), 300);
    assert!(encoder.embed_batch(&[] as &[&str]).unwrap().is_empty());
    let mut asked = 0;
    let mut endless = encoder.embed_stream(std::iter::repeat_with(|| {
        asked += 1;
        "the mat"
    }));
    assert_eq!(endless.next().unwrap().unwrap(), encoder.embed("the mat").unwrap());
    drop(endless);
    assert!(asked < 1000, "{asked} texts were taken for one embedding");
}

#[test]
fn long_texts_are_cut_and_not_read_to_their_end() {
    let folder = folder_of(&TinyBert::default());
    let encoder = Encoder::open(folder.path(), &f32()).unwrap();
    assert_eq!(encoder.max_tokens(), 32);
    let cut = |text: &str| encoder.tokens(text).unwrap();
    let words = "the cat ".repeat(20);
    assert_eq!(cut(&words).len(), 32);
    assert_eq!(cut(&words).last(), cut("").last());
    // What follows does not matter, wherever the part that is looked at ends.
    for text in ["the cat ".repeat(150_000), "the ca\u{301}t\u{0b} ".repeat(100_000)] {
        assert_eq!(cut(&text), cut(&words));
    }
    // Nothing to see for a million characters, and then words.
    let late = "\u{200b} ".repeat(500_000) + "cat";
    assert_eq!(cut(&late), cut("cat"));
    // One word of a million letters is unknown.
    assert_eq!(cut(&"a".repeat(1_000_000)), cut("\u{3b1}"));
    assert_eq!(cut(&"\u{6f22}".repeat(1000))[1..31], [cut("\u{6f22}")[1]; 30]);
}
