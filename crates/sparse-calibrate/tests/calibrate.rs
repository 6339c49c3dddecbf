//! Calibration from text to sidecar, on tiny models.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use sparse_calibrate::{
    Error, LaneCalibration, NoLanes, Options, Progress, Silent, Text, calibrate, calibrate_lanes,
    drawn_evenly, measure_screen, profile, sampled,
};
use sparse_core::BatchMode;
use sparse_gguf::{BlockFormat, Gguf};
use sparse_model::{Model, Placement, Session, Sidecar, log_sum_exp};
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
        own_tokens: 128,
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
    let result = calibrate(&gguf, None, Text::of(&text(&gguf, 1400)), &options(), &mut Silent).unwrap();
    let names: Vec<&str> = result.candidates.iter().map(|c| c.name.as_str()).collect();
    // "by layer" follows if the clock says that some layer is faster than dense.
    assert_eq!(names[..3], ["dense", "exact-zero", "low-rank 32"]);
    let exact = &result.candidates[1];
    assert!(exact.loss.unwrap().nats.abs() < 1e-3, "{exact:?}");
    assert!(exact.bytes_share < 0.95, "{exact:?}");
    let chosen = result.chosen.as_ref().expect("exact zeros cost nothing");
    assert!(chosen.loss.upper() <= 0.02 && chosen.loss.tokens > 200);
    assert_eq!(chosen.layers.len(), 2);
    let sparse = |l: &&sparse_calibrate::LayerReport| l.selector != "dense";
    assert!(chosen.layers.iter().any(|l| sparse(&l)));
    for layer in chosen.layers.iter().filter(sparse) {
        assert!(
            layer.recall > 0.5 && layer.recall <= 1.0 && layer.bytes < layer.dense_bytes as f64,
            "{layer:?}"
        );
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    result.sidecar.save(&path).unwrap();
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    Sidecar::open(&path).unwrap().apply(&gguf, &mut model, Placement::Measured).unwrap();
    let names = |model: &Model| model.ffns().map(|f| f.selector().name()).collect::<Vec<_>>();
    assert_eq!(names(&model), chosen.layers.iter().map(|l| l.selector).collect::<Vec<_>>());
}

#[test]
fn predictors_can_be_chosen_by_what_they_find() {
    let gguf = gguf(Some("relu"));
    let mut found = Vec::new();
    for recall in [0.7, 0.95] {
        let options = Options { recall: Some(recall), ..options() };
        let result = calibrate(&gguf, None, Text::of(&text(&gguf, 1400)), &options, &mut Silent).unwrap();
        let names: Vec<&str> = result.candidates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names[..2], ["dense", &format!("low-rank 32, recall {:.1} %", 100.0 * recall)]);
        let layers = result.chosen.expect("whatever the loss").layers;
        // Chosen by layer, some may be dense.
        for layer in layers.iter().filter(|layer| layer.selector != "dense") {
            assert!((layer.recall - recall).abs() < 0.05, "{layer:?}");
        }
        // A candidate has its predictors in all layers, whatever the clock says.
        let candidate = &result.candidates[1];
        found.push((candidate.bytes_share, candidate.loss.expect("whatever the loss").kl));
    }
    let [(bytes, kl), (more_bytes, less_kl)] = found[..] else { panic!("two recalls") };
    assert!(bytes < more_bytes && kl > less_kl && less_kl > 0.0, "{found:?}");
}

