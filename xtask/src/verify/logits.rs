//! Logits against reference log-probabilities.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::reference::Run;

/// How far logits are from a reference.
pub(super) struct Distance {
    /// Mean KL(reference || logits) in nats over the reference's best tokens and "any other".
    pub(super) mean_kl: f64,
    /// Share of positions with the same best token.
    pub(super) top1: f64,
    /// The largest gap between the reference's two best log-probabilities where the best token differs.
    pub(super) widest_disagreement: f64,
}

/// Compares a file of `rows` rows of little-endian f32 logits, of which every `stride`-th is in the reference.
pub(super) fn compare(path: &Path, rows: usize, stride: usize, run: &Run) -> Result<Distance> {
    let mut file =
        BufReader::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?);
    let len = file.get_ref().metadata()?.len();
    let row_bytes = len / rows as u64;
    ensure!(
        rows > 0 && row_bytes > 0 && len == row_bytes * rows as u64,
        "{len} bytes are not {rows} rows of logits"
    );
    ensure!(run.top_ids.len() == rows.div_ceil(stride), "the reference has {} positions", run.top_ids.len());
    ensure!(run.top_ids.len() == run.top_logprobs.len(), "the reference has ids or probabilities only");
    let mut bytes = vec![0; row_bytes as usize];
    let (mut kl, mut agreed, mut widest) = (0.0, 0, 0.0_f64);
    for (i, (ids, reference)) in run.top_ids.iter().zip(&run.top_logprobs).enumerate() {
        file.seek(SeekFrom::Start((i * stride) as u64 * row_bytes))?;
        file.read_exact(&mut bytes)?;
        let logits: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        ensure!(logits.iter().all(|l| l.is_finite()), "a logit at position {} is not finite", i * stride);
        let found = ids.iter().map(|&id| logits.get(id).copied()).collect::<Option<Vec<f32>>>();
        let found = found.context("the reference has a larger vocabulary")?;
        let normalizer = log_sum_exp(&logits);
        let log_q: Vec<f64> = found.iter().map(|&l| f64::from(l) - normalizer).collect();
        kl += divergence(reference, &log_q);
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id);
        match (reference.as_slice(), best == ids.first().copied()) {
            (_, true) => agreed += 1,
            ([first, second, ..], false) => widest = widest.max(first - second),
            (_, false) => widest = f64::INFINITY,
        }
    }
    let n = run.top_ids.len() as f64;
    Ok(Distance { mean_kl: kl / n, top1: f64::from(agreed) / n, widest_disagreement: widest })
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&l| (f64::from(l) - max).exp()).sum::<f64>().ln()
}

/// KL(p || q) of some outcomes' log-probabilities and one more outcome, "any other".
fn divergence(log_p: &[f64], log_q: &[f64]) -> f64 {
    let rest = |logs: &[f64]| (1.0 - logs.iter().map(|l| l.exp()).sum::<f64>()).max(1e-12);
    let (rest_p, rest_q) = (rest(log_p), rest(log_q));
    let listed: f64 = log_p.iter().zip(log_q).map(|(p, q)| p.exp() * (p - q)).sum();
    listed + rest_p * (rest_p / rest_q).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(top_ids: Vec<Vec<usize>>, top_logprobs: Vec<Vec<f64>>) -> Run {
        Run { top_ids, top_logprobs, greedy: Vec::new() }
    }

    fn file(rows: &[[f32; 4]]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|l| l.to_le_bytes()).collect();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn the_same_distribution_has_no_distance_and_another_one_has_its_divergence() {
        // Probabilities 1/2, 1/4, 1/8, 1/8, at any offset of the logits.
        let ln = |x: f32| x.ln() + 7.0;
        let rows =
            [[ln(0.25), ln(0.5), ln(0.125), ln(0.125)], [0.0; 4], [ln(0.5), ln(0.25), ln(0.125), ln(0.125)]];
        let half = 0.5_f64.ln();
        let reference = run(vec![vec![1, 0]; 2], vec![vec![half, 2.0 * half]; 2]);
        let d = compare(file(&rows).path(), 3, 2, &reference).unwrap();
        // The second position kept has the two best exchanged: (1/2 - 1/4) ln 2 nats.
        assert!((d.mean_kl - 0.5 * 0.25 * 2.0_f64.ln()).abs() < 1e-6, "{}", d.mean_kl);
        assert_eq!(d.top1, 0.5);
        assert!((d.widest_disagreement - 2.0_f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let reference = || run(vec![vec![1, 0]; 2], vec![vec![-1.0, -2.0]; 2]);
        let good = [[1.0, 2.0, 3.0, 4.0]; 2];
        assert!(compare(file(&good).path(), 3, 1, &reference()).is_err());
        assert!(compare(file(&good).path(), 2, 2, &reference()).is_err());
        let large = run(vec![vec![9, 0]; 2], vec![vec![-1.0, -2.0]; 2]);
        assert!(compare(file(&good).path(), 2, 1, &large).is_err());
        assert!(compare(file(&[[f32::NAN; 4]; 2]).path(), 2, 1, &reference()).is_err());
        assert!(compare(file(&good).path(), 2, 1, &reference()).is_ok());
    }
}
