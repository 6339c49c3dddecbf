//! Turning a knob as far as the budget allows.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::Model;

use crate::Error;

/// Settings that are tried.
pub(crate) const TRIALS: usize = 7;
/// The least and the most of the range between a setting inside the budget and one outside that the next trial goes.
const STEPS: (f64, f64) = (0.15, 0.85);

/// Selectors with one knob, from 0, which costs (nearly) nothing, to 1, which costs far too much.
pub(crate) trait Family {
    /// For tables.
    fn name(&self) -> String;
    /// A selector for every layer.
    fn selectors(&self, knob: f32) -> Vec<Selector>;
    /// The largest setting to try.
    fn most(&self) -> f32 {
        1.0
    }
}

/// Gives every layer of `model` its selector.
pub(crate) fn equip(model: &mut Arc<Model>, selectors: Vec<Selector>) -> Result<(), Error> {
    let model = Arc::get_mut(model).expect("no session holds the model");
    for (ffn, selector) in model.ffns_mut().zip(selectors) {
        ffn.set_selector(selector)?;
    }
    Ok(())
}

/// The sparsest setting found whose loss has its upper 95 % bound inside `budget`, with what was measured there; nothing
/// if even the smallest setting tried is outside. `measure` gives that bound at a setting, and settings go up to `most`.
pub(crate) fn search<M>(
    most: f32,
    budget: f64,
    mut measure: impl FnMut(f32) -> Result<(f64, M), Error>,
) -> Result<Option<(f32, M)>, Error> {
    let most = f64::from(most);
    // Settings and their losses.
    let (mut inside, mut outside): ((f64, f64), Option<(f64, f64)>) = ((0.0, 0.0), None);
    let mut best = None;
    for _ in 0..TRIALS {
        let knob = match outside {
            None => most,
            // Losses grow faster than settings: where the straight line is inside, the loss is.
            Some((knob, loss)) => {
                let share = (budget - inside.1) / (loss - inside.1);
                inside.0 + (knob - inside.0) * share.clamp(STEPS.0, STEPS.1)
            }
        };
        let (upper, measured) = measure(knob as f32)?;
        tracing::debug!(knob, upper, "tried");
        if upper <= budget {
            inside = (knob, upper);
            best = Some((knob as f32, measured));
            if knob >= most {
                break;
            }
        } else {
            outside = Some((knob, upper));
        }
    }
    Ok(best)
}
