//! Turning a knob as far as the budget allows.

use crate::Error;

/// Settings that are tried at most.
pub(crate) const TRIALS: usize = 7;
/// The share of the budget that is aimed at, and the one that ends the search.
const AIM: f64 = 0.985;
const CLOSE: f64 = 0.97;
/// The power of a setting that losses are taken to grow with until there is one on either side of
/// the budget.
const POWER: f64 = 2.0;
/// The least and the most of the way from a setting inside the budget to one outside that the next
/// trial goes.
const STEPS: (f64, f64) = (0.1, 0.9);

/// How often a setting that is over the budget on the last text is made smaller.
pub(crate) const RETRIES: usize = 4;

/// Factor that makes a setting with this loss smaller, to bring it inside the budget.
pub(crate) fn back_off(upper: f64, budget: f64) -> f32 {
    match upper.is_finite() {
        true => (budget / upper).powf(1.0 / POWER).clamp(0.5, 0.98) as f32,
        false => 0.5,
    }
}

/// A setting that was tried.
pub(crate) struct Trial<M> {
    /// Upper 95 % bound of its loss.
    pub(crate) upper: f64,
    /// Whether it saves time.
    pub(crate) pays: bool,
    /// Whether there is time for another one.
    pub(crate) more: bool,
    pub(crate) measured: M,
}

/// What a search came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome<M> {
    /// The sparsest setting found inside the budget, with what was measured there.
    Inside(f32, M),
    /// No setting was inside the budget.
    Over,
    /// A setting that saves no time is over the budget already: sparser ones cost more, denser ones
    /// save less.
    Hopeless,
}

impl<M> Outcome<M> {
    /// The setting inside the budget, if there is one.
    pub(crate) fn inside(self) -> Option<(f32, M)> {
        match self {
            Self::Inside(knob, measured) => Some((knob, measured)),
            Self::Over | Self::Hopeless => None,
        }
    }
}

/// Whether a range of settings leaves nothing to turn.
pub(crate) fn fixed((first, most): (f32, f32)) -> bool {
    first >= most
}

