//! Calibration of the feed-forward layers.

use std::cmp::Ordering;
use std::sync::Arc;

use sparse_core::{Density, Selector};
use sparse_gguf::Gguf;
use sparse_model::sidecar::{self, MeasuredLoss};
use sparse_model::{Model, Sidecar};

use crate::Error;
use crate::family::{ExactZero, Family, alone, leaves_nothing_out, set_selectors};
use crate::gate::{self, GateFamily, Shares};
use crate::held_out::{HeldOut, affordable};
use crate::loss::{Measured, Reference, Until};
use crate::low_rank::{self, Recalling};
use crate::mixed::{self, Mixed};
use crate::options::Options;
use crate::progress::{Progress, Schedule, Silent, step};
use crate::report::{Chosen, LayerReport, quality};
use crate::samples::{Samples, collect};
use crate::search::{RETRIES, TRIALS, back_off, fixed};
use crate::speed::{Curves, decode, fastest, predictors};
use crate::trials::{Candidate, Found, GAIN, Trials, Tried};
use crate::windows::{PROBES, Windows};

/// Shares of the time: watching the layers, one trial of a setting, all that looks at layers one by
/// one, and measuring the result.
const FIT_SHARE: f64 = 0.1;
const TRIAL_SHARE: f64 = 0.05;
const LAYERS_SHARE: f64 = 0.2;
const TEST_SHARE: f64 = 0.5;
/// Share of what is left that fitting predictors of one rank may take.
const PREDICTOR_SHARE: f64 = 0.5;
/// Why something is not tried.
const NO_TIME: &str = "there is no time for it";

/// What became of the feed-forward layers.
pub(crate) struct Layers {
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) chosen: Option<Chosen>,
    pub(crate) concerns: Vec<String>,
    pub(crate) sidecar: Sidecar,
}

/// Chooses selectors for the model in `gguf`.
pub(crate) fn calibrate(
    gguf: &Gguf,
    windows: &Windows,
    options: &Options,
    schedule: &mut Schedule<'_>,
) -> Result<Layers, Error> {
    // Nothing is known yet but how long it may take.
    let time = schedule.seconds_left();
    schedule.plan([("scoring", FIT_SHARE * time), ("trying", 0.5 * time)]);
    let mut dense = Arc::new(Model::from_gguf(gguf, options.threads)?);
    let layers = dense.ffns().count();
    set_selectors(&mut dense, vec![Selector::Dense; layers])?;
    let mut sparse = Model::from_gguf(gguf, options.threads)?;
    for ffn in sparse.ffns_mut() {
        ffn.sort_by_columns()?;
    }
    let timed = fastest(gguf, &dense)?;
    let curves = Curves::measure(&timed, &sparse);
    let mut sparse = Arc::new(sparse);
    let mut held_out = HeldOut::new(&dense, windows, schedule)?;

    let pace = held_out.pace;
    let mut reference = Reference::new(&dense, windows.tune.clone());
    reference.truncate(affordable(TRIAL_SHARE * schedule.seconds_left(), windows.len(), pace).max(PROBES));
    let mut trials = Trials::new(&dense, curves, reference, options.budget());
    trials.longer = (windows.test.len() as f64 / trials.reference.windows().len() as f64).max(1.0);
    trials.all = options.keep || options.recall.is_some();
    let mut search = Search { dense: &dense, windows, options, pace, samples: None };
    schedule.plan(search.plan(&trials, schedule.seconds_left()));

    let mut tried = Vec::new();
    search.without_predictors(&mut trials, &mut sparse, &mut tried, schedule)?;
    search.predictors(&mut trials, &mut sparse, &mut tried, schedule)?;
    search.by_layer(&mut trials, &mut sparse, &mut tried, schedule)?;

    let chosen = choose(&mut held_out, &trials, &mut sparse, &tried, schedule)?;
    let mut sidecar = Sidecar::of(gguf, &dense);
    let Some((name, loss, on_test)) = chosen else {
        let concerns = held_out.foreign_text().into_iter().collect();
        return Ok(Layers { candidates: trials.candidates, chosen: None, concerns, sidecar });
    };
    let selectors: Vec<Selector> = sparse.ffns().map(|f| f.selector().clone()).collect();
    let probes = search.probes(layers, schedule);
    let (reports, heat) =
        reports(&mut sparse, search.samples(schedule)?, &on_test, &mut trials, probes, schedule)?;
    let densities: Vec<Density> =
        sparse.ffns().zip(&on_test.counts).map(|(f, c)| c.density(f.neurons())).collect();
    // Timed as it will run: layers in which skipping is slower are dense, unless all are to be
    // kept.
    let densities = (!options.keep).then_some(densities);
    let model = Arc::get_mut(&mut sparse).expect("no session holds the model");
    let slower = sidecar::prepare(model, densities.as_deref())?;
    model.interleave();
    let speed = decode(&timed, &sparse, &windows.test[0][..windows.len() / 4], schedule)?;
    let pays = speed.pays() && slower < reports.len();
    if pays || options.keep {
        sidecar = Sidecar { selectors, densities, loss: Some(loss), heat: Some(heat), ..sidecar };
    }
    let bytes_share = trials.bytes_share(&on_test.counts);
    let chosen = Some(Chosen { name, layers: reports, loss, bytes_share, speed, slower, pays });
    Ok(Layers { candidates: trials.candidates, chosen, concerns: loss.concerns(), sidecar })
}