#[test]
fn a_silu_model_stays_inside_its_budget() {
    let gguf = gguf(None);
    let result = calibrate(&gguf, None, Text::of(&text(&gguf, 1400)), &options(), &mut Silent).unwrap();
    assert!(
        result.candidates.iter().any(|c| c.name == "gate 0.4" && c.loss.is_some()),
        "{:?}",
        result.candidates
    );
    let most = result.candidates.iter().filter_map(|c| c.loss).map(|l| l.upper()).fold(0.0, f64::max);
    assert!(most > 0.01, "most of the budget is used: {:?}", result.candidates);
    let chosen = result.chosen.as_ref().expect("a few neurons can always be spared");
    assert!(chosen.loss.upper() <= 0.02 && chosen.bytes_share < 1.0, "{chosen:?}");
    let apart: f64 = chosen.layers.iter().map(|l| l.kl.expect("measured")).sum();
    assert!(apart > 0.0 && apart < 10.0 * chosen.loss.kl, "{chosen:?}");
    // Everything that was asked to be kept is used, however slow.
    assert_eq!((chosen.slower, result.sidecar.densities.is_none()), (0, true));
    assert!(result.verdict().contains("% of the feed-forward weights"), "{}", result.verdict());
    // Nothing is kept of what does not pay, unless asked for.
    let options = Options { max_loss: 1e-9, keep: false, ..options() };
    let result = calibrate(&gguf, None, Text::of(&text(&gguf, 1400)), &options, &mut Silent).unwrap();
    let pays = result.chosen.is_some_and(|c| c.pays);
    assert!(pays || result.sidecar.selectors.iter().all(|s| s.name() == "dense"));
    assert_eq!(result.sidecar.loss.is_some(), pays);
}

fn lanes(gguf: &Gguf, max_loss: f64) -> LaneCalibration {
    let options = Options { max_loss, ..options() };
    calibrate_lanes(gguf, None, Text::of(&text(gguf, 1400)), &options, &mut Silent).unwrap()
}

#[test]
fn lanes_inside_the_budget_that_save_bytes_are_kept() {
    let gguf = gguf(None);
    let result = lanes(&gguf, f64::INFINITY);
    let chosen = result.chosen.as_ref().expect("whatever the loss");
    assert_eq!((chosen.bits, chosen.file_bits, &*chosen.neurons), (3.5, 8.5, &[[0, 0, 160]; 2][..]));
    assert_eq!(result.sidecar.lanes.as_ref().map(Vec::len), Some(2));
    assert!(
        result.verdict().contains("3.50 bits per feed-forward weight, 59 % less"),
        "{}",
        result.verdict()
    );

    // Between the losses of all neurons in Bit7 and in Bit3.
    let upper = |name: &str| result.candidates.iter().find(|c| c.name == name).unwrap().loss.upper();
    let budget = 0.5 * (upper("all in Bit7") + upper("all in Bit3"));
    let result = lanes(&gguf, budget);
    let mut names: Vec<&str> = result.candidates.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|two| two[0] != two[1]) && names.len() > 4, "{names:?}");
    if let Ok(chosen) = result.chosen {
        assert!(chosen.loss.upper() <= budget && chosen.bytes < chosen.file_bytes, "{chosen:?}");
    }
}

#[test]
fn lanes_over_the_budget_or_no_smaller_than_the_file_are_not_kept() {
    // No perplexity is so much lower.
    let over = lanes(&gguf(None), -1.0);
    assert_eq!(over.chosen.as_ref().unwrap_err(), &NoLanes::OverBudget);
    assert!(over.verdict().contains("over the budget; neurons stay as they are"), "{}", over.verdict());

    let formats = vec![("ffn_", BlockFormat::Q2K)];
    let tiny = TinyLlama { embedding: 256, feed_forward: 256, formats, ..TinyLlama::default() };
    let larger = lanes(&Gguf::from_bytes(tiny.build().to_bytes()).unwrap(), f64::INFINITY);
    let nothing = NoLanes::SavesNothing { bits: 3.5, file_bits: 2.625 };
    assert_eq!(larger.chosen.as_ref().unwrap_err(), &nothing);
    assert!(larger.verdict().contains("save nothing: 3.50 bits"), "{}", larger.verdict());
    for result in [over, larger] {
        assert!(result.sidecar.lanes.is_none() && result.candidates.len() >= 4);
    }
}

