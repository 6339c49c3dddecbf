use super::*;
use crate::pi::PiChaos;
use PrecisionLane::{Bit3, Bit5, Bit7, Float};
use alloc::vec::Vec;

const LANES: [PrecisionLane; 3] = [Bit3, Bit5, Bit7];

/// A signal that is uniform over `share` of the range, and its codes.
fn signal(lane: PrecisionLane, share: f32, samples: usize, trial: usize) -> (Vec<f32>, Vec<i8>) {
    let (chaos, calibration) = (PiChaos::new(), PiCalibration::for_lane(lane));
    let x: Vec<f32> = (0..samples).map(|i| share * chaos.jitter(trial * samples + i)).collect();
    let codes = x.iter().map(|x| calibration.code(*x).unwrap()).collect();
    (x, codes)
}

fn values(lane: PrecisionLane, codes: &[i8]) -> Vec<f32> {
    codes.iter().map(|q| PiCalibration::for_lane(lane).value(*q)).collect()
}

/// Trials of [`DriftDetector::WINDOW`] samples in which a detector of its own found what `spoil` does.
fn found(lane: PrecisionLane, trials: usize, mut spoil: impl FnMut(usize, &mut Vec<i8>)) -> usize {
    let wrong = |trial: &usize| {
        let (x, mut codes) = signal(lane, 1.0, DriftDetector::WINDOW, *trial);
        spoil(*trial, &mut codes);
        !DriftDetector::new(lane).check(&x, &values(lane, &codes)).is_honest
    };
    (0..trials).filter(wrong).count()
}

/// Code bits, as a lane of `bits` bits stores them, changed.
fn change(code: i8, bits: u32, f: impl Fn(u8) -> u8) -> i8 {
    let shift = 8 - bits;
    (f(code as u8) << shift) as i8 >> shift
}

#[test]
fn honest_rounding_raises_no_alarm() {
    for lane in LANES {
        assert_eq!(found(lane, 33_334, |_, _| ()), 0, "{lane}");
        for share in [0.9, 0.5, 0.1] {
            let trials = 3000;
            let alarm = |trial: &usize| {
                let (x, codes) = signal(lane, share, DriftDetector::WINDOW, *trial);
                let honesty = DriftDetector::new(lane).check(&x, &values(lane, &codes));
                !honesty.is_honest || honesty.should_escalate
            };
            // A tenth of the range is less than half a step of Bit3: nothing is left of the signal, which is no false alarm.
            let expected = if (lane, share) == (Bit3, 0.1) { trials } else { 0 };
            assert_eq!((0..trials).filter(alarm).count(), expected, "{lane} {share}");
        }
    }
}

#[test]
fn a_single_flipped_bit_is_found() {
    for lane in LANES {
        let flipped = found(lane, 2000, |trial, codes| {
            let (at, bit) = (trial * 31 % codes.len(), trial as u32 % lane.bits());
            codes[at] = change(codes[at], lane.bits(), |q| q ^ 1 << bit);
        });
        assert!(flipped >= 1980, "{lane}: {flipped} of 2000");
    }
}

#[test]
fn a_stuck_bit_is_found() {
    for lane in LANES {
        for (bit, one) in (0..lane.bits()).flat_map(|bit| [(bit, false), (bit, true)]) {
            let stuck = found(lane, 200, |_, codes| {
                for q in codes {
                    *q = change(*q, lane.bits(), |q| if one { q | 1 << bit } else { q & !(1 << bit) });
                }
            });
            assert!(stuck >= 198, "{lane} bit {bit} at {one}: {stuck} of 200");
        }
    }
}

#[test]
fn a_lane_that_is_a_bit_too_narrow_is_found_and_escalates() {
    for lane in LANES {
        let high = f32::from((1 << (lane.bits() - 2)) - 1i8);
        for trial in 0..500 {
            let (x, _) = signal(lane, 1.0, DriftDetector::WINDOW, trial);
            let narrow: Vec<f32> = x.iter().map(|x| libm::rintf(x * high) / high).collect();
            let honesty = DriftDetector::new(lane).check(&x, &narrow);
            assert!(!honesty.is_honest && honesty.should_escalate, "{lane}: {honesty:?}");
        }
    }
}

