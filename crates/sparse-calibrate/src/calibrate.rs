//! The whole calibration.

use std::sync::Arc;

use sparse_core::{FfnCounts, Selector, SparseFfn};
use sparse_gguf::Gguf;
use sparse_model::sidecar::MeasuredLoss;
use sparse_model::{Model, Sidecar, sidecar};

use crate::gate::{GateFamily, Shares};
use crate::loss::{Divergence, Loss, Measured, Reference, verify};
use crate::low_rank::{self, Recalling};
use crate::mixed::Mixed;
use crate::progress::{Progress, step};
use crate::report::{Calibration, Candidate, Chosen, LayerReport, quality};
use crate::samples::{Samples, collect};
use crate::search::{Family, RETRIES, TRIALS, alone, equip, fixed, retreat, search};
use crate::speed::{Curves, decode, fastest};
use crate::windows::Windows;
use crate::{Error, head};

/// What calibration is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest relative increase of perplexity, by its upper 95 % bound: 0.01 is 1 %.
    pub max_loss: f64,
    /// Choose predictors by the share of the active neurons that they find, whatever the loss: for random weights, whose
    /// perplexity means nothing.
    pub recall: Option<f64>,
    /// Tokens per window; the second half of each is scored.
    pub window: usize,
    /// Tokens that selectors are fitted to.
    pub fit_tokens: usize,
    /// Tokens that settings are chosen by.
    pub tune_tokens: usize,
    /// Tokens that the result is measured on; only half of them are scored.
    pub test_tokens: usize,
    /// Ranks of the predictors that are tried.
    pub ranks: Vec<usize>,
    /// Threads.
    pub threads: usize,
    /// Keep the selectors in the sidecar even if they make the model slower: to look at them.
    pub keep: bool,
    /// Look for neurons to leave out.
    pub ffn: bool,
    /// Look for a screen of the output head.
    pub head: bool,
    /// Greedy texts to compare with and without the screen.
    pub continuations: usize,
}

impl Options {
    /// The largest loss.
    fn budget(&self) -> f64 {
        self.recall.map_or(self.max_loss, |_| f64::INFINITY)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_loss: 0.01,
            recall: None,
            window: 512,
            fit_tokens: 8192,
            tune_tokens: 16_384,
            test_tokens: 204_800,
            ranks: vec![32, 64, 128],
            threads: 1,
            keep: false,
            ffn: true,
            head: true,
            continuations: 20,
        }
    }
}

/// Chooses selectors and a screen of the head for the model in `gguf`, by the tokens of `text`; the result is measured on
/// `test`, or on a part of `text` that was used for nothing else. A part of the model that `options` leave out stays as
/// `before` has it, but for lanes, which new selectors end: they were chosen beside the old ones.
///
/// # Errors
/// If the text is too short, `before` is for another model, the model fails, or `progress` asks to stop.
pub fn calibrate(
    gguf: &Gguf,
    before: Option<Sidecar>,
    text: &[u32],
    test: Option<&[u32]>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Calibration, Error> {
    let model = Model::from_gguf(gguf, options.threads)?;
    let windows = Windows::new(&model, text, test, options)?;
    let before = match before {
        Some(before) => before.check(gguf)?,
        None => Sidecar::of(gguf, &model),
    };
    drop(model);
    let mut calibration = match options.ffn {
        true => calibrate_ffn(gguf, &windows, options, progress)?,
        false => Calibration { candidates: Vec::new(), chosen: None, head: None, sidecar: before.clone() },
    };
    calibration.sidecar.screen = before.screen;
    if options.head {
        // With the neurons that will be left out.
        let plain = Sidecar { screen: None, ..calibration.sidecar.clone() };
        let found = head::calibrate(gguf, &plain, &windows, options, progress)?;
        calibration.sidecar.screen = found.screen.clone();
        calibration.head = Some(found);
    }
    Ok(calibration)
}

/// A family at the sparsest setting inside the budget.
pub(crate) struct Found {
    pub(crate) knob: f32,
    loss: Loss,
    bytes_share: f64,
    /// Seconds of each layer, by curves.
    pub(crate) times: Vec<f64>,
}

/// What trying a family takes.
pub(crate) struct Trials<'a> {
    pub(crate) dense: &'a Arc<Model>,
    pub(crate) curves: Curves,
    reference: Reference,
    budget: f64,
    /// How many times as long as the text that settings are tried on the one is that they have to pass on in the end.
    longer: f64,
}

