//! The whole calibration.

use std::sync::Arc;

use sparse_core::{FfnCounts, Selector};
use sparse_gguf::Gguf;
use sparse_model::sidecar::MeasuredLoss;
use sparse_model::{Model, Sidecar, sidecar};

use crate::gate::{GateFamily, Shares};
use crate::loss::{Divergence, Measured, Reference, verify};
use crate::low_rank::{self, Recalling};
use crate::progress::Progress;
use crate::report::{Calibration, Candidate, Chosen, LayerReport, quality};
use crate::samples::collect;
use crate::search::{Family, TRIALS, equip, search};
use crate::speed::{Curves, decode, fastest};
use crate::{Error, head};

/// Windows that the sensitivity of layers is measured on.
pub(crate) const PROBES: usize = 2;
/// Gains below this are noise.
const LEAST_GAIN: f64 = 1.01;
/// Ratios of what is left out of `up` and of `down` that are tried.
const RATIOS: [f32; 3] = [0.0, 0.4, 0.75];
/// How often a configuration that is over the budget on the last text is made less sparse.
pub(crate) const RETRIES: usize = 4;
/// By how much of its setting.
pub(crate) const RETREAT: f32 = 0.06;

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

/// Text, cut into windows for each purpose.
pub(crate) struct Windows {
    pub(crate) fit: Vec<Vec<u32>>,
    pub(crate) tune: Vec<Vec<u32>>,
    pub(crate) test: Vec<Vec<u32>>,
}

impl Windows {
    /// `text` is fitted to and tuned by; `test`, or what is left of `text`, is for the last measurement.
    pub(crate) fn new(
        model: &Model,
        text: &[u32],
        test: Option<&[u32]>,
        options: &Options,
    ) -> Result<Self, Error> {
        let window = options.window;
        let limit = model.config().context;
        if !(8..=limit).contains(&window) {
            let expected = format!("8 to {limit} tokens");
            return Err(Error::Option { option: "window", value: window.to_string(), expected });
        }
        let begin = if model.tokenizer().add_bos() { model.tokenizer().bos() } else { None };
        let cut = |text: &[u32]| -> Vec<Vec<u32>> {
            let windows = text.chunks_exact(window).map(|w| {
                let mut w = w.to_vec();
                if let Some(bos) = begin {
                    w[0] = bos;
                }
                w
            });
            windows.collect()
        };
        let count = |tokens: usize| tokens.div_ceil(window).max(1);
        let (fit, tune) = (count(options.fit_tokens), count(options.tune_tokens));
        let mut all = cut(text);
        // A short text is shared out evenly.
        let parts = if test.is_some() { 2 } else { 3 };
        let (found, least) = (all.len(), parts * PROBES);
        if found < least {
            let needed = least * window;
            return Err(Error::TextTooShort { found: text.len(), needed, windows: least, window });
        }
        let tune_windows = all.split_off(fit.min(found / parts));
        let fit_windows = std::mem::replace(&mut all, tune_windows);
        let mut test_windows = match test {
            Some(test) => cut(test),
            None => all.split_off(tune.min(found / parts)),
        };
        all.truncate(tune);
        test_windows.truncate(count(options.test_tokens));
        if test_windows.is_empty() {
            let found = test.map_or(0, <[u32]>::len);
            return Err(Error::TextTooShort { found, needed: window, windows: 1, window });
        }
        Ok(Self { fit: fit_windows, tune: all, test: test_windows })
    }
}

