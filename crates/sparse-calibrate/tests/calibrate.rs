//! Calibration from text to sidecar, on tiny models.

use std::ops::ControlFlow;
use std::sync::Arc;

use sparse_calibrate::{
    Error, Options, Progress, Silent, calibrate, drawn_evenly, measure_screen, profile, sampled,
};
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{Model, Sidecar};
use sparse_testdata::TinyLlama;

fn gguf(activation: Option<&'static str>) -> Gguf {
    let tiny = TinyLlama { activation, format: BlockFormat::Q8_0, ..TinyLlama::default() };
    Gguf::from_bytes(tiny.build().to_bytes()).expect("a GGUF file")
}

fn options() -> Options {
    Options {
        max_loss: 0.02,
        window: 32,
        fit_tokens: 256,
        tune_tokens: 512,
        test_tokens: 512,
        ranks: vec![32],
        keep: true,
        head: false,
        ..Options::default()
    }
}

fn text(gguf: &Gguf, tokens: usize) -> Vec<u32> {
    let model = Arc::new(Model::from_gguf(gguf, 1).unwrap());
    let text = sampled(&model, tokens, 32, 3, &mut Silent).unwrap();
    assert!(text.len() >= tokens);
    assert_eq!(text, sampled(&model, tokens, 32, 3, &mut Silent).unwrap());
    text
}

#[test]
fn tokens_are_drawn_evenly() {
    let tokenizer = sparse_model::tokenizer::Tokenizer::from_metadata(gguf(None).metadata()).unwrap();
    let tokens = drawn_evenly(&tokenizer, 200 * tokenizer.vocab_len(), 5);
    assert_eq!(tokens, drawn_evenly(&tokenizer, tokens.len(), 5));
    let mut counts = vec![0_u32; tokenizer.vocab_len()];
    for token in tokens {
        counts[token as usize] += 1;
    }
    // Eight standard deviations of a Poisson variable of mean 200.
    assert!(counts.iter().all(|n| (87..=313).contains(n)), "{counts:?}");
}

#[test]
fn a_relu_model_skips_zeros_without_any_loss() {
    let gguf = gguf(Some("relu"));
    let result = calibrate(&gguf, &text(&gguf, 1400), None, &options(), &mut Silent).unwrap();
    let names: Vec<&str> = result.candidates.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["dense", "exact-zero", "low-rank 32"]);
    let exact = &result.candidates[1];
    assert!(exact.loss.unwrap().nats.abs() < 1e-3, "{exact:?}");
    assert!(exact.bytes_share < 0.95, "{exact:?}");
    let chosen = result.chosen.as_ref().expect("exact zeros cost nothing");
    assert!(chosen.loss.upper() <= 0.02 && chosen.loss.tokens > 200);
    assert_eq!(chosen.layers.len(), 2);
    for layer in &chosen.layers {
        assert!(
            layer.recall > 0.5 && layer.recall <= 1.0 && layer.bytes < layer.dense_bytes as f64,
            "{layer:?}"
        );
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    result.sidecar.save(&path).unwrap();
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    Sidecar::open(&path).unwrap().apply(&gguf, &mut model).unwrap();
    assert!(model.ffns().all(|f| f.selector().name() != "dense"));
}

#[test]
fn predictors_can_be_chosen_by_what_they_find() {
    let gguf = gguf(Some("relu"));
    let mut densities = Vec::new();
    for recall in [0.7, 0.95] {
        let options = Options { recall: Some(recall), ..options() };
        let result = calibrate(&gguf, &text(&gguf, 1400), None, &options, &mut Silent).unwrap();
        let names: Vec<&str> = result.candidates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["dense", &format!("low-rank 32, recall {:.1} %", 100.0 * recall)]);
        let layers = result.chosen.expect("whatever the loss").layers;
        for layer in &layers {
            assert!((layer.recall - recall).abs() < 0.05, "{layer:?}");
        }
        densities.push(layers.iter().map(|l| l.gate_density).sum::<f64>());
    }
    assert!(densities[0] < densities[1], "{densities:?}");
}

#[test]
fn a_silu_model_stays_inside_its_budget() {
    let gguf = gguf(None);
    let result = calibrate(&gguf, &text(&gguf, 1400), None, &options(), &mut Silent).unwrap();
    assert!(
        result.candidates.iter().any(|c| c.name == "gate 0.4" && c.loss.is_some()),
        "{:?}",
        result.candidates
    );
    for candidate in &result.candidates {
        assert!(candidate.loss.is_none_or(|l| l.upper() <= 0.02), "{candidate:?}");
    }
    let chosen = result.chosen.as_ref().expect("a few neurons can always be spared");
    assert!(chosen.loss.upper() <= 0.02 && chosen.bytes_share < 1.0, "{chosen:?}");
    assert!(result.verdict().contains("% of the feed-forward weights"), "{}", result.verdict());
    // Nothing is kept of what does not pay, unless asked for.
    let options = Options { max_loss: 1e-9, keep: false, ..options() };
    let result = calibrate(&gguf, &text(&gguf, 1400), None, &options, &mut Silent).unwrap();
    assert!(result.sidecar.selectors.iter().all(|s| s.name() == "dense") && result.sidecar.loss.is_none());
}