impl Trials<'_> {
    /// Turns the knob of `family` as far as the budget allows; nothing if even its smallest setting is over it, or leaves out
    /// nothing.
    fn search(
        &self,
        sparse: &mut Arc<Model>,
        family: &dyn Family,
        progress: &mut dyn Progress,
    ) -> Result<Option<Found>, Error> {
        progress.begin(&format!("trying {}", family.name()), TRIALS * self.reference.windows().len());
        let found = search(family.range(), self.budget, |knob| {
            equip(sparse, family.selectors(knob))?;
            let measured = self.reference.loss(sparse, progress)?;
            Ok((measured.loss.upper_on(self.longer), measured))
        })?;
        let Some((knob, Measured { loss, counts })) = found else { return Ok(None) };
        let selectors = family.selectors(knob);
        if leaves_nothing_out(&selectors) {
            return Ok(None);
        }
        equip(sparse, selectors)?;
        let bytes: u64 = counts.iter().map(|c| c.bytes).sum();
        let tokens = counts.first().map_or(1, |c| c.tokens.max(1));
        let dense_bytes: usize = self.dense.ffns().map(SparseFfn::bytes).sum();
        let bytes_share = bytes as f64 / tokens as f64 / dense_bytes as f64;
        Ok(Some(Found { knob, loss, bytes_share, times: self.curves.layers(sparse, &counts) }))
    }

    fn candidate(&self, name: String, found: Option<&Found>) -> Candidate {
        Candidate {
            name,
            loss: found.map(|f| f.loss),
            bytes_share: found.map_or(1.0, |f| f.bytes_share),
            time_share: found.map_or(1.0, |f| f.times.iter().sum::<f64>() / self.curves.dense()),
        }
    }
}

