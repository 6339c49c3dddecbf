//! Trying families of selectors: time first, then loss.

use std::sync::Arc;

use serde::Serialize;
use sparse_core::{Density, FfnCounts, Rule, Selector, SparseFfn};
use sparse_model::Model;

use crate::Error;
use crate::family::{Family, leaves_nothing_out, set_selectors};
use crate::loss::{Loss, Reference, Until};
use crate::progress::{Progress, Schedule};
use crate::search::{Outcome, TRIALS, Trial, search};
use crate::speed::{Curves, predictors};

/// Time over dense time above which nothing is gained.
pub(crate) const GAIN: f64 = 0.99;
/// A real selector may lose this many times less than an oracle that takes as many neurons of every
/// token: its thresholds let tokens and layers differ.
const ORACLE: f64 = 4.0;
/// Share of the active neurons that a predictor has to name at least to be of any use.
const LEAST_RECALL: f64 = 0.8;

/// Selectors that were tried, at the sparsest setting inside the budget.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Which.
    pub name: String,
    /// Loss on the text that settings were chosen by; nothing if no setting was inside the budget.
    pub loss: Option<Loss>,
    /// Share of the dense layers' bytes that a token reads.
    pub bytes_share: f64,
    /// Share of the dense layers' time, from curves measured on this machine.
    pub time_share: f64,
    /// Why it was not tried, or not to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A family that was tried.
pub(crate) struct Tried {
    pub(crate) family: Box<dyn Family>,
    /// The sparsest setting inside the budget.
    pub(crate) found: Option<Found>,
}

/// A family at the sparsest setting inside the budget.
pub(crate) struct Found {
    pub(crate) knob: f32,
    loss: Loss,
    pub(crate) bytes_share: f64,
    /// Seconds of each layer, by curves.
    pub(crate) times: Vec<f64>,
    /// What each layer computes.
    pub(crate) densities: Vec<Density>,
}

impl Found {
    /// Seconds of all layers.
    pub(crate) fn seconds(&self) -> f64 {
        self.times.iter().sum()
    }
}

/// What trying a family takes, and what was tried so far.
pub(crate) struct Trials {
    dense: Arc<Model>,
    pub(crate) curves: Curves,
    pub(crate) reference: Reference,
    pub(crate) budget: f64,
    /// Length of the test set over length of the tuning set.
    pub(crate) longer: f64,
    /// Whether everything is tried, even if it cannot pay.
    pub(crate) all: bool,
    pub(crate) candidates: Vec<Candidate>,
}

impl Trials {
    pub(crate) fn new(dense: &Arc<Model>, curves: Curves, reference: Reference, budget: f64) -> Self {
        let candidate = Candidate {
            name: Selector::Dense.name().into(),
            loss: None,
            bytes_share: 1.0,
            time_share: 1.0,
            note: None,
        };
        let dense = Arc::clone(dense);
        Self { dense, curves, reference, budget, longer: 1.0, all: false, candidates: vec![candidate] }
    }

    /// States that a family is not tried.
    pub(crate) fn skip(&mut self, name: impl Into<String>, why: impl Into<String>) {
        let (name, why) = (name.into(), why.into());
        tracing::info!(name, why, "not tried");
        self.candidates.push(Candidate {
            name,
            loss: None,
            bytes_share: 1.0,
            time_share: 1.0,
            note: Some(why),
        });
    }