#[test]
fn lanes_over_the_budget_on_other_text_are_not_kept() {
    let gguf = gguf(None);
    let text = text(&gguf, 1400);
    // One window to choose by: by its upper bound alone, the test text may be over the budget.
    let run = |max_loss: f64| {
        let options = Options { max_loss, tune_tokens: 64, ..options() };
        calibrate_lanes(&gguf, None, Text::of(&text), &options, &mut Silent).unwrap()
    };
    let all = run(f64::INFINITY);
    let narrow = all.candidates.iter().find(|c| c.name == "all in Bit3").unwrap().loss.upper();
    let measured = all.chosen.as_ref().expect("whatever the loss").loss.upper();
    // Between the two, if the test text is worse; below both otherwise.
    let budget = if measured > narrow { 0.5 * (measured + narrow) } else { 0.5 * measured };
    match run(budget).chosen {
        Ok(chosen) => assert!(chosen.loss.upper() <= budget && chosen.bits > 3.5, "{chosen:?}"),
        Err(why) => assert!(matches!(why, NoLanes::OverBudget | NoLanes::OverBudgetOnOtherText), "{why}"),
    }
}

/// The mean divergence of the model with `sidecar` from the dense one on `text`, one token after the other.
fn divergence(gguf: &Gguf, sidecar: &Sidecar, text: &[u32]) -> f64 {
    let dense = Arc::new(Model::from_gguf(gguf, 1).unwrap());
    let mut sparse = Model::from_gguf(gguf, 1).unwrap();
    sidecar.clone().apply(gguf, &mut sparse, Placement::AsCalibrated).unwrap();
    let sparse = Arc::new(sparse);
    let (mut sum, mut tokens) = (0.0, 0);
    for window in text.chunks_exact(32) {
        let logits = |model: &Arc<Model>| {
            let mut session = Session::new(model, 32).unwrap();
            session.set_batch_mode(BatchMode::Masked);
            let mut all = Vec::new();
            session.forward_each(window, |_, logits| all.push(logits.to_vec())).unwrap();
            all
        };
        for (p, q) in logits(&dense).iter().zip(&logits(&sparse)) {
            let (of_p, of_q) = (log_sum_exp(p), log_sum_exp(q));
            let pairs = p.iter().zip(q).map(|(p, q)| (f64::from(*p) - of_p, f64::from(*q) - of_q));
            sum += pairs.map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            tokens += 1;
        }
    }
    sum / f64::from(tokens)
}

#[test]
fn a_text_that_is_not_the_models_cannot_wreck_its_own() {
    let gguf = gguf(Some("relu"));
    // Three tokens over and over: predictors know them by heart, and nothing else.
    let foreign: Vec<u32> = (0..1400).map(|i| [40, 41, 7][i % 3]).collect();
    let options = Options { own_tokens: 512, ..options() };
    let result = calibrate(&gguf, None, Text::of(&foreign), &options, &mut Silent).unwrap();
    let chosen = result.chosen.as_ref().expect("exact zeros cost nothing");
    let own = chosen.loss.own.expect("measured on text of the model's own, too");
    assert!(chosen.loss.upper() <= 0.02 && own.kl.exp_m1() <= 0.02 && own.tokens > 200, "{chosen:?}");
    let found = divergence(&gguf, &result.sidecar, &text(&gguf, 640));
    assert!(found < 0.03, "{found}");
}

#[test]
fn what_there_is_no_time_for_is_not_tried_and_said() {
    for activation in [None, Some("relu")] {
        let gguf = gguf(activation);
        let options = Options { time: Duration::ZERO, keep: false, ..options() };
        let result = calibrate(&gguf, None, Text::Own, &options, &mut Silent).unwrap();
        let said =
            |name: &str| result.candidates.iter().any(|c| c.name.starts_with(name) && c.note.is_some());
        assert!(said("low-rank 32"), "{:?}", result.candidates);
        assert_eq!(said("gate and intermediate"), activation.is_none(), "{:?}", result.candidates);
        assert!(result.candidates.iter().all(|c| c.note.is_none() || c.loss.is_none()));
    }
}

