//! A stream of texts that changes its subject half way: the embeddings' lane goes up within a few steps, and comes back.
//!
//! ```text
//! cargo run --release -p sparse-integration --example stream_texts -- MODEL BEFORE.txt AFTER.txt
//! ```
//!
//! Texts are lines. Each embedding is stored in the lane that the signal is in. One text says little about the subject: two
//! about the same are 70 degrees apart. So novelty is the angle between what was stored lately and what was stored over a
//! longer time, above what that angle usually is.

use std::error::Error;
use std::fs;

use sparse_integration::{EmbeddingConfig, SparseEmbeddingProvider};
use sparse_precision::PrecisionLane;
use sparse_precision::pi::AngularEmbedding;
use sparse_precision::precision::*;

/// Share of a new embedding in the mean of the latest.
const LATELY: f32 = 1.0 / 8.0;
/// Share in the mean over a longer time, and of a new angle in the usual one.
const LONG: f32 = 1.0 / 32.0;
/// Radians of novelty that escalate, and half of which is drift.
const NOVELTY: f32 = 0.2;

/// What is usual in a stream, and how far it is from that.
#[derive(Default)]
struct Watch {
    lately: Vec<f32>,
    long: Vec<f32>,
    usual: f32,
    drift: u32,
    seen: u32,
}

impl Watch {
    fn see(&mut self, stored: &[f32]) -> GraduationMetrics {
        self.seen += 1;
        // The first values count equally.
        let share = |of_new: f32| of_new.max(1.0 / self.seen as f32);
        self.lately.resize(stored.len(), 0.0);
        self.long.resize(stored.len(), 0.0);
        follow(&mut self.lately, stored, share(LATELY));
        let angle = AngularEmbedding::new(PrecisionLane::Float).angular_distance(&self.lately, &self.long);
        follow(&mut self.long, stored, share(LONG));
        if self.seen == 1 {
            return GraduationMetrics::default();
        }
        let share = LONG.max(1.0 / (self.seen - 1) as f32);
        self.usual += share * (angle - self.usual);
        let novelty = (angle - self.usual).max(0.0);
        self.drift = if novelty > NOVELTY / 2.0 { self.drift + 1 } else { 0 };
        GraduationMetrics { novelty, drift_steps: self.drift, ..Default::default() }
    }
}

fn follow(mean: &mut [f32], x: &[f32], share: f32) {
    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += share * (x - *mean));
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, before, after] = args.as_slice() else {
        return Err("usage: stream_texts MODEL BEFORE.txt AFTER.txt".into());
    };
    let provider = SparseEmbeddingProvider::new(EmbeddingConfig::new(model))?;
    let (before, after) = (fs::read_to_string(before)?, fs::read_to_string(after)?);
    let shift = before.lines().count();
    let texts: Vec<&str> = before.lines().chain(after.lines()).collect();
    let mut policy = GraduationPolicy::new(
        PrecisionLane::Bit3,
        GraduationConfig {
            novelty_threshold: NOVELTY,
            drift_persistence_threshold: 5,
            confidence_threshold: 0.5,
            escalation_budget: 0.2,
        },
    );
    let (mut watch, mut lanes) = (Watch::default(), Vec::new());
    for (step, embedding) in provider.embed_batch(&texts)?.iter().enumerate() {
        // What the consumer of the stream has: the embedding as its lane stores it.
        let stored = AngularEmbedding::new(policy.lane()).project(embedding).decode();
        let metrics = watch.see(&stored);
        policy.update_metrics(metrics);
        let decision = policy.decide();
        if decision != GraduationDecision::Stay {
            let (novelty, drift) = (metrics.novelty, metrics.drift_steps);
            println!("step {step:4}: novelty {novelty:.2}, drift {drift:2}: {decision:?}");
        }
        lanes.push(policy.lane());
    }
    let (quiet, moved) = lanes.split_at(shift);
    let up = moved.iter().position(|lane| *lane != PrecisionLane::Bit3);
    let widest = moved.iter().max().copied().unwrap_or(PrecisionLane::Bit3);
    let back = moved.iter().rposition(|lane| *lane != PrecisionLane::Bit3);
    println!("{shift} texts, then {} others", moved.len());
    println!(
        "above Bit3 before: {} steps",
        quiet.iter().filter(|lane| **lane != PrecisionLane::Bit3).count()
    );
    match (up, back) {
        (Some(up), Some(back)) => {
            println!("goes up {} steps after the change, as far as {widest}", up + 1);
            println!("is back in Bit3 for good after {} steps", back + 2);
        }
        _ => println!("stays in Bit3 after the change"),
    }
    Ok(())
}
