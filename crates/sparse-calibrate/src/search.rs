//! Turning a knob as far as the budget allows.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::Model;

use crate::Error;
use crate::loss::{Measured, Reference};
use crate::progress::Progress;

/// Halvings of the knob's range.
pub(crate) const HALVINGS: usize = 6;

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
/// if even the smallest setting tried is outside.
pub(crate) fn search(
    family: &dyn Family,
    sparse: &mut Arc<Model>,
    reference: &Reference,
    budget: f64,
    progress: &mut dyn Progress,
) -> Result<Option<(f32, Measured)>, Error> {
    progress.begin(&format!("trying {}", family.name()), HALVINGS * reference.windows().len());
    let (mut inside, mut outside) = (0.0, 2.0 * family.most());
    let mut best = None;
    for _ in 0..HALVINGS {
        let knob = f32::midpoint(inside, outside).min(family.most());
        equip(sparse, family.selectors(knob))?;
        let measured = reference.loss(sparse, progress)?;
        let upper = measured.loss.upper();
        tracing::debug!(family = family.name(), knob, upper, "tried");
        if upper <= budget {
            inside = knob;
            best = Some((knob, measured));
            if knob == family.most() {
                break;
            }
        } else {
            outside = knob;
        }
    }
    Ok(best)
}
