//! The best selector for each layer, out of what the families offer.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::Model;

use crate::Error;
use crate::family::{Family, alone_in, set_selectors};
use crate::loss::Until;
use crate::progress::{Progress, Silent, step};
use crate::search::fixed;
use crate::trials::{Trials, Tried};

/// Settings of a family that layers choose from, relative to the one that uses the budget in all
/// layers.
pub(crate) const SETTINGS: [f32; 3] = [0.85, 1.0, 1.15];
/// For tables.
pub(crate) const NAME: &str = "by layer";
/// Halvings of the interval that a price is looked for in.
const HALVINGS: usize = 60;

/// One way to compute a layer.
struct Choice {
    selector: Selector,
    /// Seconds, by curves.
    time: f64,
    /// The divergence that it causes if all other layers are dense.
    cost: f64,
}

/// A choice for each layer: those that take the least time for what they cost together. Divergences
/// of layers about add up, so each layer takes the least `time + price * cost`, with the same price
/// for all.
pub(crate) struct Mixed {
    /// Layers: what they choose from, dense first.
    layers: Vec<Vec<Choice>>,
}

impl Mixed {
    /// Offers every layer the settings of the families that were `tried` that are faster there than
    /// dense; nothing if no layer has any. What they cost is measured on the first `probes`
    /// windows; with none, it is taken to be nothing.
    pub(crate) fn new(
        trials: &mut Trials,
        sparse: &mut Arc<Model>,
        tried: &[Tried],
        probes: usize,
        progress: &mut dyn Progress,
    ) -> Result<Option<Self>, Error> {
        let dense = trials.curves.dense_layers();
        let choice = |time| vec![Choice { selector: Selector::Dense, time, cost: 0.0 }];
        let mut layers: Vec<Vec<Choice>> = dense.iter().copied().map(choice).collect();
        let found = || tried.iter().filter_map(|tried| Some((&tried.family, tried.found.as_ref()?)));
        progress.begin("looking at each layer alone", found().count() * layers.len());
        for (family, found) in found() {
            let settings = match probes > 0 && !fixed(family.range()) {
                true => SETTINGS.map(|s| s * found.knob).to_vec(),
                false => vec![found.knob],
            };
            let settings: Vec<Vec<Selector>> = settings.iter().map(|knob| family.selectors(*knob)).collect();
            for (i, layer) in layers.iter_mut().enumerate() {
                if found.times[i] < dense[i] {
                    for selectors in &settings {
                        let selector = selectors[i].clone();
                        let (time, cost) = match &selector {
                            _ if probes == 0 => (found.times[i], 0.0),
                            Selector::ExactZero => (found.times[i], 0.0),
                            _ => {
                                set_selectors(sparse, alone_in(dense.len(), i, selector.clone()))?;
                                let until = Until::Windows(probes);
                                let measured = trials.reference.measure(sparse, until, &mut Silent)?;
                                (trials.curves.layers(sparse, &measured.counts)[i], measured.loss.kl)
                            }
                        };
                        layer.push(Choice { selector, time, cost });
                    }
                }
                step(progress)?;
            }
        }
        Ok(layers.iter().any(|choices| choices.len() > 1).then_some(Self { layers }))
    }

    /// Every layer's best at this price, in seconds per nat.
    fn pick(&self, price: f64) -> impl Iterator<Item = &Choice> {
        let value = move |c: &Choice| c.time + price * c.cost;
        self.layers.iter().filter_map(move |l| l.iter().min_by(|a, b| value(a).total_cmp(&value(b))))
    }
}

impl Family for Mixed {
    fn name(&self) -> String {
        NAME.into()
    }

    /// The fastest that cost at most the share `knob` of what the fastest of all cost.
    fn selectors(&self, knob: f32) -> Vec<Selector> {
        let cost = |price| self.pick(price).map(|c| c.cost).sum::<f64>();
        let free = cost(0.0);
        let mut price = 0.0;
        if free > 0.0 && knob < 1.0 {
            // Logarithms of prices, from one at which costs mean next to nothing to one at which
            // they are all that counts.
            let unit = self.pick(0.0).map(|c| c.time).sum::<f64>() / free;
            let (mut low, mut high) = (-20.0_f64, 40.0_f64);
            for _ in 0..HALVINGS {
                let middle = 0.5 * (low + high);
                match cost(unit * middle.exp2()) <= f64::from(knob) * free {
                    true => high = middle,
                    false => low = middle,
                }
            }
            price = unit * high.exp2();
        }
        self.pick(price).map(|c| c.selector.clone()).collect()
    }

    fn range(&self) -> (f32, f32) {
        match self.pick(0.0).any(|c| c.cost > 0.0) {
            true => (0.5, 1.0),
            false => (1.0, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_share_the_cost_where_it_buys_most() {
        let choice = |selector: Selector, time, cost| Choice { selector, time, cost };
        let of = |time, cost| choice(Selector::Intermediate { hidden: vec![cost as f32] }, time, cost);
        let dense = || choice(Selector::Dense, 10.0, 0.0);
        // The second layer gains more for the same cost; the third gains without any.
        let layers = vec![
            vec![dense(), of(8.0, 1.0)],
            vec![dense(), of(3.0, 1.0), of(2.0, 4.0)],
            vec![dense(), choice(Selector::ExactZero, 5.0, 0.0)],
        ];
        let mixed = Mixed { layers };
        let names = |knob: f32| -> Vec<&str> { mixed.selectors(knob).iter().map(Selector::name).collect() };
        assert_eq!(names(1.0), ["intermediate", "intermediate", "exact-zero"]);
        assert_eq!(names(0.2), ["dense", "intermediate", "exact-zero"]);
        assert_eq!(names(0.0), ["dense", "dense", "exact-zero"]);
        let at_most = |knob: f32| -> f32 {
            let costs = mixed.selectors(knob).into_iter().map(|s| match s {
                Selector::Intermediate { hidden } => hidden[0],
                _ => 0.0,
            });
            costs.sum()
        };
        for knob in [0.0, 0.1, 0.3, 0.5, 0.9, 1.0] {
            assert!(at_most(knob) <= 5.0 * knob, "{knob}");
        }
        assert_eq!(mixed.range(), (0.5, 1.0));
        let free = Mixed { layers: vec![vec![dense(), choice(Selector::ExactZero, 5.0, 0.0)]] };
        assert_eq!((free.range(), free.selectors(1.0)[0].name()), ((1.0, 1.0), "exact-zero"));
    }
}