/// The part that is about neurons.
fn calibrate_ffn(
    gguf: &Gguf,
    windows: &Windows,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Calibration, Error> {
    let mut dense = Arc::new(Model::from_gguf(gguf, options.threads)?);
    let layers = dense.ffns().len();
    equip(&mut dense, vec![Selector::Dense; layers])?;
    let mut sparse = Model::from_gguf(gguf, options.threads)?;
    for ffn in sparse.ffns_mut() {
        ffn.sort_by_columns()?;
    }
    let timed = fastest(gguf, &dense)?;
    let curves = Curves::measure(&timed, &sparse);
    let mut sparse = Arc::new(sparse);

    progress.begin("watching the layers", windows.fit.len());
    let samples = collect(&dense, &windows.fit, progress)?;
    progress.begin("scoring the dense model", windows.tune.len());
    let reference = Reference::new(&dense, windows.tune.clone(), progress)?;
    let divergence = Divergence::new(&dense, windows.probes())?;
    let longer = (windows.test.len() as f64 / windows.tune.len() as f64).max(1.0);
    let trials = Trials { dense: &dense, curves, reference, budget: options.budget(), longer };

    let shares;
    let mut families: Vec<Box<dyn Family + '_>> = Vec::new();
    // By recall, predictors alone are chosen.
    if options.recall.is_none() && dense.ffns().all(|f| f.activation().has_zeros()) {
        families.push(Box::new(ExactZero(layers)));
    } else if options.recall.is_none() {
        shares = Shares::new(&dense, &mut sparse, &samples, &divergence, progress)?;
        for ratio in shares.ratios() {
            families.push(Box::new(GateFamily { shares: &shares, ratio: *ratio }));
        }
    }
    for family in low_rank::fit(&dense, &samples, &options.ranks, progress)? {
        families.push(match options.recall {
            Some(recall) => Box::new(Recalling::new(&dense, &samples, family, recall)?),
            None => Box::new(family),
        });
    }

    let mut found = Vec::new();
    for family in &families {
        found.push(trials.search(&mut sparse, &**family, progress)?);
    }
    // What serves one layer best need not serve the next.
    let by_loss = options.recall.is_none().then_some(&divergence);
    if let Some(mixed) = Mixed::new(&trials, &mut sparse, &families, &found, by_loss, progress)? {
        found.push(trials.search(&mut sparse, &mixed, progress)?);
        families.push(Box::new(mixed));
    }
    let mut candidates = vec![trials.candidate(Selector::Dense.name().into(), None)];
    candidates
        .extend(families.iter().zip(&found).map(|(f, found)| trials.candidate(f.name(), found.as_ref())));

    // The fastest; among those that gain nothing, the one that reads least.
    let key = |i: usize| (candidates[i + 1].time_share.min(1.0), candidates[i + 1].bytes_share);
    let mut inside: Vec<(usize, f32)> =
        found.iter().enumerate().filter_map(|(i, found)| Some((i, found.as_ref()?.knob))).collect();
    inside.sort_by(|a, b| key(a.0).0.total_cmp(&key(b.0).0).then(key(a.0).1.total_cmp(&key(b.0).1)));
    let mut verified = None;
    for (i, knob) in inside {
        verified = verify_on(&windows.test, &trials, &mut sparse, &*families[i], knob, progress)?
            .map(|(loss, counts)| (families[i].name(), loss, counts));
        if verified.is_some() {
            break;
        }
    }
    let mut sidecar = Sidecar::of(gguf, &dense);
    let Some((name, loss, counts)) = verified else {
        return Ok(Calibration { candidates, chosen: None, head: None, sidecar });
    };
    let selectors: Vec<Selector> = sparse.ffns().map(|f| f.selector().clone()).collect();
    let layers = reports(&mut sparse, &samples, &counts, &divergence, progress)?;
    let densities: Vec<_> = sparse.ffns().zip(&counts).map(|(f, c)| c.density(f.neurons())).collect();
    // Timed as it will run: layers in which skipping is slower are dense, unless all are to be kept.
    let densities = (!options.keep).then_some(densities);
    let model = Arc::get_mut(&mut sparse).expect("no session holds the model");
    let slower = sidecar::prepare(model, densities.as_deref())?;
    model.interleave();
    let speed = decode(&timed, &sparse, &windows.test[0][..options.window / 4], progress)?;
    let dense_bytes: usize = layers.iter().map(|l| l.dense_bytes).sum();
    let bytes_share = layers.iter().map(|l| l.bytes).sum::<f64>() / dense_bytes as f64;
    let pays = speed.pays() && slower < layers.len();
    if pays || options.keep {
        sidecar = Sidecar { selectors, densities, loss: Some(loss), ..sidecar };
    }
    let chosen = Some(Chosen { name, layers, loss, bytes_share, speed, slower, pays });
    Ok(Calibration { candidates, chosen, head: None, sidecar })
}

/// How each layer of `sparse` chooses, and what it costs alone.
fn reports(
    sparse: &mut Arc<Model>,
    samples: &[Samples],
    counts: &[FfnCounts],
    divergence: &Divergence,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerReport>, Error> {
    let selectors: Vec<Selector> = sparse.ffns().map(|f| f.selector().clone()).collect();
    progress.begin("measuring each layer alone", selectors.len());
    let mut reports = Vec::new();
    for (i, (ffn, (samples, counts))) in sparse.ffns().zip(samples.iter().zip(counts)).enumerate() {
        reports.push(LayerReport::new(i, ffn, counts, &quality(sparse.compute(), ffn, samples).0));
    }
    for (i, report) in reports.iter_mut().enumerate() {
        equip(sparse, alone(&selectors, i))?;
        report.kl = Some(divergence.of(sparse)?.0);
        step(progress)?;
    }
    equip(sparse, selectors)?;
    Ok(reports)
}

/// Measures a configuration on text that it was not chosen by, and makes it less sparse until it is inside the budget
/// there, too. Nothing if it does not get there. Each retreat looks at the same text again, so the bound of a configuration
/// that needed some is a little too good.
fn verify_on(
    test: &[Vec<u32>],
    trials: &Trials<'_>,
    sparse: &mut Arc<Model>,
    family: &dyn Family,
    mut knob: f32,
    progress: &mut dyn Progress,
) -> Result<Option<(MeasuredLoss, Vec<FfnCounts>)>, Error> {
    for _ in 0..=RETRIES {
        let selectors = family.selectors(knob);
        if leaves_nothing_out(&selectors) {
            break;
        }
        equip(sparse, selectors)?;
        progress.begin("measuring the loss on other text", test.len());
        let (loss, counts) = verify(trials.dense, sparse, test, progress)?;
        if loss.upper() <= trials.budget {
            return Ok(Some((loss, counts)));
        }
        tracing::info!(knob, upper = loss.upper(), "over the budget on other text");
        if fixed(family.range()) {
            break;
        }
        knob *= retreat(loss.upper(), trials.budget);
    }
    Ok(None)
}

/// That is the dense model, which needs no sidecar.
fn leaves_nothing_out(selectors: &[Selector]) -> bool {
    selectors.iter().all(|s| matches!(s, Selector::Dense))
}

/// Computes the neurons that are not zero.
struct ExactZero(usize);

impl Family for ExactZero {
    fn name(&self) -> String {
        Selector::ExactZero.name().into()
    }

    fn selectors(&self, _: f32) -> Vec<Selector> {
        vec![Selector::ExactZero; self.0]
    }
}
