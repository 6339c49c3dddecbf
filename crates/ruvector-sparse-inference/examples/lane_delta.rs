//! A correction beside a network, in 7 bits: `cargo run --release --example lane_delta`.
//!
//! Somebody wants the network to add a new answer to inputs that point in a certain direction. Its weights stay as they
//! are; a low-rank delta in Bit7 is applied beside it, and can be taken off again.

use ruvector_sparse_inference::simd::Kernels;
use ruvector_sparse_inference::{LaneDelta, SparseInferenceEngine};

const DIM: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = SparseInferenceEngine::new_sparse(DIM, 2048, 0.1)?;
    let direction: Vec<f32> = (0..DIM).map(|i| (0.3 * i as f32).sin() / 16.0).collect();
    let answer: Vec<f32> = (0..DIM).map(|i| (0.7 * i as f32).cos()).collect();

    // Inputs are sixteen times as long as the direction.
    let factor: Vec<f32> = direction.iter().map(|d| d / 16.0).collect();
    let delta = LaneDelta::new(1, &factor, &answer)?;
    let mut scratch = delta.scratch();
    println!(
        "the delta takes {} bytes, {:.2} % of what the network in f32 does",
        delta.bytes(),
        100.0 * delta.bytes() as f32 / (2.0 * 4.0 * DIM as f32 * 2048.0)
    );
    for (what, share) in [("the direction itself", 1.0), ("half of it", 0.5), ("none of it", 0.0)] {
        let other = |i: usize| (0.05 * i as f32).cos();
        let x: Vec<f32> = (0..DIM).map(|i| 16.0 * share * direction[i] + (1.0 - share) * other(i)).collect();
        let before = engine.infer(&x)?;
        let mut after = before.clone();
        delta.apply(Kernels::get(), &x, &mut scratch, &mut after);
        // How much of the answer has been added, by projection.
        let added: f32 = after.iter().zip(&before).zip(&answer).map(|((a, b), r)| (a - b) * r).sum();
        let all: f32 = answer.iter().map(|r| r * r).sum();
        println!("{what}: {:.3} times the answer", added / all);
    }
    Ok(())
}
