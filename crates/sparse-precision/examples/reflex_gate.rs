//! A reflex in three bits: a gate that watches sixteen sensors, and fires while a machine shakes.
//!
//! `cargo run -p sparse-precision --example reflex_gate`

use sparse_precision::pi::PiChaos;
use sparse_precision::{Error, ReflexGate};

const SENSORS: usize = 16;
/// Readings that the gate learns from, and those that it watches.
const LEARNED: usize = 300;
const WATCHED: usize = 5000;
/// When the machine shakes.
const SHAKING: std::ops::Range<usize> = 3000..3050;

/// Reading `n`: slow waves and noise. Shaking makes the noise of half of the sensors eight times as large.
fn reading(n: usize, shaking: bool) -> Vec<f32> {
    let chaos = PiChaos::new();
    (0..SENSORS)
        .map(|s| {
            let noise = (0..4).map(|k| chaos.jitter((n * SENSORS + s) * 4 + k)).sum::<f32>();
            let factor = if shaking && s % 2 == 0 { 8.0 } else { 1.0 };
            (n as f32 / 200.0 + s as f32).sin() + factor * noise
        })
        .collect()
}

/// False alarms, and shaking readings that were found.
fn run() -> Result<(usize, usize), Error> {
    let usual: Vec<f32> = (0..LEARNED).map(|n| n * 7).flat_map(|n| reading(n, false)).collect();
    let gate = ReflexGate::learn(SENSORS, &usual)?;
    let (mut false_alarms, mut found) = (0, 0);
    for n in 0..WATCHED {
        let shaking = SHAKING.contains(&n);
        match (gate.check(&reading(10_000 + n, shaking)).fired, shaking) {
            (true, true) => found += 1,
            (true, false) => false_alarms += 1,
            _ => {}
        }
    }
    Ok((false_alarms, found))
}

fn main() -> Result<(), Error> {
    let (false_alarms, found) = run()?;
    println!("{false_alarms} false alarms in {WATCHED} readings, {found} of {} found", SHAKING.len());
    Ok(())
}

#[test]
fn the_gate_fires_while_the_machine_shakes() {
    let (false_alarms, found) = run().unwrap();
    assert!(false_alarms <= 5 && found >= SHAKING.len() * 3 / 4, "{false_alarms} {found}");
}
