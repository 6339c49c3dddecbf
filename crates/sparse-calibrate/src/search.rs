//! Turning a knob as far as the budget allows.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::Model;

use crate::Error;

/// Settings that are tried at most.
pub(crate) const TRIALS: usize = 7;
/// The share of the budget that is aimed at, and the one that ends the search.
const AIM: f64 = 0.985;
const CLOSE: f64 = 0.97;
/// The power of a setting that losses are taken to grow with until there is one on either side of the budget.
const POWER: f64 = 2.0;
/// The least and the most of the way from a setting inside the budget to one outside that the next trial goes.
const STEPS: (f64, f64) = (0.1, 0.9);

/// How often a setting that is over the budget on the last text is made smaller.
pub(crate) const RETRIES: usize = 4;

/// By which factor a setting with this loss is made smaller, to come inside the budget.
pub(crate) fn retreat(upper: f64, budget: f64) -> f32 {
    match upper.is_finite() {
        true => (budget / upper).powf(1.0 / POWER).clamp(0.5, 0.94) as f32,
        false => 0.5,
    }
}

/// Selectors with one knob, from 0, which costs (nearly) nothing, to 1, which costs far too much.
pub(crate) trait Family {
    /// For tables.
    fn name(&self) -> String;
    /// A selector for every layer.
    fn selectors(&self, knob: f32) -> Vec<Selector>;
    /// The setting to begin with, and the largest: the same if there is nothing to turn.
    fn range(&self) -> (f32, f32) {
        (1.0, 1.0)
    }
}

/// Whether a range of settings leaves nothing to turn.
pub(crate) fn fixed((first, most): (f32, f32)) -> bool {
    first >= most
}

/// Dense layers, but for one.
pub(crate) fn alone_in(layers: usize, layer: usize, selector: Selector) -> Vec<Selector> {
    let mut selectors = vec![Selector::Dense; layers];
    selectors[layer] = selector;
    selectors
}

/// Dense layers, but for the one that stays as it is.
pub(crate) fn alone(selectors: &[Selector], layer: usize) -> Vec<Selector> {
    alone_in(selectors.len(), layer, selectors[layer].clone())
}

/// Gives every layer of `model` its selector.
pub(crate) fn equip(model: &mut Arc<Model>, selectors: Vec<Selector>) -> Result<(), Error> {
    let model = Arc::get_mut(model).expect("no session holds the model");
    for (ffn, selector) in model.ffns_mut().zip(selectors) {
        ffn.set_selector(selector)?;
    }
    Ok(())
}

/// The sparsest setting found whose loss, by its upper 95 % bound, is inside `budget`, with what was measured there; nothing
/// if even the smallest setting tried is outside. `measure` gives that bound at a setting; settings begin with `first` and go up
/// to `most`.
pub(crate) fn search<M>(
    (first, most): (f32, f32),
    budget: f64,
    mut measure: impl FnMut(f32) -> Result<(f64, M), Error>,
) -> Result<Option<(f32, M)>, Error> {
    // Settings and the logarithms of their losses over what is aimed at. A loss may be measured as less than nothing, or not at all.
    type Tried = Option<(f64, f64)>;
    let (mut inside, mut outside): (Tried, Tried) = (None, None);
    let log = |loss: f64| if loss.is_nan() { 10.0 } else { (loss / (AIM * budget)).clamp(1e-4, 1e4).ln() };
    let mut best = None;
    let mut knob = first;
    for _ in 0..TRIALS {
        let (upper, measured) = measure(knob)?;
        tracing::debug!(knob, upper, "tried");
        let setting = f64::from(knob);
        if upper <= budget {
            inside = Some((setting, log(upper)));
            best = Some((knob, measured));
            if knob >= most || upper >= CLOSE * budget {
                break;
            }
        } else {
            outside = Some((setting, log(upper)));
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
        if fixed((first, most)) {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The setting that is found where `loss` is allowed to be 1, and how many were tried.
    fn found(loss: impl Fn(f32) -> f64) -> (Option<f32>, usize) {
        let mut tried = 0;
        let best = search((0.35, 0.9), 1.0, |knob| {
            tried += 1;
            assert!(knob > 0.0 && knob <= 0.9, "{knob}");
            Ok((loss(knob), ()))
        });
        (best.unwrap().map(|(knob, ())| knob), tried)
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
    fn retreats_go_by_how_far_over_the_budget_a_loss_is() {
        assert!((retreat(0.04, 0.02) - 0.5_f32.sqrt()).abs() < 1e-6);
        assert_eq!([retreat(0.0201, 0.02), retreat(1.0, 0.02), retreat(f64::NAN, 0.02)], [0.94, 0.5, 0.5]);
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
                Ok((f64::from(knob), ()))
            });
            assert_eq!((once.unwrap(), tried), (expected, 1));
        }
    }
}
