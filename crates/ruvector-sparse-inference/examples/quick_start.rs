//! A sparse engine beside the same network dense: `cargo run --release --example quick_start`.

use ruvector_sparse_inference::{Error, SparseInferenceEngine};

const DIM: usize = 512;
const TOKENS: usize = 200;

fn main() -> Result<(), Error> {
    let mut sparse = SparseInferenceEngine::new_sparse(DIM, 2048, 0.1)?;
    let dense = SparseInferenceEngine::new_dense(DIM, 2048)?;
    let samples: Vec<Vec<f32>> = (0..2 * TOKENS).map(wave).collect();
    let (seen, unseen) = samples.split_at(TOKENS);
    sparse.calibrate(seen)?;

    let (mut lost, mut all) = (0.0, 0.0);
    for input in unseen {
        for (y, expected) in sparse.infer(input)?.iter().zip(dense.infer(input)?) {
            lost += (y - expected).powi(2);
            all += expected.powi(2);
        }
    }
    let statistics = sparse.sparsity_statistics();
    println!("{} inputs that calibration did not see:", statistics.counts.tokens);
    println!("  rows of W1 computed    {:6.2} %", 100.0 * statistics.up_density());
    println!("  columns of W2 used     {:6.2} %", 100.0 * statistics.down_density());
    println!("  bytes read             {:6.2} %, predictor included", 100.0 * statistics.bytes_share());
    println!("  energy of the error    {:6.3} % of the output's", 100.0 * lost / all);
    if let Some(quality) = statistics.quality {
        println!("{} that it saw:", seen.len());
        println!("  recall                 {:6.2} %", 100.0 * quality.recall());
        println!("  precision              {:6.2} %", 100.0 * quality.precision());
        println!("  kept energy            {:6.2} %", 100.0 * quality.kept_energy());
    }
    Ok(())
}

/// A sound of two tones that change from token to token.
fn wave(t: usize) -> Vec<f32> {
    let (a, b) = (0.05 + 0.013 * t as f32, 1.3 + 0.007 * t as f32);
    (0..DIM).map(|i| (a * i as f32).sin() + (b * i as f32 + t as f32).cos()).collect()
}