/// Looks for the sparsest setting whose loss, by its upper 95 % bound, is inside `budget`. Settings
/// begin with `first` and go up to `most`.
pub(crate) fn search<M>(
    (first, most): (f32, f32),
    budget: f64,
    mut measure: impl FnMut(f32) -> Result<Trial<M>, Error>,
) -> Result<Outcome<M>, Error> {
    // Settings and the logarithms of their losses over what is aimed at. A loss may be measured as
    // nothing, or not at all.
    type Tried = Option<(f64, f64)>;
    let (mut inside, mut outside): (Tried, Tried) = (None, None);
    let log = |loss: f64| if loss.is_nan() { 10.0 } else { (loss / (AIM * budget)).clamp(1e-4, 1e4).ln() };
    let mut best = Outcome::Over;
    let mut knob = first;
    for _ in 0..TRIALS {
        let Trial { upper, pays, more, measured } = measure(knob)?;
        tracing::debug!(knob, upper, pays, "tried");
        let setting = f64::from(knob);
        if upper <= budget {
            inside = Some((setting, log(upper)));
            best = Outcome::Inside(knob, measured);
            if knob >= most || upper >= CLOSE * budget {
                break;
            }
        } else {
            outside = Some((setting, log(upper)));
            if !pays {
                return Ok(if inside.is_none() { Outcome::Hopeless } else { best });
            }
        }
        let next = match (inside, outside) {
            // Straight between them, in logarithms.
            (Some((low, loss)), Some((high, more))) => {
                let share = loss / (loss - more);
                let by_loss = (low.ln() + (high.ln() - low.ln()) * share).exp();
                by_loss.clamp(low + STEPS.0 * (high - low), low + STEPS.1 * (high - low))
            }
            (Some((low, loss)), None) => low * (-loss / POWER).exp().clamp(1.2, 3.0),
            (None, outside) => setting * (outside.map_or(0.0, |o| -o.1) / POWER).exp().clamp(0.25, 0.9),
        };
        knob = (next as f32).min(most);
        if fixed((first, most)) || !more {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(upper: f64) -> Trial<()> {
        Trial { upper, pays: true, more: true, measured: () }
    }

    /// The setting that is found where `loss` is allowed to be 1, and how many were tried.
    fn found(loss: impl Fn(f32) -> f64) -> (Option<f32>, usize) {
        let mut tried = 0;
        let best = search((0.35, 0.9), 1.0, |knob| {
            tried += 1;
            assert!(knob > 0.0 && knob <= 0.9, "{knob}");
            Ok(trial(loss(knob)))
        });
        (best.unwrap().inside().map(|(knob, ())| knob), tried)
    }

    #[test]
    fn most_of_the_budget_is_used_in_a_few_trials() {
        for scale in [0.05_f64, 0.2, 0.5, 0.8] {
            for power in [1.0, 2.0, 3.0, 5.0] {
                let loss = |knob: f32| (f64::from(knob) / scale).powf(power);
                let (knob, tried) = found(loss);
                let used = loss(knob.unwrap());
                assert!(used <= 1.0 && used > 0.9, "{scale}, {power}: {used} of the budget after {tried}");
            }
            let exponential = |knob: f32| (20.0 * (f64::from(knob) - scale)).exp();
            let (knob, tried) = found(exponential);
            let used = exponential(knob.unwrap());
            assert!(used <= 1.0 && used > 0.8, "{scale}: {used} of the budget after {tried}");
        }
    }

    #[test]
    fn back_off_goes_by_how_far_over_the_budget_a_loss_is() {
        assert!((back_off(0.04, 0.02) - 0.5_f32.sqrt()).abs() < 1e-6);
        assert_eq!([back_off(0.0201, 0.02), back_off(1.0, 0.02), back_off(f64::NAN, 0.02)], [0.98, 0.5, 0.5]);
    }

    #[test]
    fn odd_losses_end_the_search_all_the_same() {
        assert_eq!(found(|_| -0.1), (Some(0.9), 2));
        assert_eq!(found(|_| 2.0), (None, TRIALS));
        assert_eq!(found(|_| f64::NAN), (None, TRIALS));
        assert_eq!(found(|_| f64::INFINITY), (None, TRIALS));
        let cliff = found(|knob| if knob < 0.5 { 0.0 } else { f64::NAN }).0.unwrap();
        assert!(cliff > 0.4 && cliff < 0.5, "{cliff}");
        // Nothing to turn: measured once, inside or not.
        for (budget, expected) in [(f64::INFINITY, Some((1.0, ()))), (0.5, None)] {
            let mut tried = 0;
            let once = search((1.0, 1.0), budget, |knob| {
                tried += 1;
                Ok(trial(f64::from(knob)))
            });
            assert_eq!((once.unwrap().inside(), tried), (expected, 1));
        }
    }

    #[test]
    fn what_costs_too_much_before_it_pays_is_dropped() {
        // The budget is reached at 0.5; time is saved from `pays` on.
        let found = |pays: f32, from: f32| {
            let mut tried = Vec::new();
            let outcome = search((from, 0.9), 1.0, |knob| {
                tried.push(knob);
                Ok(Trial { pays: knob >= pays, ..trial(4.0 * f64::from(knob).powi(2)) })
            });
            (outcome.unwrap(), tried)
        };
        let (outcome, tried) = found(0.8, 0.7);
        assert_eq!((outcome, tried), (Outcome::Hopeless, vec![0.7]));
        // Inside the budget without saving time: what is over it ends the search.
        let (outcome, tried) = found(0.8, 0.35);
        assert!(matches!(outcome, Outcome::Inside(knob, ()) if knob <= 0.5), "{outcome:?}");
        assert!(tried[..tried.len() - 1].iter().all(|knob| *knob <= 0.5), "{tried:?}");
        let (outcome, tried) = found(0.3, 0.7);
        assert!(matches!(outcome, Outcome::Inside(knob, ()) if knob > 0.45), "{outcome:?}");
        assert!(tried.len() > 1);
        // Out of time after one.
        let once = search((0.35, 0.9), 1.0, |_| Ok(Trial { more: false, ..trial(0.1) }));
        assert_eq!(once.unwrap(), Outcome::Inside(0.35, ()));
    }
}