    /// Turns the knob of `family` as far as the budget allows.
    pub(crate) fn search(
        &mut self,
        sparse: &mut Arc<Model>,
        family: Box<dyn Family>,
        schedule: &mut Schedule<'_>,
    ) -> Result<Tried, Error> {
        schedule.begin(&format!("trying {}", family.name()), TRIALS * self.reference.windows().len());
        let (budget, longer) = (self.budget, self.longer);
        let dense_seconds = self.curves.dense();
        let outcome = search(family.range(), budget, |knob| {
            set_selectors(sparse, family.selectors(knob))?;
            let measured = self.reference.measure(sparse, Until::Clear(budget), schedule)?;
            let times = self.curves.layers(sparse, &measured.counts);
            Ok(Trial {
                upper: measured.loss.upper_on(longer),
                pays: self.all || times.iter().sum::<f64>() < GAIN * dense_seconds,
                more: schedule.seconds_left() > 0.0,
                measured: (measured.loss, measured.counts, times),
            })
        })?;
        let note = match &outcome {
            Outcome::Inside(..) => None,
            Outcome::Over => Some("over the budget"),
            Outcome::Hopeless => Some("over the budget before it saves any time"),
        };
        let found = outcome.inside().map(|(knob, (loss, counts, times))| Found {
            knob,
            loss,
            bytes_share: self.bytes_share(&counts),
            times,
            densities: self.dense.ffns().zip(&counts).map(|(f, c)| c.density(f.neurons())).collect(),
        });
        let found = found.filter(|found| !leaves_nothing_out(&family.selectors(found.knob)));
        self.candidates.push(Candidate {
            name: family.name(),
            loss: found.as_ref().map(|f| f.loss),
            bytes_share: found.as_ref().map_or(1.0, |f| f.bytes_share),
            time_share: found.as_ref().map_or(1.0, |f| f.seconds() / dense_seconds),
            note: note.map(str::to_owned),
        });
        Ok(Tried { family, found })
    }

    /// Share of the dense layers' bytes that layers read that did `counts`.
    pub(crate) fn bytes_share(&self, counts: &[FfnCounts]) -> f64 {
        let bytes: u64 = counts.iter().map(|c| c.bytes).sum();
        let tokens = counts.first().map_or(1, |c| c.tokens.max(1));
        let dense_bytes: usize = self.dense.ffns().map(SparseFfn::bytes).sum();
        bytes as f64 / tokens as f64 / dense_bytes as f64
    }

    /// Why selectors that take so many `seconds` per layer cannot pay, if they cannot: those of
    /// even the smallest choice take too long, or an oracle that takes as many neurons as they
    /// could afford is over the budget.
    pub(crate) fn oracle_fails(
        &mut self,
        sparse: &mut Arc<Model>,
        seconds: &[f64],
        first_is_dense: bool,
        schedule: &mut Schedule<'_>,
    ) -> Result<Option<String>, Error> {
        let densities = self.curves.break_even(sparse, seconds, first_is_dense);
        if densities.iter().all(|d| *d <= 0.0) {
            return Ok(Some("takes longer than the dense layers whatever it leaves out".into()));
        }
        let oracle = |(ffn, density): (&SparseFfn, &f32)| match *density {
            // Such a layer stays dense.
            d if d <= 0.0 => Selector::Dense,
            d => {
                let kept = (d * ffn.neurons() as f32).ceil() as usize;
                Selector::Oracle { rule: Rule::TopK(kept), norms: ffn.down().norms() }
            }
        };
        let selectors = sparse.ffns().zip(&densities).map(oracle).collect();
        set_selectors(sparse, selectors)?;
        let budget = ORACLE * self.budget;
        schedule.begin("seeing what the best choice would lose", self.reference.windows().len());
        let loss = self.reference.measure(sparse, Until::Clear(budget), schedule)?.loss;
        let share = densities.iter().map(|d| f64::from(*d)).sum::<f64>() / densities.len() as f64;
        Ok(loss.clearly_over(budget).then(|| {
            format!(
                "saves time below {:.0} % of the neurons, where even the best choice loses {:.1} %",
                100.0 * share,
                100.0 * loss.increase()
            )
        }))
    }

    /// Seconds of each layer in the fastest way that was found for it.
    pub(crate) fn fastest_layers(&self, tried: &[Tried]) -> Vec<f64> {
        let mut best = self.curves.dense_layers();
        for found in tried.iter().filter_map(|tried| tried.found.as_ref()) {
            best.iter_mut().zip(&found.times).for_each(|(best, time)| *best = best.min(*time));
        }
        best
    }