/// What families are tried with.
struct Search<'a> {
    dense: &'a Arc<Model>,
    windows: &'a Windows,
    options: &'a Options,
    /// Seconds per token of a batch.
    pace: f64,
    samples: Option<Vec<Samples>>,
}

impl Search<'_> {
    /// Stages to come and how long they are likely to take: most settings are dropped early, and
    /// many families at once.
    fn plan(&self, trials: &Trials, left: f64) -> Vec<(&'static str, f64)> {
        let tokens = |n: usize| self.pace * n as f64;
        let window = self.windows.len();
        let trial = tokens(TRIALS * trials.reference.windows().len() * window) / 4.0;
        let fit = tokens(self.options.fit_tokens).min(FIT_SHARE * left);
        let test = tokens(2 * window * self.windows.test.len()).min(TEST_SHARE * left);
        let layers = tokens(self.dense.ffns().count() * PROBES * window).min(LAYERS_SHARE * left) / 2.0;
        vec![
            ("watching", fit),
            ("measuring how much", layers),
            ("fitting", fit),
            ("trying", trial),
            ("looking at each", layers),
            ("measuring the loss", test),
            ("measuring each", layers),
            ("timing", 2.0),
        ]
    }

    /// What the layers are given; watched the first time that it is asked for.
    fn samples(&mut self, schedule: &mut Schedule<'_>) -> Result<&[Samples], Error> {
        if self.samples.is_none() {
            let fit = &self.windows.fit;
            let most = affordable(FIT_SHARE * schedule.seconds_left(), self.windows.len(), self.pace);
            let fit = &fit[..fit.len().min(most.max(PROBES))];
            schedule.begin("watching the layers", fit.len());
            self.samples = Some(collect(self.dense, fit, schedule)?);
        }
        Ok(self.samples.as_deref().unwrap_or_default())
    }

    /// Windows that each layer is measured alone on, so that all together take no longer than they
    /// may; 0 if even one does.
    fn probes(&self, measurements: usize, schedule: &Schedule<'_>) -> usize {
        let seconds = LAYERS_SHARE * schedule.seconds_left() / measurements.max(1) as f64;
        affordable(seconds, self.windows.len(), self.pace).min(PROBES)
    }

    /// Tries exact zeros, or thresholds on gates and on `h`.
    fn without_predictors(
        &mut self,
        trials: &mut Trials,
        sparse: &mut Arc<Model>,
        tried: &mut Vec<Tried>,
        schedule: &mut Schedule<'_>,
    ) -> Result<(), Error> {
        let layers = self.dense.ffns().count();
        // By recall, predictors alone are chosen.
        if self.options.recall.is_some() {
            return Ok(());
        }
        if self.dense.ffns().all(|f| f.activation().has_zeros()) {
            tried.push(trials.search(sparse, Box::new(ExactZero { layers }), schedule)?);
            return Ok(());
        }
        if !trials.all
            && let Some(why) = trials.oracle_fails(sparse, &vec![0.0; layers], true, schedule)?
        {
            trials.skip(gate::NAME, why);
            return Ok(());
        }
        let probes = self.probes(layers, schedule);
        if probes == 0 {
            trials.skip(gate::NAME, self.no_time(layers));
            return Ok(());
        }
        self.samples(schedule)?;
        let samples = self.samples.as_deref().unwrap_or_default();
        let shares = Shares::new(self.dense, sparse, samples, &mut trials.reference, probes, schedule)?;
        let shares = Arc::new(shares);
        for ratio in shares.ratios() {
            let family = GateFamily { shares: Arc::clone(&shares), ratio: *ratio };
            match schedule.seconds_left() > 0.0 {
                true => tried.push(trials.search(sparse, Box::new(family), schedule)?),
                false => trials.skip(family.name(), NO_TIME),
            }
        }
        Ok(())
    }

    /// Tries predictors that could be faster than everything before them.
    fn predictors(
        &mut self,
        trials: &mut Trials,
        sparse: &mut Arc<Model>,
        tried: &mut Vec<Tried>,
        schedule: &mut Schedule<'_>,
    ) -> Result<(), Error> {
        let mut ranks = self.options.ranks.clone();
        ranks.sort_unstable();
        ranks.dedup();
        // How many neurons are not zero, where some are exactly zero.
        let active = tried.first().and_then(|t| t.found.as_ref()).map(|found| found.densities.clone());
        let active = active.filter(|_| self.dense.ffns().all(|f| f.activation().has_zeros()));
        let mut hopeless = None;
        for rank in ranks {
            let name = low_rank::name(rank);
            let why = match (&hopeless, &active) {
                _ if trials.all => None,
                // A larger one takes longer.
                (Some(why), _) => Some(String::clone(why)),
                (None, None) => {
                    let seconds = predictors(sparse, rank)?;
                    hopeless = trials.oracle_fails(sparse, &seconds, false, schedule)?;
                    hopeless.clone()
                }
                (None, Some(active)) => {
                    let fastest = trials.fastest_predictor(sparse, rank, active)?;
                    let best = trials.fastest_layers(tried);
                    let mixed: f64 = fastest.iter().zip(&best).map(|(new, best)| new.min(*best)).sum();
                    let slow = mixed >= GAIN * best.iter().sum::<f64>();
                    slow.then(|| {
                        "is slower than what was found before, even if it made no mistake".to_owned()
                    })
                }
            };
            if let Some(why) = why {
                trials.skip(name, why);
                continue;
            }
            let time = PREDICTOR_SHARE * schedule.seconds_left();
            self.samples(schedule)?;
            let samples = self.samples.as_deref().unwrap_or_default();
            let family = match low_rank::fit(self.dense, samples, rank, time, schedule)? {
                Ok(family) => family,
                Err(seconds) => {
                    trials.skip(name, minutes_for(seconds / PREDICTOR_SHARE / 60.0));
                    continue;
                }
            };
            let family: Box<dyn Family> = match self.options.recall {
                Some(recall) => Box::new(Recalling::new(self.dense, samples, family, recall)?),
                None => Box::new(family),
            };
            tried.push(trials.search(sparse, family, schedule)?);
        }
        Ok(())
    }

    /// Tries a choice for each layer, if some family pays: what serves one layer best need not
    /// serve the next.
    fn by_layer(
        &mut self,
        trials: &mut Trials,
        sparse: &mut Arc<Model>,
        tried: &mut Vec<Tried>,
        schedule: &mut Schedule<'_>,
    ) -> Result<(), Error> {
        let pays = |found: &Found| found.seconds() < GAIN * trials.curves.dense();
        let found = || tried.iter().filter_map(|t| t.found.as_ref().map(|found| (&t.family, found)));
        if !found().any(|(_, found)| trials.all || pays(found)) {
            return Ok(());
        }
        let measured = found().filter(|(family, _)| !fixed(family.range())).count() * mixed::SETTINGS.len();
        let measured = measured * self.dense.ffns().count();
        let probes = match self.options.recall {
            Some(_) => 0,
            None => self.probes(measured, schedule),
        };
        if probes == 0 && measured > 0 && self.options.recall.is_none() {
            trials.skip(mixed::NAME, self.no_time(measured));
            return Ok(());
        }
        if let Some(mixed) = Mixed::new(trials, sparse, tried, probes, schedule)? {
            tried.push(trials.search(sparse, Box::new(mixed), schedule)?);
        }
        Ok(())
    }

    /// Why so many measurements of single layers are not made.
    fn no_time(&self, measurements: usize) -> String {
        minutes_for(self.pace * (measurements * self.windows.len()) as f64 / LAYERS_SHARE / 60.0)
    }
}