#[test]
fn too_little_text_and_wrong_windows_are_refused() {
    let gguf = gguf(None);
    let refused = |text: &[u32], options: &Options| {
        calibrate(&gguf, text, None, options, &mut Silent).map(|_| ()).unwrap_err().to_string()
    };
    let short = refused(&[1; 100], &options());
    assert!(short.starts_with("the text has 100 tokens, but calibration needs at least 192"), "{short}");
    let window = Options { window: 4, ..options() };
    assert_eq!(refused(&[1; 1000], &window), "window is 4, expected 8 to 256 tokens");
    let model = Arc::new(Model::from_gguf(&gguf, 1).unwrap());
    for window in [0, 1, 257] {
        let refused = sampled(&model, 100, window, 3, &mut Silent).unwrap_err().to_string();
        assert_eq!(refused, format!("window is {window}, expected 2 to 256 tokens"));
    }
}

#[test]
fn progress_can_end_it() {
    struct Until(usize);
    impl Progress for Until {
        fn begin(&mut self, _: &str, _: usize) {}
        fn step(&mut self) -> ControlFlow<()> {
            self.0 = self.0.saturating_sub(1);
            if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let gguf = gguf(None);
    let text = text(&gguf, 1400);
    for steps in [1, 10, 30, 60] {
        let result = calibrate(&gguf, &text, None, &options(), &mut Until(steps));
        assert!(matches!(result, Err(Error::Interrupted)), "{steps} steps");
    }
}

#[test]
fn profiles_tell_relu_from_silu() {
    let of = |activation| {
        let gguf = gguf(activation);
        let model = Arc::new(Model::from_gguf(&gguf, 1).unwrap());
        profile(&model, &text(&gguf, 256), 32, &mut Silent).unwrap()
    };
    let (relu, silu) = (of(Some("relu")), of(None));
    assert_eq!((relu.len(), silu.len()), (2, 2));
    for (r, s) in relu.iter().zip(&silu) {
        assert!((0.3..0.7).contains(&r.zeros) && s.zeros == 0.0, "{} {}", r.zeros, s.zeros);
        assert!(r.per_token.is_sorted() && r.per_token.iter().zip(&r.across_tokens).all(|(t, a)| t >= a));
    }
    let gguf = gguf(None);
    let model = Arc::new(Model::from_gguf(&gguf, 1).unwrap());
    assert!(profile(&model, &[1; 10], 32, &mut Silent).is_err());
}

#[test]
fn a_head_gets_a_screen() {
    let gguf = gguf(None);
    let text = text(&gguf, 2000);
    let options = Options { ffn: false, head: true, continuations: 3, ..options() };
    let result = calibrate(&gguf, &text, None, &options, &mut Silent).unwrap();
    assert!(result.candidates.is_empty() && result.chosen.is_none());
    let head = result.head.as_ref().expect("asked for");
    let names: Vec<&str> = head.candidates.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["32 + 32 fitted axes", "0 + 64 random axes"]);
    for c in &head.candidates {
        // Fifth of a tiny vocabulary is few rows: many tokens are computed whole, but those that are not must be right.
        assert!(c.agreement > 0.97 && c.missed_mass < 0.02 && c.tokens >= 512, "{c:?}");
        assert!(c.best.fallbacks < 1.0 && c.best.rows >= 1.0 && c.best.bytes > c.screen_share, "{c:?}");
        assert!(c.margin_best > 0.0 && c.margin_mass > 0.0, "{c:?}");
    }
    let continuations = head.continuations.expect("asked for");
    assert_eq!((continuations.texts, continuations.tokens), (3, 64));
    assert!(continuations.same >= 2, "{continuations:?}");
    assert!(result.verdict().starts_with("head: "), "{}", result.verdict());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    result.sidecar.save(&path).unwrap();
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    assert!(
        measure_screen(&Arc::new(Model::from_gguf(&gguf, 1).unwrap()), &text, 32, 4, &mut Silent).is_err()
    );
    Sidecar::open(&path).unwrap().apply(&gguf, &mut model).unwrap();
    let report = measure_screen(&Arc::new(model), &text, 32, 4, &mut Silent).unwrap();
    assert_eq!(report.tokens, 128);
    assert!(report.agreement > 0.95, "{report:?}");
}

#[test]
fn a_short_context_has_short_continuations() {
    let tiny = TinyLlama { context: 64, ..TinyLlama::default() };
    let gguf = Gguf::from_bytes(tiny.build().to_bytes()).unwrap();
    let options = Options { ffn: false, head: true, continuations: 1, window: 64, ..options() };
    let result = calibrate(&gguf, &text(&gguf, 2000), None, &options, &mut Silent).unwrap();
    let continuations = result.head.unwrap().continuations.expect("asked for");
    assert_eq!((continuations.texts, continuations.tokens), (1, 32));
}
