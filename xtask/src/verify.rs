//! `verify`: the real model against reference figures that llama.cpp made.

mod embeddings;
mod idle;
mod logits;
mod reference;
mod story;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use sparse_gguf::{BlockFormat, Gguf, GgufWriter};

use crate::interrupt;
use crate::program::{output, program};
use logits::Distance;
use reference::{Greedy, Reference, Run};

/// Checks SmolLM2 against llama.cpp: token ids, logits, greedy texts.
///
/// The figures come from tools/reference/smollm2-q4_1.json (tools/reference/README.md says how they were made and why the
/// bars are what they are). Needs `cargo xtask fetch` before; builds the programs it runs in release mode; takes about a
/// minute and, for a while, 540 MB of disk beside the model.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to check instead.
    what: Option<What>,
    /// The model [default: where `cargo xtask fetch` puts it].
    #[arg(long)]
    model: Option<PathBuf>,
    /// Threads to compute on.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The story model inside the program: leaving out exact zeros changes none of a hundred greedy texts.
    Story,
    /// The generated model whose neurons are idle (`cargo xtask gen idle`): leaving out exact zeros changes no logit.
    Idle,
    /// all-MiniLM-L6-v2 (`cargo xtask fetch minilm`): sentence embeddings against the sentence-transformers library's.
    Minilm,
}

/// Widened to F32 nothing rounds but floats: llama.cpp is 6e-7 away from itself there.
const EXACT_KL: f64 = 1e-5;
/// Two best log-probabilities this close may change places there.
const EXACT_TIE: f64 = 0.02;
/// On the quantized file we may be as far from the exact figures as llama.cpp is; the rest is chance of 256 positions.
const NOISE_RATIO: f64 = 1.3;
/// llama.cpp against itself differs where the gap is as large as 0.5.
const QUANTIZED_TIE: f64 = 0.75;

pub(crate) fn run(args: &Args) -> Result<()> {
    match args.what {
        Some(What::Story) => return story::run(args.threads),
        Some(What::Idle) => return idle::run(args.model.as_deref(), args.threads),
        Some(What::Minilm) => return embeddings::run(args.model.as_deref(), args.threads),
        None => {}
    }
    let reference = Reference::read(&crate::root().join("tools/reference/smollm2-q4_1.json"))?;
    let model = args.model.clone().unwrap_or_else(|| crate::models().join(&reference.model));
    ensure!(model.exists(), "{} is not there: run `cargo xtask fetch`", model.display());
    let folder = model.parent().unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".verify-").tempdir_in(folder)?;
    let mut checks = Checks { args, folder: temporary.path(), failed: 0 };

    checks.tokens(&model, &reference)?;
    let wide = temporary.path().join("f32.gguf");
    widen(&model, &wide)?;
    let exact = checks.distance(&wide, &reference, &reference.exact)?;
    checks.report(
        "F32 copy: logits",
        exact.mean_kl < EXACT_KL && exact.widest_disagreement < EXACT_TIE,
        &format!(
            "KL {:.1e} (bar {EXACT_KL:.0e}), top-1 {:.1} %, widest gap disagreed {:.3} (bar {EXACT_TIE})",
            exact.mean_kl,
            100.0 * exact.top1,
            exact.widest_disagreement
        ),
    );
    checks.greedy("F32 copy", &wide, &reference.exact.greedy, EXACT_TIE)?;
    let ours = checks.distance(&model, &reference, &reference.exact)?;
    let ratio = ours.mean_kl / reference.llama_cpp_quantized_against_exact.kl_mean;
    checks.report("as it is: logits", ratio < NOISE_RATIO && ours.widest_disagreement < QUANTIZED_TIE, &format!(
        "KL to the exact logits {:.1e}, {ratio:.2} of llama.cpp's (bar {NOISE_RATIO}), top-1 {:.1} % (llama.cpp {:.1} %)",
        ours.mean_kl,
        100.0 * ours.top1,
        100.0 * reference.llama_cpp_quantized_against_exact.top1,
    ));
    let between = checks.distance(&model, &reference, &reference.quantized)?;
    println!("     as it is: KL to llama.cpp {:.1e}, top-1 {:.1} %", between.mean_kl, 100.0 * between.top1);
    checks.greedy("as it is", &model, &reference.quantized.greedy, QUANTIZED_TIE)?;
    if checks.failed > 0 {
        bail!("{} of the checks failed", checks.failed);
    }
    println!("all checks passed");
    Ok(())
}

struct Checks<'a> {
    args: &'a Args,
    folder: &'a Path,
    failed: usize,
}

