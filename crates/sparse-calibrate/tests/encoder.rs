//! Calibration of a sentence encoder, on a tiny model.

use std::ops::ControlFlow;
use std::path::Path;

use sparse_calibrate::{
    EncoderCalibration, Error, LayerReport, Progress, SentenceOptions, Silent, calibrate_encoder,
};
use sparse_model::{Encoder, EncoderFormat, EncoderOptions, EncoderSparsity};
use sparse_testdata::TinyBert;
use tempfile::TempDir;

fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    TinyBert::default().write_folder(folder.path());
    folder
}

/// Sentences of the tiny vocabulary, all different.
fn sentences(n: usize) -> Vec<String> {
    let words = ["the", "cat", "sat", "on", "mat", "sitting", "cats", "a", "who", "knows"];
    let sentence = |i: usize| {
        let word = |k: usize| words[(i * 7 + k * k + i * k / 3) % words.len()];
        (0..4 + i % 9).map(word).chain([i.to_string().as_str()]).collect::<Vec<_>>().join(" ")
    };
    (0..n).map(sentence).collect()
}

fn run(folder: &Path, max_loss: f64, progress: &mut dyn Progress) -> Result<EncoderCalibration, Error> {
    let sentences = sentences(96);
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let format = EncoderFormat::F32;
    let options = SentenceOptions { max_loss, ranks: vec![16], format, ..SentenceOptions::default() };
    calibrate_encoder(folder, &sentences, &options, progress)
}

#[test]
fn what_is_chosen_is_inside_the_budget_and_written() {
    let folder = model();
    let result = run(folder.path(), 0.05, &mut Silent).unwrap();
    let names: Vec<&str> = result.candidates.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["exact up, sparse down", "low-rank 16", "copy of up in 3 bits"]);
    let exact = &result.candidates[0];
    assert!(exact.loss.unwrap() <= 0.05 && exact.loss.unwrap() > 0.0, "{exact:?}");
    assert!(exact.down_density < 0.98 && exact.up_density == 1.0 && exact.bytes_share < 1.0, "{exact:?}");
    assert_eq!(exact.times.iter().map(|t| t.tokens).collect::<Vec<_>>(), [1, 4, 16, 64, 256]);
    let chosen = result.chosen.as_ref().expect("something can be left out");
    assert!(chosen.upper <= 0.05 && chosen.loss > 0.0 && chosen.sentences == 32, "{chosen:?}");
    let kept = |l: &LayerReport| l.down_density < 1.0 && l.kept_energy > 0.0 && l.kept_energy < 1.0;
    assert!(chosen.layers.iter().all(kept), "{chosen:?}");
    assert!(result.verdict().contains(&chosen.name), "{}", result.verdict());

    // With the sidecar, the loss on the sentences that it was measured on is the one that it states.
    let path = folder.path().join("tiny.sparse.gguf");
    result.sidecar.save(&path).unwrap();
    let sentences = sentences(96);
    let open = |sparsity| {
        let mut options = EncoderOptions::default();
        (options.format, options.sparsity) = (EncoderFormat::F32, sparsity);
        Encoder::open(folder.path(), &options).unwrap().embed_batch(&sentences[64..]).unwrap()
    };
    let (sparse, dense) = (open(EncoderSparsity::Always(path)), open(EncoderSparsity::Dense));
    let cosines = sparse.iter().zip(&dense).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
    let loss = 1.0 - f64::from(cosines.sum::<f32>()) / 32.0;
    assert!((loss - chosen.loss).abs() < 1e-5, "{loss}, {}", chosen.loss);
}

#[test]
fn without_a_budget_the_encoder_stays_dense() {
    let folder = model();
    let result = run(folder.path(), 0.0, &mut Silent).unwrap();
    assert!(result.chosen.is_none() && result.sidecar.loss.is_none());
    assert!(result.sidecar.layers.iter().all(|(selector, _)| selector.name() == "dense"));
    assert!(result.verdict().contains("stays dense"));
}

#[test]
fn too_few_sentences_and_interruptions_are_errors() {
    struct Impatient(usize);
    impl Progress for Impatient {
        fn begin(&mut self, _: &str, _: usize) {}
        fn step(&mut self) -> ControlFlow<()> {
            self.0 -= 1;
            if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let folder = model();
    for steps in [1, 33, 36] {
        let error = run(folder.path(), 0.05, &mut Impatient(steps)).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
    }
    let options = SentenceOptions::default();
    let error = calibrate_encoder(folder.path(), &["a"; 23], &options, &mut Silent).unwrap_err();
    assert!(matches!(error, Error::TooFewSentences { found: 23, needed: 24 }), "{error}");
}
