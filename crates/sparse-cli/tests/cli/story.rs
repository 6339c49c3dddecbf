//! The model that is shipped inside the program, against its card.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sparse_core::Selector;
use sparse_gguf::Gguf;
use sparse_model::{GenerateOptions, Model, SamplerConfig, Session, Sidecar, generate, sidecar};

use super::*;

const PROMPTS: &str = include_str!("../../story/prompts.txt");
const CARD: &str = include_str!("../../story/README.md");
/// What `tools/train/ship.py` measured.
const FIGURES: &str = include_str!("../../story/figures.json");

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("story").join(name)
}

fn model(selector: &Selector) -> Arc<Model> {
    let mut model = Model::open(path("story.gguf"), 1).unwrap();
    for ffn in model.ffns_mut() {
        ffn.set_selector(selector.clone()).unwrap();
    }
    Arc::new(model)
}

/// What `generate` prints as JSON for seeds 1 to 4 with these arguments.
fn reports(flags: &[&str]) -> Vec<Value> {
    let report = |seed: usize| {
        let seed = seed.to_string();
        let args = ["generate", "Once upon a time", "--json", "-n", "100", "--ignore-eos", "--seed", &seed];
        json(&run(&[&args, flags].concat()).ok())
    };
    (1..=4).map(report).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

#[track_caller]
fn close(found: f64, expected: &Value, within: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() < within, "found {found:.3}, the card says {expected:.3}");
}

#[test]
fn a_story_without_any_file() {
    let prompt = "Once upon a time";
    let story = run(&["generate", prompt, "--seed", "1", "-n", "80"]).ok();
    assert!(story.split_whitespace().count() > 40, "{story}");
    assert_eq!(story, run(&["generate", prompt, "--seed", "1", "-n", "80", "-t", "1"]).ok(), "one thread");
    assert_ne!(story, run(&["generate", prompt, "--seed", "2", "-n", "80"]).ok());
    let echoed = run(&["generate", prompt, "--seed", "1", "-n", "80", "--echo"]).ok();
    assert_eq!(echoed, format!("{prompt}{story}"));
}

