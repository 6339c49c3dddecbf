use super::*;
use GraduationDecision::{Demote, Escalate, Stay};
use PrecisionLane::{Bit3, Bit5, Bit7, Float};
use alloc::vec::Vec;
use proptest::prelude::*;

const CONFIG: GraduationConfig = GraduationConfig {
    novelty_threshold: 0.3,
    drift_persistence_threshold: 5,
    confidence_threshold: 0.8,
    escalation_budget: 0.2,
};

/// The decision at the first update.
fn first(lane: PrecisionLane, metrics: GraduationMetrics) -> GraduationDecision {
    let mut policy = GraduationPolicy::new(lane, CONFIG);
    policy.update_metrics(metrics);
    policy.decide()
}

const QUIET: GraduationMetrics = GraduationMetrics {
    novelty: 0.0,
    drift_steps: 0,
    confidence: 0.9,
    cost_usage: 0.1,
    velocity: 1.0,
    active_neurons: 1.0,
    action_needed: false,
};

#[test]
fn the_table() {
    let new = GraduationMetrics { novelty: 0.31, ..QUIET };
    let drifts = GraduationMetrics { drift_steps: 5, ..QUIET };
    let table = [
        // (what, lane, metrics, decision)
        ("new", Bit5, new, Escalate(Bit7)),
        ("new, at the bottom", Bit3, new, Escalate(Bit5)),
        ("new, below floats", Bit7, new, Escalate(Float)),
        ("new, at the top", Float, new, Stay),
        ("not new enough", Bit5, GraduationMetrics { novelty: 0.3, ..QUIET }, Stay),
        ("drift", Bit5, drifts, Escalate(Bit7)),
        ("too little drift", Bit5, GraduationMetrics { drift_steps: 4, ..QUIET }, Stay),
        ("new and just sure enough", Bit5, GraduationMetrics { confidence: 0.8, ..new }, Escalate(Bit7)),
        (
            "new, unsure, needed",
            Bit5,
            GraduationMetrics { confidence: 0.7, action_needed: true, ..new },
            Stay,
        ),
        ("new, unsure, not needed", Bit5, GraduationMetrics { confidence: 0.7, ..new }, Demote(Bit3)),
        ("new and too dear", Bit5, GraduationMetrics { cost_usage: 0.2, ..new }, Stay),
        ("drift and too dear", Bit5, GraduationMetrics { cost_usage: 0.3, ..drifts }, Stay),
        ("new and stalled", Bit5, GraduationMetrics { velocity: 0.0, ..new }, Escalate(Bit7)),
        ("stalled", Bit5, GraduationMetrics { velocity: 0.009, ..QUIET }, Demote(Bit3)),
        ("slow", Bit5, GraduationMetrics { velocity: 0.01, ..QUIET }, Stay),
        ("idle", Bit7, GraduationMetrics { active_neurons: 0.009, ..QUIET }, Demote(Bit5)),
        ("stalled, at the bottom", Bit3, GraduationMetrics { velocity: 0.0, ..QUIET }, Stay),
        ("unsure, not needed", Float, GraduationMetrics { confidence: 0.79, ..QUIET }, Demote(Bit7)),
        ("unsure, needed", Float, GraduationMetrics { confidence: 0.0, action_needed: true, ..QUIET }, Stay),
        ("quiet", Bit5, QUIET, Stay),
        ("nothing known", Bit5, GraduationMetrics::default(), Stay),
        ("no numbers", Bit5, GraduationMetrics { novelty: f32::NAN, confidence: f32::NAN, ..QUIET }, Stay),
    ];
    let wrong: Vec<_> = table
        .into_iter()
        .map(|(what, lane, metrics, expected)| (what, first(lane, metrics), expected))
        .filter(|(_, found, expected)| found != expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn stable_for_the_dwell_time_and_no_earlier() {
    let mut policy = GraduationPolicy::new(Float, CONFIG);
    let mut changes = Vec::new();
    for step in 1..=40 {
        policy.update_metrics(QUIET);
        if policy.decide() != Stay {
            changes.push((step, policy.lane()));
        }
    }
    assert_eq!(changes, [(8, Bit7), (16, Bit5), (24, Bit3)]);
    // A little drift is news, though not enough to escalate.
    let mut policy = GraduationPolicy::new(Bit5, CONFIG);
    for step in 0..100 {
        policy.update_metrics(GraduationMetrics { drift_steps: u32::from(step % 7 == 0), ..QUIET });
        assert_eq!(policy.decide(), Stay);
    }
}

#[test]
fn escalations_spend_and_time_pays_back() {
    let config = GraduationConfig { escalation_budget: 0.1, ..CONFIG };
    let new = GraduationMetrics { novelty: 1.0, cost_usage: 0.0, ..QUIET };
    let mut policy = GraduationPolicy::new(Bit3, config);
    let mut at = Vec::new();
    for step in 1..=200 {
        policy.update_metrics(new);
        if policy.decide() != Stay {
            at.push((step, policy.lane(), policy.spent()));
        }
        assert_eq!(policy.decide(), Stay, "only once per update");
    }
    // 1/16 is spent at step 1, of which 8/256 are back at step 9; with both spent, 0.1 is reached again before Float.
    assert_eq!(at.iter().map(|a| (a.0, a.1)).collect::<Vec<_>>(), [(1, Bit5), (9, Bit7), (17, Float)]);
    assert!((at[1].2 - (2.0 / 16.0 - 8.0 / 256.0)).abs() < 1e-6);
    assert!(at[2].2 > 0.8 && policy.spent() < 0.15, "{at:?} {}", policy.spent());
    // With less to spend the second step has to wait until some of the first is paid back.
    let mut policy = GraduationPolicy::new(Bit3, GraduationConfig { escalation_budget: 0.01, ..CONFIG });
    let mut escalated = Vec::new();
    for step in 1..=40 {
        policy.update_metrics(new);
        if policy.decide() != Stay {
            escalated.push(step);
        }
    }
    // 16/256 less 14/256 is the first below 0.01; then there are 18/256.
    assert_eq!(escalated, [1, 15, 31]);
}

#[test]
fn the_last_escalation_may_overdraw_and_is_the_last_until_paid_back() {
    let mut policy = GraduationPolicy::new(Bit7, CONFIG);
    let new = GraduationMetrics { novelty: 1.0, cost_usage: 0.0, ..QUIET };
    policy.update_metrics(new);
    assert_eq!(policy.decide(), Escalate(Float));
    assert_eq!(policy.spent(), 25.0 / 32.0);
    // Down again by doubt, and then up as soon as less than the budget is owed: 200/256 less 149/256.
    let unsure = GraduationMetrics { confidence: 0.0, ..QUIET };
    let mut escalated = Vec::new();
    for step in 1..=200 {
        policy.update_metrics(if policy.lane() == Float { unsure } else { new });
        if policy.decide() == Escalate(Float) {
            escalated.push(step);
        }
    }
    assert_eq!(escalated, [149]);
}

fn metrics() -> impl Strategy<Value = GraduationMetrics> {
    let share = || prop_oneof![Just(0.0f32), Just(1.0), -0.5f32..1.5, Just(f32::NAN), Just(f32::INFINITY)];
    (
        share(),
        prop_oneof![Just(0), 0u32..10, Just(u32::MAX)],
        share(),
        share(),
        share(),
        share(),
        any::<bool>(),
    )
        .prop_map(
            |(novelty, drift_steps, confidence, cost_usage, velocity, active_neurons, action_needed)| {
                GraduationMetrics {
                    novelty,
                    drift_steps,
                    confidence,
                    cost_usage,
                    velocity,
                    active_neurons,
                    action_needed,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_input_makes_it_flap_or_leave_the_lanes(
        inputs in proptest::collection::vec((metrics(), 1usize..3), 1..300),
        start in 0usize..4,
        budget in 0.0f32..2.0,
    ) {
        let config = GraduationConfig { escalation_budget: budget, ..CONFIG };
        let mut policy = GraduationPolicy::new(PrecisionLane::ALL[start], config);
        let (mut last, mut spent, mut before) = (None, 0.0, policy.lane());
        for (step, (metrics, times)) in inputs.iter().enumerate() {
            policy.update_metrics(*metrics);
            for _ in 0..*times {
                match policy.decide() {
                    Stay => prop_assert_eq!(policy.lane(), before),
                    decision => {
                        let expected = match decision {
                            Escalate(_) => before.wider().map(Escalate),
                            _ => before.narrower().map(Demote),
                        };
                        prop_assert_eq!(Some(decision), expected);
                        if let Escalate(lane) = decision {
                            spent += cost(before, lane);
                            prop_assert_eq!(Some(lane), before.wider());
                        }
                        let apart = last.map_or(usize::MAX, |last| step - last);
                        prop_assert!(apart >= GraduationPolicy::DWELL as usize, "{} after {}", step, apart);
                        (last, before) = (Some(step), policy.lane());
                    }
                }
            }
            // Never more than the budget, what time gave back, and the one escalation that overdraws.
            let most = budget + GraduationPolicy::REFILL * (step + 1) as f32 + 25.0 / 32.0;
            prop_assert!(spent <= most + 1e-4, "{} of {}", spent, most);
            prop_assert!(policy.spent() >= 0.0);
        }
    }
}
