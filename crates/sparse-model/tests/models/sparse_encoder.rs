//! Encoders that leave neurons out, on tiny random models.

use std::path::Path;

use sparse_core::{LowRankPredictor, Matrix, Rule, Selector};
use sparse_model::internal::low_bit_copy;
use sparse_model::sidecar::{EncoderLoss, EncoderSidecar};
use sparse_model::{Encoder, EncoderFormat, EncoderOptions, EncoderSparsity, Error, Sidecar};
use sparse_testdata::TinyBert;

const TEXTS: [&str; 4] =
    ["", "the cat sat on the mat.", "a", "sitting, the CAT sat 42 times on mats; who knows"];
const WIDTH: usize = 64;
const NEURONS: usize = 96;

fn open(folder: &Path, format: EncoderFormat, sparsity: EncoderSparsity) -> Result<Encoder, Error> {
    let mut options = EncoderOptions::default();
    (options.format, options.sparsity) = (format, sparsity);
    Encoder::open(folder, &options)
}

fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let differences = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// A layer of each kind, over and over; with thresholds of zero, all neurons matter.
fn sidecar(encoder: &Encoder, threshold: f32) -> EncoderSidecar {
    let hidden = || vec![if threshold > 0.0 { threshold } else { -1.0 }; NEURONS];
    let predictor = || {
        let p = Matrix::from_f32(WIDTH, (0..8 * WIDTH).map(|i| (i % 7) as f32 - 3.0)).unwrap();
        let q = Matrix::from_f32(8, (0..NEURONS * 8).map(|i| (i % 11) as f32 - 5.0)).unwrap();
        LowRankPredictor::new(p, q, vec![0.5; NEURONS]).unwrap()
    };
    let low_rank = if threshold > 0.0 { 0.0 } else { f32::NEG_INFINITY };
    let layers = encoder.ffns().map(|(i, ffn)| {
        let selector = match i % 4 {
            0 => Selector::Intermediate { hidden: hidden() },
            1 => Selector::LowRank { predictor: predictor(), rule: Rule::Threshold(low_rank) },
            2 => Selector::Copy { copy: low_bit_copy(ffn.up()).unwrap(), hidden: hidden() },
            _ => return (Selector::Dense, None),
        };
        (selector, Some((0..NEURONS).map(|j| 0.01 * (j % 9) as f32 - 0.1).collect()))
    });
    let loss = Some(EncoderLoss { mean: 0.25, standard_error: 0.125, sentences: 7 });
    EncoderSidecar { fingerprint: encoder.fingerprint().to_owned(), layers: layers.collect(), loss }
}

#[test]
fn with_all_neurons_embeddings_are_the_dense_ones() {
    let folder = tempfile::tempdir().unwrap();
    TinyBert { layers: 4, ..TinyBert::default() }.write_folder(folder.path());
    for (format, slack) in [(EncoderFormat::F32, 1e-5), (EncoderFormat::Int8, 0.02)] {
        let dense = open(folder.path(), format, EncoderSparsity::Dense).unwrap();
        let dense_embeddings = dense.embed_batch(&TEXTS).unwrap();
        assert_eq!((dense.ffns().count(), dense.sparse_tokens()), (0, vec![0; 4]));
        let mut sparse = open(folder.path(), format, EncoderSparsity::Prepared).unwrap();
        assert!(sparse.bytes() > dense.bytes());
        assert!(distance(&sparse.embed_batch(&TEXTS).unwrap(), &dense_embeddings) < slack);
        sidecar(&sparse, 0.0).apply(&mut sparse).unwrap();
        let found = sparse.embed_batch(&TEXTS).unwrap();
        assert!(distance(&found, &dense_embeddings) < slack, "{}", distance(&found, &dense_embeddings));
    }
}

#[test]
fn a_sidecar_is_kept_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    TinyBert { layers: 4, ..TinyBert::default() }.write_folder(folder.path());
    for format in [EncoderFormat::F32, EncoderFormat::Int8] {
        let mut prepared = open(folder.path(), format, EncoderSparsity::Prepared).unwrap();
        sidecar(&prepared, 0.3).save(&path).unwrap();
        let read = EncoderSidecar::open(&path, &prepared).unwrap();
        assert_eq!(read.loss, Some(EncoderLoss { mean: 0.25, standard_error: 0.125, sentences: 7 }));
        sidecar(&prepared, 0.3).apply(&mut prepared).unwrap();
        let expected = prepared.embed_batch(&TEXTS).unwrap();

        let always = open(folder.path(), format, EncoderSparsity::Always(path.clone())).unwrap();
        assert_eq!(
            always.ffns().map(|(i, ffn)| (i, ffn.selector().name())).collect::<Vec<_>>(),
            [(0, "intermediate"), (1, "low-rank"), (2, "copy")]
        );
        assert_eq!(always.sparse_tokens(), [usize::MAX, usize::MAX, usize::MAX, 0]);
        let found = always.embed_batch(&TEXTS).unwrap();
        // The last layer has another storage: neuron records before, packed rows now.
        assert!(distance(&found, &expected) < 0.02, "{}", distance(&found, &expected));
        for (text, found) in TEXTS.iter().zip(&found) {
            let alone = always.embed(text).unwrap();
            assert!(distance(&[alone], std::slice::from_ref(found)) < 1e-5, "depends on the batch");
        }

        let dense = open(folder.path(), format, EncoderSparsity::Dense).unwrap();
        let dense_embeddings = dense.embed_batch(&TEXTS).unwrap();
        assert!(distance(&found, &dense_embeddings) > 1e-3, "nothing was left out");
    }
}