#[test]
fn text_that_the_model_makes_up_is_its_own() {
    let gguf = gguf(Some("relu"));
    let options = Options { fit_tokens: 128, tune_tokens: 128, test_tokens: 128, ..options() };
    let result = calibrate(&gguf, None, Text::Own, &options, &mut Silent).unwrap();
    let loss = result.chosen.expect("exact zeros cost nothing").loss;
    assert_eq!((loss.own, loss.tokens), (None, 60));
    // Sixty tokens show nothing.
    assert!(result.concerns.iter().any(|c| c.contains("60 tokens only")), "{:?}", result.concerns);
}

#[test]
fn one_window_to_tune_by_is_enough() {
    let gguf = gguf(None);
    let options = Options { tune_tokens: 1, ..options() };
    let result = calibrate(&gguf, None, Text::of(&text(&gguf, 1400)), &options, &mut Silent).unwrap();
    assert_eq!(result.candidates[0].name, "dense");
}

#[test]
fn what_is_not_looked_at_stays() {
    let gguf = gguf(Some("relu"));
    let text = text(&gguf, 1400);
    let options = options();
    let neurons = calibrate(&gguf, None, Text::of(&text), &options, &mut Silent).unwrap().sidecar;
    let names = |sidecar: &Sidecar| sidecar.selectors.iter().map(|s| s.name()).collect::<Vec<_>>();
    let (before, loss) = (names(&neurons), neurons.loss);
    assert!(loss.is_some() && neurons.screen.is_none());

    let head = Options { ffn: false, head: true, continuations: 0, ..options.clone() };
    let both = calibrate(&gguf, Some(neurons), Text::of(&text), &head, &mut Silent).unwrap().sidecar;
    assert_eq!((names(&both), both.loss, both.screen.is_some()), (before, loss, true));
    let again = calibrate(&gguf, Some(both), Text::of(&text), &options, &mut Silent).unwrap().sidecar;
    assert!(again.screen.is_some() && again.loss.is_some());

    let other = Sidecar { fingerprint: "another".into(), ..again };
    let refused = calibrate(&gguf, Some(other), Text::of(&text), &head, &mut Silent).unwrap_err().to_string();
    assert!(refused.contains("another"), "{refused}");
}

#[test]
fn too_little_text_and_wrong_windows_are_refused() {
    let gguf = gguf(None);
    let refused = |text: &[u32], options: &Options| {
        calibrate(&gguf, None, Text::of(text), options, &mut Silent).map(|_| ()).unwrap_err().to_string()
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
        let result = calibrate(&gguf, None, Text::of(&text), &options(), &mut Until(steps));
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
    let result = calibrate(&gguf, None, Text::of(&text), &options, &mut Silent).unwrap();
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
    Sidecar::open(&path).unwrap().apply(&gguf, &mut model, Placement::Measured).unwrap();
    let report = measure_screen(&Arc::new(model), &text, 32, 4, &mut Silent).unwrap();
    assert_eq!(report.tokens, 128);
    assert!(report.agreement > 0.95, "{report:?}");
}

#[test]
fn a_short_context_has_short_continuations() {
    let tiny = TinyLlama { context: 64, ..TinyLlama::default() };
    let gguf = Gguf::from_bytes(tiny.build().to_bytes()).unwrap();
    let options = Options { ffn: false, head: true, continuations: 1, window: 64, ..options() };
    let result = calibrate(&gguf, None, Text::of(&text(&gguf, 2000)), &options, &mut Silent).unwrap();
    let continuations = result.head.unwrap().continuations.expect("asked for");
    assert_eq!((continuations.texts, continuations.tokens), (1, 32));
}
