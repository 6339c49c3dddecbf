//! Selectors for all layers of a model, with one knob.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::Model;

use crate::Error;

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
pub(crate) fn set_selectors(model: &mut Arc<Model>, selectors: Vec<Selector>) -> Result<(), Error> {
    let model = Arc::get_mut(model).expect("no session holds the model");
    for (ffn, selector) in model.ffns_mut().zip(selectors) {
        ffn.set_selector(selector)?;
    }
    Ok(())
}

/// Whether these are the selectors of the dense model.
pub(crate) fn leaves_nothing_out(selectors: &[Selector]) -> bool {
    selectors.iter().all(|s| matches!(s, Selector::Dense))
}

/// Computes the neurons that are not zero: lossless.
pub(crate) struct ExactZero {
    pub(crate) layers: usize,
}

impl Family for ExactZero {
    fn name(&self) -> String {
        Selector::ExactZero.name().into()
    }

    fn selectors(&self, _: f32) -> Vec<Selector> {
        vec![Selector::ExactZero; self.layers]
    }
}