#[test]
fn the_clock_says_which_layers_are_sparse_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let [path, some_path] = ["tiny", "some"].map(|name| folder.path().join(format!("{name}.sparse.gguf")));
    TinyBert { layers: 4, ..TinyBert::default() }.write_folder(folder.path());
    for format in [EncoderFormat::F32, EncoderFormat::Int8] {
        let dense = open(folder.path(), format, EncoderSparsity::Dense).unwrap();
        let prepared = open(folder.path(), format, EncoderSparsity::Prepared).unwrap();
        sidecar(&prepared, 0.3).save(&path).unwrap();
        let measured = open(folder.path(), format, EncoderSparsity::Sidecar(path.clone())).unwrap();
        let most = measured.sparse_tokens();
        assert_eq!((most.len(), most[3]), (4, 0));
        assert_eq!(measured.ffns().count(), most.iter().filter(|most| **most > 0).count());
        let kept = measured.ffns().map(|(_, ffn)| ffn.bytes() + ffn.selector().bytes()).sum::<usize>();
        assert_eq!(measured.bytes(), dense.bytes() + kept);

        // Computed together, so many tokens are sparse in just the layers that allow for as many.
        let together = TEXTS.iter().map(std::slice::from_ref).chain([&TEXTS[..]]);
        for texts in together {
            let tokens: usize = texts.iter().map(|text| dense.tokens(text).unwrap().len()).sum();
            let mut some = sidecar(&prepared, 0.3);
            for (layer, most) in some.layers.iter_mut().zip(&most) {
                if tokens > *most {
                    *layer = (Selector::Dense, None);
                }
            }
            some.save(&some_path).unwrap();
            let some = open(folder.path(), format, EncoderSparsity::Always(some_path.clone())).unwrap();
            assert_eq!(measured.embed_batch(texts).unwrap(), some.embed_batch(texts).unwrap(), "{texts:?}");
        }

        // Where no layer leaves anything out, there is nothing to time.
        let mut none = sidecar(&prepared, 0.3);
        none.layers.fill_with(|| (Selector::Dense, None));
        none.save(&path).unwrap();
        let none = open(folder.path(), format, EncoderSparsity::Sidecar(path.clone())).unwrap();
        assert_eq!((none.sparse_tokens(), none.bytes()), (vec![0; 4], dense.bytes()));
        assert_eq!(none.embed_batch(&TEXTS).unwrap(), dense.embed_batch(&TEXTS).unwrap());
    }
}

#[test]
fn times_are_measured_for_any_number_of_tokens() {
    let folder = tempfile::tempdir().unwrap();
    TinyBert::default().write_folder(folder.path());
    let mut encoder = open(folder.path(), EncoderFormat::F32, EncoderSparsity::Prepared).unwrap();
    sidecar(&encoder, 0.3).apply(&mut encoder).unwrap();
    let timings = encoder.time_ffns(&[1, 100, 5000]);
    assert_eq!(timings.iter().map(|t| t.tokens).collect::<Vec<_>>(), [1, 100, 256]);
    assert!(timings.iter().all(|t| t.dense > 0.0 && t.sparse > 0.0), "{timings:?}");
}

#[test]
fn sidecars_of_other_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    let path = folder.path().join("one.sparse.gguf");
    TinyBert { layers: 3, ..TinyBert::default() }.write_folder(&one);
    TinyBert { layers: 3, seed: 2, ..TinyBert::default() }.write_folder(&other);
    let format = EncoderFormat::Int8;
    let prepared = open(&one, format, EncoderSparsity::Prepared).unwrap();
    sidecar(&prepared, 0.3).save(&path).unwrap();
    open(&one, EncoderFormat::F32, EncoderSparsity::Always(path.clone())).expect("the same model");
    for sparsity in [EncoderSparsity::Always(path.clone()), EncoderSparsity::Sidecar(path.clone())] {
        let error = open(&other, format, sparsity).unwrap_err().to_string();
        assert!(error.contains("one.sparse.gguf") && error.contains("made for another model"), "{error}");
    }
    let dense = open(&one, format, EncoderSparsity::Dense).unwrap();
    assert!(EncoderSidecar::open(&path, &dense).is_err(), "a dense encoder has nothing to copy");
    assert!(Sidecar::open(&path).is_err(), "a copy is for encoders");

    // A file that is no sidecar.
    let gguf = folder.path().join("model.gguf");
    std::fs::write(&gguf, TinyBert::default().gguf().to_bytes()).unwrap();
    let error = open(&one, format, EncoderSparsity::Sidecar(gguf)).unwrap_err().to_string();
    assert!(error.contains("no sidecar"), "{error}");
    let none = open(&one, format, EncoderSparsity::Sidecar(folder.path().join("none"))).unwrap_err();
    assert!(none.to_string().contains("none"), "{none}");
}

#[test]
fn the_same_model_in_another_file_has_the_same_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let model = TinyBert::default();
    model.write_folder(folder.path());
    let gguf = folder.path().join("model.gguf");
    std::fs::write(&gguf, model.gguf().to_bytes()).unwrap();
    let fingerprint =
        |path: &Path, format| open(path, format, EncoderSparsity::Dense).unwrap().fingerprint().to_owned();
    let one = fingerprint(folder.path(), EncoderFormat::F32);
    assert_eq!(one, fingerprint(&gguf, EncoderFormat::Int8));
    // One matrix of the last layer is another one's.
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"] {
        let mut file = model.gguf();
        let data = &mut file.tensor_mut(&format!("blk.1.{part}.weight")).data;
        let last = data.len() - size_of::<f32>();
        data[last..].copy_from_slice(&0.5_f32.to_le_bytes());
        std::fs::write(&gguf, file.to_bytes()).unwrap();
        assert_ne!(one, fingerprint(&gguf, EncoderFormat::F32), "{part}");
    }
}