#[test]
fn nothing_but_zeros_is_found_however_small_the_signal() {
    for lane in LANES {
        for (share, trial) in [1.0, 0.1, 0.01, 1e-6].into_iter().flat_map(|s| (0..100).map(move |t| (s, t))) {
            let (x, codes) = signal(lane, share, DriftDetector::WINDOW, trial);
            let honesty = DriftDetector::new(lane).check(&x, &values(lane, &alloc::vec![0; codes.len()]));
            assert!(!honesty.is_honest && honesty.should_escalate, "{lane} {share}: {honesty:?}");
        }
        // Silence is silence.
        let honesty = DriftDetector::new(lane).check(&[0.0; 64], &[0.0; 64]);
        assert!(honesty.is_honest && !honesty.should_escalate && honesty.snr == f32::INFINITY);
    }
}

#[test]
fn honest_errors_of_any_shape_never_escalate() {
    // Errors of exactly half a step have the largest RMS there can be.
    for lane in LANES {
        let step = PiCalibration::for_lane(lane).step();
        let x: Vec<f32> = (0..300).map(|i| if i % 2 == 0 { 1.0 } else { 1.0 - step }).collect();
        let y: Vec<f32> = x.iter().map(|x| x - 0.5 * step).collect();
        let honesty = DriftDetector::new(lane).check(&x, &y);
        assert!(!honesty.should_escalate && (honesty.ratio - 1.732).abs() < 0.01, "{honesty:?}");
    }
}

#[test]
fn errors_of_a_whole_turn_show_in_values_alone() {
    for lane in LANES {
        let (x, codes) = signal(lane, 1.0, DriftDetector::WINDOW, 3);
        let turn = PiCalibration::for_lane(lane).step() * (1u32 << lane.bits()) as f32;
        let wrapped: Vec<f32> = values(lane, &codes).iter().map(|y| y + turn).collect();
        let honesty = DriftDetector::new(lane).check(&x, &wrapped);
        assert!(!honesty.is_honest && honesty.should_escalate, "{lane}");
        assert!(honesty.ratio > 10.0 && honesty.phase_ratio < 1.4, "{lane}: {honesty:?}");
    }
}

/// Rounding that gets coarser with every check, and then stays as it is: the ring of chunks goes round many times.
#[test]
fn the_trend_outlives_the_ring() {
    let coarse = |x: f32, factor: f32| {
        let step = PiCalibration::for_lane(Bit7).step() * factor;
        libm::rintf(x / step) * step
    };
    let mut detector = DriftDetector::new(Bit7);
    for check in 0..200 {
        let (x, _) = signal(Bit7, 1.0, 50, check);
        let factor = 1.0 + 0.05 * check.min(100) as f32;
        let y: Vec<f32> = x.iter().map(|x| coarse(*x, factor)).collect();
        let honesty = detector.check(&x, &y);
        // A chunk of 64 samples is 1.28 checks: 0.064 per chunk, and up to 0.02 of noise.
        match check {
            20..=100 => assert!((honesty.trend - 0.064).abs() < 0.064, "{check}: {honesty:?}"),
            125.. => assert!(honesty.trend.abs() < 0.064, "{check}: {honesty:?}"),
            _ => {}
        }
        assert!((DriftDetector::WINDOW..320).contains(&honesty.samples) || check < 6);
    }
}

#[test]
fn what_is_no_number_is_not_honest() {
    for bad in [f32::NAN, f32::INFINITY] {
        for (x, y) in [([0.5, bad], [0.5, 0.5]), ([0.5, 0.5], [bad, 0.5]), ([bad, 0.0], [bad, 0.0])] {
            let honesty = DriftDetector::new(Bit7).check(&x, &y);
            assert!(!honesty.is_honest && honesty.should_escalate, "{honesty:?}");
        }
    }
}

#[test]
fn floats_are_honest_about_themselves() {
    let x: Vec<f32> = (0..400).map(|i| PiChaos::new().jitter(i)).collect();
    assert!(DriftDetector::new(Float).check(&x, &x).is_honest);
    let halves: Vec<f32> = x.iter().map(|x| libm::rintf(x * 1000.0) / 1000.0).collect();
    assert!(DriftDetector::new(Float).check(&x, &halves).should_escalate);
}