/// Chooses selectors and a screen of the head for the model in `gguf`, by the tokens of `text`; the result is measured on `test`, or on a part of
/// `text` that was used for nothing else.
///
/// # Errors
/// If the text is too short, the model fails, or `progress` asks to stop.
pub fn calibrate(
    gguf: &Gguf,
    text: &[u32],
    test: Option<&[u32]>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Calibration, Error> {
    let model = Model::from_gguf(gguf, options.threads)?;
    let windows = Windows::new(&model, text, test, options)?;
    let mut calibration = match options.ffn {
        true => calibrate_ffn(gguf, &windows, options, progress)?,
        false => Calibration {
            candidates: Vec::new(),
            chosen: None,
            head: None,
            sidecar: Sidecar {
                fingerprint: sidecar::fingerprint(gguf),
                selectors: model.ffns().map(|f| f.selector().clone()).collect(),
                loss: None,
                screen: None,
                lanes: None,
            },
        },
    };
    drop(model);
    if options.head {
        let texts = head::Texts { fit: &windows.fit, tune: &windows.tune, test: &windows.test };
        let found =
            head::calibrate(gguf, &texts, options.threads, options.continuations, options.keep, progress)?;
        calibration.sidecar.screen = found.screen.clone();
        calibration.head = Some(found);
    }
    Ok(calibration)
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
    let dense_bytes: usize = dense.ffns().map(|f| f.bytes()).sum();

    progress.begin("watching the layers", windows.fit.len());
    let samples = collect(&dense, &windows.fit, progress)?;
    progress.begin("scoring the dense model", windows.tune.len());
    let reference = Reference::new(&dense, windows.tune.clone(), progress)?;

    let budget = options.budget();
    let lossless = dense.ffns().all(|f| f.activation().has_zeros());
    let shares;
    let mut families: Vec<Box<dyn Family + '_>> = Vec::new();
    // By recall, predictors alone are chosen.
    if options.recall.is_none() && lossless {
        families.push(Box::new(ExactZero(layers)));
    } else if options.recall.is_none() {
        let divergence = Divergence::new(&dense, &windows.tune[..PROBES])?;
        shares = Shares::new(&dense, &mut sparse, &samples, &divergence, progress)?;
        families.extend(
            RATIOS.map(|ratio| -> Box<dyn Family> { Box::new(GateFamily { shares: &shares, ratio }) }),
        );
    }
    for family in low_rank::fit(&dense, &samples, &options.ranks, progress)? {
        families.push(match options.recall {
            Some(recall) => Box::new(Recalling::new(&dense, &samples, family, recall)?),
            None => Box::new(family),
        });
    }

    let mut candidates =
        vec![Candidate { name: "dense".into(), loss: None, bytes_share: 1.0, time_share: 1.0 }];
    let mut best: Option<(usize, f32, f64, f64)> = None;
    for (i, family) in families.iter().enumerate() {
        progress.begin(&format!("trying {}", family.name()), TRIALS * reference.windows().len());
        let found = search(family.range(), budget, |knob| {
            equip(&mut sparse, family.selectors(knob))?;
            let measured = reference.loss(&sparse, progress)?;
            Ok((measured.loss.upper(), measured))
        })?;
        let mut candidate = Candidate { name: family.name(), loss: None, bytes_share: 1.0, time_share: 1.0 };
        if let Some((knob, Measured { loss, counts })) = found {
            equip(&mut sparse, family.selectors(knob))?;
            let bytes: u64 = counts.iter().map(|c| c.bytes).sum();
            let tokens = counts.first().map_or(1, |c| c.tokens.max(1));
            candidate.loss = Some(loss);
            candidate.bytes_share = bytes as f64 / tokens as f64 / dense_bytes as f64;
            candidate.time_share = curves.sparse(&sparse, &counts) / curves.dense();
            // The fastest; among those that gain nothing, the one that reads least.
            let key = (candidate.time_share.min(1.0), candidate.bytes_share);
            if best.is_none_or(|(_, _, time, bytes)| key < (time, bytes)) {
                best = Some((i, knob, key.0, key.1));
            }
        }
        candidates.push(candidate);
    }

    let chosen = match best {
        Some((i, knob, ..)) => {
            let inside =
                verified(&dense, &mut sparse, &*families[i], knob, &windows.test, options, progress)?;
            inside.map(|measured| (families[i].name(), measured))
        }
        None => None,
    };
    let chosen = match chosen {
        Some((name, (loss, counts))) => {
            let reports = sparse.ffns().zip(&samples).zip(&counts).enumerate();
            let layers: Vec<LayerReport> = reports
                .map(|(i, ((ffn, samples), counts))| {
                    LayerReport::new(i, ffn, counts, &quality(sparse.compute(), ffn, samples).0)
                })
                .collect();
            // Timed as it will run: with the crossover.
            sidecar::prepare(Arc::get_mut(&mut sparse).expect("no session holds the model"))?;
            let prompt = &windows.test[0][..options.window / 4];
            let speed = decode(&timed, &sparse, prompt, progress)?;
            let bytes_share = layers.iter().map(|l| l.bytes).sum::<f64>() / dense_bytes as f64;
            Some(Chosen { name, layers, loss, bytes_share, speed, pays: speed.gain >= LEAST_GAIN })
        }
        None => None,
    };
    let kept = chosen.as_ref().filter(|c| c.pays || options.keep);
    let selectors = match kept {
        Some(_) => sparse.ffns().map(|f| f.selector().clone()).collect(),
        None => dense.ffns().map(|_| Selector::Dense).collect(),
    };
    let loss = kept.map(|c| c.loss);
    let sidecar =
        Sidecar { fingerprint: sidecar::fingerprint(gguf), selectors, loss, screen: None, lanes: None };
    Ok(Calibration { candidates, chosen, head: None, sidecar })
}

/// Measures a configuration on text that it was not chosen by, and makes it less sparse until it is inside the budget
/// there, too. Nothing if it does not get there. Each retreat looks at the same text again, so the bound of a configuration
/// that needed some is a little too good.
fn verified(
    dense: &Arc<Model>,
    sparse: &mut Arc<Model>,
    family: &dyn Family,
    mut knob: f32,
    test: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Option<(MeasuredLoss, Vec<FfnCounts>)>, Error> {
    for _ in 0..=RETRIES {
        equip(sparse, family.selectors(knob))?;
        progress.begin("measuring the loss on other text", test.len());
        let (loss, counts) = verify(dense, sparse, test, progress)?;
        if loss.upper() <= options.budget() {
            return Ok(Some((loss, counts)));
        }
        tracing::info!(knob, upper = loss.upper(), "over the budget on other text");
        knob *= 1.0 - RETREAT;
    }
    Ok(None)
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