/// Why something that takes `minutes` is not tried.
fn minutes_for(minutes: f64) -> String {
    format!("{NO_TIME}: try it with --minutes {:.0}", (1.25 * minutes).ceil())
}

/// Measures the fastest of what was `tried`, or the next if that is over the budget here. `sparse`
/// then has its selectors.
fn choose(
    held_out: &mut HeldOut,
    trials: &Trials,
    sparse: &mut Arc<Model>,
    tried: &[Tried],
    schedule: &mut Schedule<'_>,
) -> Result<Option<(String, MeasuredLoss, Measured)>, Error> {
    held_out.limit(TEST_SHARE * schedule.seconds_left());
    // The fastest; among those that gain nothing, the one that reads least.
    let dense = trials.curves.dense();
    let mut inside: Vec<(&Tried, &Found)> =
        tried.iter().filter_map(|t| Some((t, t.found.as_ref()?))).collect();
    inside.retain(|(_, found)| trials.all || found.seconds() < GAIN * dense);
    inside.sort_by(|(_, a), (_, b)| {
        fastest_first(dense, (a.seconds(), a.bytes_share), (b.seconds(), b.bytes_share))
    });
    for (tried, found) in inside {
        let verified = verify(held_out, trials.budget, sparse, &*tried.family, found.knob, schedule)?;
        if let Some((loss, measured)) = verified {
            return Ok(Some((tried.family.name(), loss, measured)));
        }
    }
    Ok(None)
}

