//! A stream of embeddings whose topic changes half way: the policy escalates within a few steps, and comes back.
//!
//! The embeddings are made up: a direction per topic and noise around it, as those of texts about one thing are. Each is
//! stored in the lane that the signal is in, and compared with the running mean of what was stored before. How far the
//! angle to the mean is above the usual one is the novelty; as the mean moves over to the new topic, novelty goes down
//! again.
//!
//! `cargo run -p sparse-precision --example stream_shift`

use sparse_precision::pi::{AngularEmbedding, PiChaos};
use sparse_precision::precision::*;

const DIMS: usize = 384;
/// Steps with each topic.
const STEPS: usize = 100;
/// Share of a new embedding in the running mean.
const RATE: f32 = 1.0 / 12.0;

/// Embedding `n` about `topic`: half of its length is noise.
fn embedding(topic: usize, n: usize) -> Vec<f32> {
    let chaos = PiChaos::new();
    let part = |stream: usize, d: usize| chaos.jitter(stream * DIMS + d);
    (0..DIMS).map(|d| part(topic, d) + part(1000 + n, d)).collect()
}

/// The lane after each step.
fn run() -> Vec<PrecisionLane> {
    let config = GraduationConfig {
        novelty_threshold: 0.15,
        drift_persistence_threshold: 5,
        confidence_threshold: 0.5,
        escalation_budget: 0.2,
    };
    let mut policy = GraduationPolicy::new(PrecisionLane::Bit3, config);
    let (mut mean, mut usual, mut drift) = (embedding(0, 5000), 0.8, 0);
    let mut lanes = Vec::new();
    for step in 0..2 * STEPS {
        // What the consumer of the stream has: the embedding as its lane stores it.
        let lane = AngularEmbedding::new(policy.lane());
        let stored = lane.project(&embedding(step / STEPS, step)).decode();
        let angle = lane.angular_distance(&mean, &stored);
        // Radians above what is usual; a right angle is all there can be.
        let novelty = (angle - usual).max(0.0);
        drift = if novelty > 0.075 { drift + 1 } else { 0 };
        policy.update_metrics(GraduationMetrics { novelty, drift_steps: drift, ..Default::default() });
        let decision = policy.decide();
        if decision != GraduationDecision::Stay {
            println!("step {step:3}: novelty {novelty:.2}, drift {drift:2}: {decision:?}");
        }
        lanes.push(policy.lane());
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (mean, x) in mean.iter_mut().zip(&stored) {
            *mean += RATE * (x * length.max(1e-9) - *mean);
        }
        // What is usual changes slowly, and not by what is new.
        if novelty < 0.075 {
            usual += 0.05 * (angle - usual);
        }
    }
    lanes
}

fn main() {
    let lanes = run();
    let share = |lane| 100.0 * lanes.iter().filter(|l| **l == lane).count() as f32 / lanes.len() as f32;
    for lane in [PrecisionLane::Bit3, PrecisionLane::Bit5, PrecisionLane::Bit7] {
        println!("{lane}: {:.0} % of the time", share(lane));
    }
}

#[test]
fn the_policy_escalates_at_the_shift_and_comes_back() {
    let lanes = run();
    // After some steps to learn what is usual, the cheapest lane will do.
    assert!(lanes[STEPS / 2..STEPS].iter().all(|l| *l == PrecisionLane::Bit3), "{lanes:?}");
    // At the first embedding about the new topic, or the second.
    assert_eq!(lanes[STEPS + 1], PrecisionLane::Bit5, "{lanes:?}");
    // The new topic is usual soon.
    assert!(lanes[STEPS + 60..].iter().all(|l| *l == PrecisionLane::Bit3), "{lanes:?}");
}