#[test]
fn every_command_has_the_story_model() {
    assert_eq!(run(&["tokenize", " Lily", "--no-special"]).ok().lines().count(), 1);
    assert!(run(&["inspect"]).ok().contains("story"));
    let folder = Folder::new();
    let text = folder.write("text.txt", PROMPTS.replace('\n', "<|endoftext|>"));
    let measured = |which: &str, flags: &[&str]| {
        let args = args!["perplexity", "--text", &text, "--ctx", "64", "--json", "--sparse", which];
        let mut args = args.to_vec();
        args.extend(flags.iter().map(Into::into));
        json(&run(&args).ok())["perplexity"].as_f64().unwrap()
    };
    let perplexity = |which: &str| measured(which, &["--parse-special"]);
    let dense = perplexity("none");
    assert!((1.5..60.0).contains(&dense), "{dense}");
    assert!((perplexity("exact-zero") / dense - 1.0).abs() < 1e-4);
    assert!((perplexity("sidecar") / dense - 1.0).abs() < 0.03);
    // It never learnt to spell the token between stories.
    assert!(measured("none", &[]) > 1.2 * dense);
    let refused = run(&["calibrate"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--out FILE"), "{refused:?}");
}

#[test]
fn leaving_out_zeros_changes_no_text() {
    let (dense, exact) = (model(&Selector::Dense), model(&Selector::ExactZero));
    let text = |model: &Arc<Model>, prompt: &str| {
        let tokens = model.tokenizer().encode(prompt, Default::default()).unwrap();
        let mut session = Session::new(model, 64).unwrap();
        let options = GenerateOptions::new(16).sampler(SamplerConfig::greedy()).ignore_end(true);
        generate(&mut session, &tokens, &options, |_| ControlFlow::Continue(())).unwrap().tokens
    };
    let mut texts = HashSet::new();
    for prompt in PROMPTS.lines() {
        let expected = text(&dense, prompt);
        assert_eq!(text(&exact, prompt), expected, "{prompt}");
        texts.insert(expected);
    }
    assert_eq!(PROMPTS.lines().count(), 100);
    assert!(texts.len() > 60, "only {} texts differ", texts.len());
}

#[test]
fn nine_neurons_in_ten_are_zero() {
    let exact = reports(&["--sparse", "exact-zero"]);
    let dense = reports(&["--sparse", "none"]);
    let figures = json(FIGURES);
    let by_layer = figures["own_text"]["zeros_per_layer"].as_array().unwrap();
    for (i, expected) in by_layer.iter().enumerate() {
        let zeros = mean(exact.iter().map(|r| 1.0 - r["layers"][i]["down"].as_f64().unwrap()));
        close(zeros, expected, 0.04);
    }
    let zeros = mean(exact.iter().map(|r| r["skipped"].as_f64().unwrap()));
    assert!(zeros >= 0.9, "{zeros}");
    for (exact, dense) in exact.iter().zip(&dense) {
        assert_eq!(dense["skipped"], 0.0);
        assert_eq!(dense["text"], exact["text"]);
        assert_eq!(exact["layers"][0]["selector"], "exact-zero");
    }
}

#[test]
fn the_sidecar_skips_what_the_card_says() {
    let reports = reports(&[]);
    let figures = json(FIGURES);
    close(
        mean(reports.iter().map(|r| r["skipped"].as_f64().unwrap())),
        &figures["own_text"]["skipped"],
        0.03,
    );
    close(mean(reports.iter().map(computed)), &figures["own_text"]["computed"], 0.03);

    let gguf = Gguf::open(path("story.gguf")).unwrap();
    let shipped = Sidecar::open(path("story.sparse.gguf")).unwrap();
    assert_eq!(shipped.fingerprint, sidecar::fingerprint(&gguf));
    let loss = shipped.loss.unwrap();
    assert!(loss.upper() <= 0.005, "{loss:?}");
    close(loss.perplexity_increase, &figures["sidecar"]["chosen"]["loss"]["perplexity_increase"], 1e-6);
    for name in ["story.gguf", "story.sparse.gguf"] {
        assert!(std::fs::metadata(path(name)).unwrap().len() <= 8_000_000, "{name}");
    }
}

/// Share of the rows of all three matrices that were asked for: unlike bytes the same on every machine.
fn computed(report: &Value) -> f64 {
    let layers = report["layers"].as_array().unwrap();
    mean(
        layers
            .iter()
            .map(|l| ["gate", "up", "down"].map(|part| l[part].as_f64().unwrap()).iter().sum::<f64>() / 3.0),
    )
}

/// With the scalar kernels, which are the same on every CPU.
#[test]
fn the_card_shows_what_the_program_writes() {
    let prompt = PROMPTS.lines().next().unwrap();
    let mut command = sparse(&["generate", prompt, "--echo", "--seed", "1", "-n", "40"]);
    let text = Run::of(command.env("SPARSE_SIMD", "scalar").output().unwrap()).ok();
    assert!(CARD.contains(text.trim()), "not in the card: {text}");
}

#[test]
fn the_bench_compares_choices_of_neurons() {
    let sizes =
        ["bench", "--prompt", "8", "--tokens", "8", "--depth", "4", "--rounds", "2", "--threads", "1"];
    let bench = |flags: &[&str]| run(&[&sizes, flags].concat()).ok();
    let report = json(&bench(&["--sparse", "none,exact-zero,sidecar", "--json"]));
    let [none, exact, sidecar] = [0, 1, 2].map(|i| &report["threads"][i]);
    assert_eq!((&none["skipped"], &none["ffn_time_ratio"]["max"]), (&0.0.into(), &1.0.into()));
    assert_eq!(none["bytes_per_token"], report["bytes_per_token"]);
    assert_eq!(exact["sparse"], "exact-zero");
    let bytes = |figures: &Value| figures["ffn_bytes_per_token"].as_f64().unwrap();
    // All gates, and few of the rest: all of it again in layers that a busy machine takes for slower when they skip.
    assert!((1.0 / 3.0..=1.0).contains(&(bytes(exact) / bytes(none))), "{report:#}");
    assert!((0.1..1.2).contains(&(bytes(sidecar) / bytes(none))), "{report:#}");
    for figures in [none, exact, sidecar] {
        for key in ["ffn_ms_per_token", "decode_tokens_per_s"] {
            assert!(figures[key]["median"].as_f64().unwrap() > 0.0, "{figures:#}");
        }
    }
    // The same weights in another layout, but for a second rounding.
    let rows = json(&bench(&["--sparse", "dense-rows", "--json"]))["threads"][0].clone();
    assert_eq!(rows["ffn_bytes_per_token"], none["ffn_bytes_per_token"]);
    let folder = Folder::new();
    let text = folder.write("text.txt", PROMPTS);
    let losses = ["none", "dense-rows"].map(|which| {
        let args = args!["perplexity", "--text", &text, "--ctx", "64", "--json", "--sparse", which];
        json(&run(args).ok())["perplexity"].as_f64().unwrap()
    });
    assert!((losses[1] / losses[0] - 1.0).abs() < 0.05, "{losses:?}");
    let table = bench(&["--sparse", "none,exact-zero", "--text", text.to_str().unwrap()]);
    assert!(table.contains("LEFT OUT") && table.contains("exact-zero"), "{table}");
    let short = folder.write("short.txt", "Once");
    let refused = run(args!["bench", "--text", &short]);
    refused.fails(1, &["tokens, fewer than 144"]);
}

#[test]
fn the_picture_shows_every_token_and_both_times() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("neurons.svg");
    let picture = file.to_str().unwrap();
    let args = ["generate", "Once upon a time", "--seed", "1", "-n", "12", "--neurons", picture];
    run(&args).ok();
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.contains("% fire for a token"), "{svg}");
    // The first token comes out of the prompt, whose tokens are computed together.
    assert_eq!(svg.matches("rotate(55").count(), 11);
    assert_eq!(svg.matches("feed-forward, ").count(), 2);
    let heat = svg.split("d=\"").skip(1).map(|path| path.split('"').next().unwrap().len());
    assert!(heat.sum::<usize>() > 1000, "nothing is drawn");
    let missing = folder.path().join("no such folder/neurons.svg");
    run(&["generate", "x", "-n", "4", "--neurons", missing.to_str().unwrap()]).fails(1, &["no such folder"]);
}