/// The order of two configurations of so many seconds and bytes, beside so many `dense` seconds.
fn fastest_first(dense: f64, a: (f64, f64), b: (f64, f64)) -> Ordering {
    a.0.min(dense).total_cmp(&b.0.min(dense)).then(a.1.total_cmp(&b.1))
}

/// Measures a configuration on text that it was not chosen by, and makes it less sparse until it is
/// inside the budget there, too. Nothing if it does not get there. Each step back looks at the same
/// text again, so the bound of a configuration that needed some is a little too good.
fn verify(
    held_out: &mut HeldOut,
    budget: f64,
    sparse: &mut Arc<Model>,
    family: &dyn Family,
    mut knob: f32,
    schedule: &mut Schedule<'_>,
) -> Result<Option<(MeasuredLoss, Measured)>, Error> {
    for _ in 0..=RETRIES {
        let selectors = family.selectors(knob);
        if leaves_nothing_out(&selectors) {
            break;
        }
        set_selectors(sparse, selectors)?;
        let (loss, measured) = held_out.measure(sparse, budget, schedule)?;
        if loss.upper() <= budget {
            return Ok(Some((loss, measured)));
        }
        tracing::info!(knob, upper = loss.upper(), "over the budget on other text");
        if fixed(family.range()) {
            break;
        }
        knob *= back_off(loss.upper(), budget);
    }
    Ok(None)
}

/// How each layer of `sparse` chooses, and what it costs alone, if there is time to see. The share of the tokens that used
/// each neuron, too.
fn reports(
    sparse: &mut Arc<Model>,
    samples: &[Samples],
    measured: &Measured,
    trials: &mut Trials,
    probes: usize,
    schedule: &mut Schedule<'_>,
) -> Result<(Vec<LayerReport>, Vec<Vec<f32>>), Error> {
    let selectors: Vec<Selector> = sparse.ffns().map(|f| f.selector().clone()).collect();
    let (mut reports, mut heat) = (Vec::new(), Vec::new());
    for (i, (ffn, (samples, counts))) in sparse.ffns().zip(samples.iter().zip(&measured.counts)).enumerate() {
        let (quality, _, used) = quality(sparse.compute(), ffn, samples);
        reports.push(LayerReport::new(i, ffn, counts, &quality));
        heat.push(used);
    }
    if probes > 0 {
        schedule.begin("measuring each layer alone", selectors.len());
        for (i, report) in reports.iter_mut().enumerate() {
            set_selectors(sparse, alone(&selectors, i))?;
            let alone = trials.reference.measure(sparse, Until::Windows(probes), &mut Silent)?;
            report.kl = Some(alone.loss.kl);
            step(schedule)?;
        }
        set_selectors(sparse, selectors)?;
    }
    Ok((reports, heat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_comes_first_and_what_reads_least_among_those_that_gain_nothing() {
        let mut found = [(3.0, 0.2), (1.0, 0.9), (2.5, 0.4), (1.0, 0.3), (0.5, 1.0)];
        found.sort_by(|a, b| fastest_first(2.0, *a, *b));
        assert_eq!(found, [(0.5, 1.0), (1.0, 0.3), (1.0, 0.9), (3.0, 0.2), (2.5, 0.4)]);
    }
}