impl Checks<'_> {
    fn report(&mut self, what: &str, good: bool, details: &str) {
        println!("{} {what}: {details}", if good { "ok  " } else { "FAIL" });
        self.failed += usize::from(!good);
    }

    fn tokens(&mut self, model: &Path, reference: &Reference) -> Result<()> {
        let prose = fs::read_to_string(crate::root().join("tools/reference/prose.txt"))?;
        let prose = (prose.as_str(), &reference.prose_ids, false);
        let plain = reference.tokenize.iter().map(|case| (case.text.as_str(), &case.ids, false));
        let special = reference.tokenize_special.iter().map(|case| (case.text.as_str(), &case.ids, true));
        let cases: Vec<_> = std::iter::once(prose).chain(plain).chain(special).collect();
        let mut wrong = Vec::new();
        for &(text, expected, parse_special) in &cases {
            let file = self.folder.join("text");
            fs::write(&file, text)?;
            let mut command = program("sparse-cli", &["--bin", "sparse"]);
            command.args(["tokenize", "--ids", "--model"]).arg(model).arg("--file").arg(&file);
            if parse_special {
                command.arg("--parse-special");
            }
            let ids: Vec<u32> = serde_json::from_slice(&output(&mut command)?)?;
            if ids != *expected {
                wrong.push(format!("{:?}: {ids:?}, expected {expected:?}", shortened(text)));
            }
        }
        let details = match wrong.first() {
            Some(first) => format!("{} of {} texts differ, first {first}", wrong.len(), cases.len()),
            None => {
                format!("{} texts, the prose of {} tokens among them", cases.len(), reference.prose_ids.len())
            }
        };
        self.report("token ids", wrong.is_empty(), &details);
        Ok(())
    }

    /// Runs the prose and compares the logits with those of `run`.
    fn distance(&self, model: &Path, reference: &Reference, run: &Run) -> Result<Distance> {
        let (tokens, out) = (self.folder.join("tokens.json"), self.folder.join("logits.f32"));
        let ids = &reference.prose_ids[..reference.tokens.min(reference.prose_ids.len())];
        fs::write(&tokens, serde_json::to_string(ids)?)?;
        let mut command = program("sparse-cli", &["--features", "logits", "--bin", "logits"]);
        command.arg(model).arg(&tokens).arg(&out).args(["--ctx", &ids.len().to_string()]);
        command.args(["--threads", &self.args.threads.to_string()]);
        output(&mut command)?;
        let distance = logits::compare(&out, ids.len(), reference.stride, run);
        fs::remove_file(&out)?;
        distance
    }

    /// The same greedy texts up to a step whose two best logits are closer than `tie`.
    fn greedy(&mut self, what: &str, model: &Path, expected: &[Greedy], tie: f64) -> Result<()> {
        let (mut good, mut parted) = (true, Vec::new());
        for text in expected {
            let mut command = program("sparse-cli", &["--bin", "sparse"]);
            command.args(["generate", "--greedy", "--json", "--ignore-eos", "--model"]).arg(model);
            command.args(["--max-tokens", &text.ids.len().to_string()]);
            command.args(["--threads", &self.args.threads.to_string(), "--", &text.prompt]);
            let found: reference::Generated = serde_json::from_slice(&output(&mut command)?)?;
            ensure!(
                found.tokens.len() == text.ids.len(),
                "{:?} got {} tokens",
                text.prompt,
                found.tokens.len()
            );
            if let Some(step) = (0..text.ids.len()).find(|&i| found.tokens[i] != text.ids[i]) {
                let gap = text.gaps.get(step).copied().unwrap_or(f64::INFINITY);
                good &= gap < tie;
                parted.push(format!("{step} (gap {gap:.3})"));
            }
        }
        let details = match parted.is_empty() {
            true => format!("{} texts, all the same", expected.len()),
            false => format!(
                "{} texts, {} part at a step: {} (bar: gap {tie})",
                expected.len(),
                parted.len(),
                parted.join(", ")
            ),
        };
        self.report(&format!("{what}: greedy texts"), good, &details);
        Ok(())
    }
}

/// Writes the same model with all tensors widened to F32.
fn widen(model: &Path, out: &Path) -> Result<()> {
    let gguf = Gguf::open(model)?;
    let mut writer = GgufWriter::new(gguf.metadata().clone());
    for t in gguf.tensors() {
        writer.tensor(&t.name, &t.dims, BlockFormat::F32)?;
    }
    let mut file = writer.create(out)?;
    for t in gguf.tensors() {
        interrupt::check()?;
        let values = gguf.tensor(&t.name)?.dequantize()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        file.write(&t.name, &bytes)?;
    }
    file.finish()?;
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
