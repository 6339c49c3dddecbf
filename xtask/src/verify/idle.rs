//! A model whose neurons are idle nine times in ten: leaving out zeros changes no logit.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::program::{output, program};

/// Positions compared.
const TOKENS: usize = 128;
/// How far logits may be off, relative to the largest of their position.
const BAR: f32 = 1e-5;

/// Fails unless the logits of all neurons and those of the neurons that are not zero agree at every position. On both sides the
/// down projections are sorted by columns: by rows the order of additions is another, and rounding activations amplifies that.
pub(super) fn run(model: Option<&Path>, threads: usize) -> Result<()> {
    let model = model.map_or_else(|| crate::models().join("idle.Q4_0.gguf"), Path::to_owned);
    ensure!(
        model.exists(),
        "{} is not there: run `cargo xtask gen idle --format Q4_0 --out {0}`",
        model.display()
    );
    let folder = tempfile::tempdir()?;
    let tokens = folder.path().join("tokens.json");
    // Any will do: the weights are random.
    let ids: Vec<usize> = (0..TOKENS).map(|i| (i * i * 613 + 17) % 4096).collect();
    fs::write(&tokens, serde_json::to_vec(&ids)?)?;
    let logits = |flags: &[&str]| -> Result<Vec<f32>> {
        let out = folder.path().join("logits.f32");
        let mut command = program("sparse-cli", &["--features", "logits", "--bin", "logits"]);
        command
            .args([&model, &tokens, &out])
            .args(["--one-by-one", "--threads", &threads.to_string()])
            .args(flags);
        output(&mut command)?;
        let bytes = fs::read(&out)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    };
    let (dense, exact) = (logits(&["--by-columns"])?, logits(&["--exact-zero"])?);
    ensure!(dense.len() == exact.len() && !dense.is_empty(), "{} and {} logits", dense.len(), exact.len());
    let vocabulary = dense.len() / TOKENS;
    let (mut worst, mut agreed) = (0.0_f32, 0);
    for (dense, exact) in dense.chunks(vocabulary).zip(exact.chunks(vocabulary)) {
        ensure!(dense.iter().chain(exact).all(|l| l.is_finite()), "a logit is not finite");
        let largest = dense.iter().fold(0.0_f32, |m, l| m.max(l.abs()));
        let off = dense.iter().zip(exact).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        worst = worst.max(off / largest);
        agreed += usize::from(best(dense) == best(exact));
    }
    let found = format!(
        "{TOKENS} positions, off by at most {worst:.1e} (bar {BAR:.0e}), {agreed} of the best tokens the same"
    );
    if worst > BAR || agreed < TOKENS {
        bail!("exact zeros left out: {found}");
    }
    println!("ok   exact zeros left out: {found}");
    Ok(())
}

fn best(logits: &[f32]) -> Option<usize> {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id)
}