    /// Seconds per layer, at least, of predictors of this rank, where so many neurons are `active`.
    pub(crate) fn fastest_predictor(
        &self,
        sparse: &mut Arc<Model>,
        rank: usize,
        active: &[Density],
    ) -> Result<Vec<f64>, Error> {
        let seconds = predictors(sparse, rank)?;
        let named: Vec<Density> = active
            .iter()
            .map(|active| {
                let named = LEAST_RECALL as f32 * active.down;
                Density { gate: if active.gate > 0.0 { named } else { 0.0 }, up: named, down: named }
            })
            .collect();
        Ok(self
            .curves
            .layers_at(&named)
            .iter()
            .zip(seconds)
            .map(|(layer, selector)| layer + selector)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use sparse_core::FfnTimes;
    use sparse_gguf::Gguf;
    use sparse_testdata::TinyLlama;

    use super::*;
    use crate::family::alone_in;
    use crate::progress::Silent;

    /// Two tiny models, the same.
    fn models() -> (Arc<Model>, Arc<Model>) {
        let gguf = Gguf::from_bytes(TinyLlama::default().build().to_bytes()).unwrap();
        let open = || Arc::new(Model::from_gguf(&gguf, 1).unwrap());
        (open(), open())
    }

    fn windows(n: u32) -> Vec<Vec<u32>> {
        (0..n).map(|w| (0..32).map(|t| (w * 71 + t * 37) % 260).collect()).collect()
    }

    /// What is computed takes no time, what is dense a second.
    fn free() -> Curves {
        let times = FfnTimes {
            rows: vec![0.0; 9],
            down: vec![0.0; 9],
            dense_rows: 0.0,
            dense_gate: 0.0,
            dense_down: 0.0,
        };
        Curves::of(vec![(times, 1.0); 2])
    }

    /// One setting.
    struct Fixed(Selector);

    impl Family for Fixed {
        fn name(&self) -> String {
            "fixed".into()
        }
        fn selectors(&self, _: f32) -> Vec<Selector> {
            alone_in(2, 0, self.0.clone())
        }
    }

    #[test]
    fn what_an_oracle_cannot_do_is_not_tried() {
        let (dense, mut sparse) = models();
        let line = || [0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9].to_vec();
        let times =
            FfnTimes { rows: line(), down: line(), dense_rows: 1.0, dense_gate: 1.0, dense_down: 1.0 };
        let curves = || Curves::of(vec![(times.clone(), 2.0); 2]);
        let mut silent = Silent;
        let mut schedule = Schedule::new(&mut silent, Instant::now() + Duration::from_secs(60));
        let mut why = |budget: f64, seconds: f64, first: bool| {
            let reference = Reference::new(&dense, windows(4));
            let mut trials = Trials::new(&dense, curves(), reference, budget);
            trials.oracle_fails(&mut sparse, &[seconds; 2], first, &mut schedule).unwrap()
        };
        // Selectors that take 1.4 of 2 seconds leave 0.6 for three projections: a fifth of the
        // neurons.
        let over = why(1e-9, 1.4, false).expect("a fifth of the neurons is not enough");
        assert!(over.contains("saves time below 20 % of the neurons"), "{over}");
        assert_eq!(why(1e9, 1.4, false), None);
        assert!(why(1e-9, 0.0, true).expect("half of two projections").contains("below 50 %"));
        // An oracle may lose more than the budget: real selectors choose better among tokens and layers.
        let percent = over.rsplit_once("loses ").and_then(|(_, loss)| loss.strip_suffix(" %"));
        let lost: f64 = percent.expect("a loss").parse().expect("a number");
        assert!(lost > 0.0);
        assert_eq!(why(0.3 * lost / 100.0, 1.4, false), None);
        for (seconds, first) in [(2.0, false), (1.0, true)] {
            let slow = why(1e9, seconds, first).expect("no time is left");
            assert!(slow.contains("takes longer than the dense layers"), "{slow}");
        }
    }

    #[test]
    fn a_family_that_is_over_the_budget_before_it_saves_time_is_dropped() {
        /// Leaves out neurons of one layer, more of them with a larger knob.
        struct Leaving;
        impl Family for Leaving {
            fn name(&self) -> String {
                "some".into()
            }
            fn selectors(&self, knob: f32) -> Vec<Selector> {
                alone_in(2, 0, Selector::Intermediate { hidden: vec![0.2 * knob; 160] })
            }
            fn range(&self) -> (f32, f32) {
                (0.3, 0.9)
            }
        }
        let (dense, mut sparse) = models();
        let mut silent = Silent;
        let mut schedule = Schedule::new(&mut silent, Instant::now() + Duration::from_secs(60));
        // What is computed takes twice as long as the dense layers, or no time. No loss is below
        // -1.
        let mut note = |seconds: f64, budget: f64, all: bool| {
            let times = FfnTimes {
                rows: vec![seconds; 9],
                down: vec![0.0; 9],
                dense_rows: seconds,
                dense_gate: seconds,
                dense_down: 0.0,
            };
            let reference = Reference::new(&dense, windows(4));
            let mut trials = Trials::new(&dense, Curves::of(vec![(times, 1.0); 2]), reference, budget);
            trials.all = all;
            let tried = trials.search(&mut sparse, Box::new(Leaving), &mut schedule).unwrap();
            let candidate = trials.candidates.pop().unwrap();
            assert_eq!((candidate.name.as_str(), candidate.loss.is_some()), ("some", tried.found.is_some()));
            (candidate.note, candidate.time_share)
        };
        assert_eq!(note(1.0, -1.0, false).0.as_deref(), Some("over the budget before it saves any time"));
        for (seconds, all) in [(0.0, false), (1.0, true)] {
            assert_eq!(note(seconds, -1.0, all).0.as_deref(), Some("over the budget"));
        }
        // Inside the budget: half of the layers take no time.
        assert_eq!(note(0.0, 1e9, false), (None, 0.5));
    }

    #[test]
    fn a_budget_is_for_the_upper_bound_on_a_text_as_long_as_the_test() {
        let (dense, mut sparse) = models();
        let mut silent = Silent;
        let mut schedule = Schedule::new(&mut silent, Instant::now() + Duration::from_secs(60));
        let mut found = |selector: &Selector, budget: f64, longer: f64| {
            // Two windows, so that all of them are looked at whatever the budget.
            let reference = Reference::new(&dense, windows(2));
            let mut trials = Trials::new(&dense, free(), reference, budget);
            trials.longer = longer;
            let tried = trials.search(&mut sparse, Box::new(Fixed(selector.clone())), &mut schedule).unwrap();
            (tried.found.as_ref().map(|found| found.loss), trials.fastest_layers(&[tried]))
        };
        let some = Selector::Intermediate { hidden: vec![0.05; 160] };
        let (loss, fastest) = found(&some, 1e9, 1.0);
        let loss = loss.expect("whatever the loss");
        assert!(loss.kl > 0.0 && loss.kl_error > 0.0, "{loss:?}");
        // One layer takes no time now, the other as long as before.
        assert_eq!(fastest, [0.0, 1.0]);
        let between = 0.5 * (loss.increase() + loss.upper());
        assert_eq!(found(&some, between, 1.0), (None, vec![1.0, 1.0]), "over by its upper bound");
        assert!(found(&some, between, 100.0).0.is_some(), "a longer text has a narrower interval");
        // What leaves out nothing is the dense model.
        assert_eq!(found(&Selector::Dense, 1e9, 1.0).0, None);
    }

    #[test]
    fn a_predictor_is_as_fast_as_it_and_the_active_neurons_allow() {
        let (dense, mut sparse) = models();
        let flat = |seconds: f64| FfnTimes {
            rows: vec![seconds; 9],
            down: vec![seconds; 9],
            dense_rows: seconds,
            dense_gate: seconds,
            dense_down: seconds,
        };
        let reference = Reference::new(&dense, vec![vec![1; 32]]);
        let curves = Curves::of(vec![(flat(0.0), 1.0), (flat(5.0), 1.0)]);
        let trials = Trials::new(&dense, curves, reference, 0.01);
        let active = Density { gate: 1.0, up: 0.5, down: 0.5 };
        let [free, slow] = trials.fastest_predictor(&mut sparse, 32, &[active; 2]).unwrap()[..] else {
            panic!("two layers")
        };
        assert!(free > 0.0 && free < 1.0 && slow > 15.0, "{free} {slow}");
        assert_eq!(trials.fastest_layers(&[]), [1.0, 1.0]);
        // It may miss a fifth of the active neurons, whose time is saved.
        let line: Vec<f64> = [0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9].map(|d| 1000.0 * d).to_vec();
        let steep = FfnTimes {
            rows: line.clone(),
            down: line,
            dense_rows: 1000.0,
            dense_gate: 1000.0,
            dense_down: 1000.0,
        };
        let reference = Reference::new(&dense, vec![vec![1; 32]]);
        let trials = Trials::new(&dense, Curves::of(vec![(steep, 3000.0); 2]), reference, 0.01);
        let named = trials.fastest_predictor(&mut sparse, 32, &[active; 2]).unwrap();
        assert!(named.iter().all(|seconds| (1200.0..1210.0).contains(seconds)), "{named:?}");
    }
}
