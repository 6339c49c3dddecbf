//! Calibration of sentence encoders.

mod families;

use std::path::Path;

use serde::Serialize;
use sparse_core::Selector;
use sparse_model::sidecar::{EncoderLoss, EncoderSidecar};
use sparse_model::{Encoder, EncoderFormat, EncoderOptions, EncoderSparsity};

use crate::Error;
use crate::progress::{Progress, step};
use crate::report::{LayerReport, quality};
use crate::samples::Samples;
use crate::search::{RETRIES, TRIALS, Trial, back_off, search};
use families::{Layer, families};

/// Tokens computed together that are timed.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
/// A share of the dense time above this is no gain.
const GAIN: f64 = 0.97;
/// Sentences that are embedded between two looks at whether to go on.
const STEP: usize = 32;
/// Sentences that calibration needs for each of its three purposes.
const LEAST: usize = 8;

/// What the calibration of an encoder is to do.
#[derive(Clone, Debug)]
pub struct SentenceOptions {
    /// Largest loss, 1 less the mean cosine to the dense embedding, by its upper 95 % bound.
    pub max_loss: f64,
    /// Sentences that selectors are fitted to.
    pub fit: usize,
    /// Sentences that settings are chosen by.
    pub tune: usize,
    /// Sentences that the result is measured on.
    pub test: usize,
    /// Ranks of the predictors that are tried.
    pub ranks: Vec<usize>,
    /// Storage of the weights, which times depend on.
    pub format: EncoderFormat,
    /// Threads.
    pub threads: usize,
}

impl Default for SentenceOptions {
    fn default() -> Self {
        let format = EncoderFormat::default();
        Self { max_loss: 0.03, fit: 512, tune: 256, test: 1000, ranks: vec![32, 96], format, threads: 1 }
    }
}

/// The result of [`calibrate_encoder`].
#[derive(Debug)]
pub struct EncoderCalibration {
    /// Everything that was tried.
    pub candidates: Vec<EncoderCandidate>,
    /// The fastest configuration inside the budget; nothing if none was.
    pub chosen: Option<EncoderChosen>,
    /// What to keep. Loading an encoder with it measures again where it is faster.
    pub sidecar: EncoderSidecar,
}

/// Selectors of one kind, at the sparsest setting inside the budget.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderCandidate {
    /// Which.
    pub name: String,
    /// The upper bound of the loss on the sentences that settings were chosen by; nothing if no
    /// setting was inside the budget.
    pub loss: Option<f64>,
    /// Share of the neurons whose row of `up` is computed, over all layers.
    pub up_density: f64,
    /// Share of the neurons whose column of `down` is used.
    pub down_density: f64,
    /// Share of the dense layers' bytes that single tokens read.
    pub bytes_share: f64,
    /// Time of the feed-forward layers.
    pub times: Vec<TimeShare>,
}

/// Time of sparse layers over that of dense ones, on this machine, in one thread.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TimeShare {
    /// Tokens that are computed together.
    pub tokens: usize,
    /// Time over dense time.
    pub share: f64,
}

/// The configuration that was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderChosen {
    /// Its name among the candidates.
    pub name: String,
    /// Its layers.
    pub layers: Vec<LayerReport>,
    /// 1 less the mean cosine to the dense embedding, on sentences that nothing was fitted to.
    pub loss: f64,
    /// Standard error of that.
    pub standard_error: f64,
    /// Upper end of its 95 % confidence interval.
    pub upper: f64,
    /// Sentences.
    pub sentences: usize,
    /// Time of the feed-forward layers.
    pub times: Vec<TimeShare>,
}

impl EncoderCalibration {
    /// What came of it, in a sentence.
    pub fn verdict(&self) -> String {
        let Some(chosen) = &self.chosen else {
            return "nothing that was tried stays inside the budget: the encoder stays dense".into();
        };
        let costs =
            format!("{} costs {:.4} of the cosine (at most {:.4})", chosen.name, chosen.loss, chosen.upper);
        let gains: Vec<String> = chosen
            .times
            .iter()
            .take_while(|time| time.share < GAIN)
            .map(|time| format!("{} ({:.2})", time.tokens, time.share))
            .collect();
        match gains.is_empty() {
            true => format!(
                "{costs} and is faster for no number of tokens: the engine will compute all neurons here"
            ),
            false => format!(
                "{costs}; it is faster for few tokens, time of the feed-forward layers over dense: {}",
                gains.join(", ")
            ),
        }
    }
}

/// The embeddings that a dense encoder gives some sentences.
struct Reference<'a> {
    sentences: &'a [&'a str],
    embeddings: Vec<Vec<f32>>,
}

impl<'a> Reference<'a> {
    fn new(dense: &Encoder, sentences: &'a [&'a str], progress: &mut dyn Progress) -> Result<Self, Error> {
        progress.begin("embedding with the dense model", sentences.len().div_ceil(STEP));
        let embeddings = embed(dense, sentences, progress)?;
        Ok(Self { sentences, embeddings })
    }

    fn loss(&self, sparse: &Encoder, progress: &mut dyn Progress) -> Result<EncoderLoss, Error> {
        let found = embed(sparse, self.sentences, progress)?;
        let losses: Vec<f64> = found.iter().zip(&self.embeddings).map(|(a, b)| 1.0 - cosine(a, b)).collect();
        let n = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let variance = losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Ok(EncoderLoss { mean, standard_error: (variance / n).sqrt(), sentences: losses.len() })
    }
}

fn embed(encoder: &Encoder, sentences: &[&str], progress: &mut dyn Progress) -> Result<Vec<Vec<f32>>, Error> {
    let mut embeddings = Vec::with_capacity(sentences.len());
    for some in sentences.chunks(STEP) {
        embeddings.extend(encoder.embed_batch(some)?);
        step(progress)?;
    }
    Ok(embeddings)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Gives every layer its selector and its means.
fn set_selectors(encoder: &mut Encoder, layers: Vec<(Selector, Option<Vec<f32>>)>) -> Result<(), Error> {
    for ((_, ffn), (selector, means)) in encoder.ffns_mut().zip(layers) {
        ffn.set_selector(selector)?;
        ffn.set_means(means)?;
    }
    Ok(())
}

fn time_shares(encoder: &Encoder) -> Vec<TimeShare> {
    let timings = encoder.time_ffns(&SIZES);
    timings.iter().map(|t| TimeShare { tokens: t.tokens, share: t.sparse / t.dense }).collect()
}

/// What each layer does with its held-out samples.
fn reports(encoder: &Encoder, layers: &[Layer]) -> Vec<LayerReport> {
    let reports = encoder.ffns().zip(layers).map(|((i, ffn), layer)| {
        let (quality, counts, _) = quality(encoder.compute(), ffn, &layer.samples);
        LayerReport::new(i, ffn, &counts, &quality)
    });
    reports.collect()
}

/// Chooses selectors for the encoder at `model` (a folder or GGUF file) by `sentences`: a third of
/// them each for fitting, for choosing settings, and for measuring the result.
///
/// # Errors
/// If there are too few sentences, the model fails, or `progress` asks to stop.
pub fn calibrate_encoder(
    model: &Path,
    sentences: &[&str],
    options: &SentenceOptions,
    progress: &mut dyn Progress,
) -> Result<EncoderCalibration, Error> {
    let needed = 3 * LEAST;
    if sentences.len() < needed {
        return Err(Error::TooFewSentences { found: sentences.len(), needed });
    }
    let third = sentences.len() / 3;
    let part = |i: usize, most: usize| &sentences[i * third..i * third + third.min(most.max(LEAST))];
    let open = |sparsity| {
        let mut how = EncoderOptions::default();
        (how.format, how.threads, how.sparsity) = (options.format, options.threads, sparsity);
        Encoder::open(model, &how)
    };
    let mut sparse = open(EncoderSparsity::Prepared)?;
    let layers = watch(&sparse, part(0, options.fit), progress)?;
    let dense = open(EncoderSparsity::Dense)?;
    let tune = Reference::new(&dense, part(1, options.tune), progress)?;
    let families = families(&sparse, &layers, &options.ranks, progress)?;

    let steps = tune.sentences.len().div_ceil(STEP);
    let (mut candidates, mut best) = (Vec::new(), None::<(usize, f32, f64)>);
    for (i, family) in families.iter().enumerate() {
        progress.begin(&format!("trying {}", family.name()), TRIALS * steps);
        let found = search((0.5, 1.0), options.max_loss, |knob| {
            set_selectors(&mut sparse, family.layers(knob))?;
            let loss = tune.loss(&sparse, progress)?;
            // Times depend on the number of tokens: they are compared afterwards.
            Ok(Trial { upper: loss.upper(), pays: true, more: true, measured: loss })
        })?;
        let mut candidate = EncoderCandidate {
            name: family.name(),
            loss: None,
            up_density: 1.0,
            down_density: 1.0,
            bytes_share: 1.0,
            times: Vec::new(),
        };
        if let Some((knob, loss)) = found.inside() {
            set_selectors(&mut sparse, family.layers(knob))?;
            let reports = reports(&sparse, &layers);
            let mean =
                |f: fn(&LayerReport) -> f64| reports.iter().map(f).sum::<f64>() / reports.len().max(1) as f64;
            candidate.loss = Some(loss.upper());
            candidate.up_density = mean(|l| l.up_density);
            candidate.down_density = mean(|l| l.down_density);
            candidate.bytes_share = mean(|l| l.bytes) / mean(|l| l.dense_bytes as f64);
            candidate.times = time_shares(&sparse);
            // The engine computes all neurons where leaving some out is slower. What never gains
            // goes by its time all the same.
            let gains = candidate.times.iter().map(|t| t.share.min(1.0) + 1e-3 * t.share);
            let cost = gains.sum::<f64>() / SIZES.len() as f64;
            if best.is_none_or(|(.., least)| cost < least) {
                best = Some((i, knob, cost));
            }
        }
        candidates.push(candidate);
    }

    let mut sidecar = EncoderSidecar {
        fingerprint: sparse.fingerprint().to_owned(),
        layers: layers.iter().map(|_| (Selector::Dense, None)).collect(),
        loss: None,
    };
    let mut chosen = None;
    if let Some((i, mut knob, _)) = best {
        let test = Reference::new(&dense, part(2, options.test), progress)?;
        progress.begin(
            "measuring the loss on other sentences",
            (RETRIES + 1) * test.sentences.len().div_ceil(STEP),
        );
        for _ in 0..=RETRIES {
            set_selectors(&mut sparse, families[i].layers(knob))?;
            let loss = test.loss(&sparse, progress)?;
            if loss.upper() <= options.max_loss {
                chosen = Some(EncoderChosen {
                    name: families[i].name(),
                    layers: reports(&sparse, &layers),
                    loss: loss.mean,
                    standard_error: loss.standard_error,
                    upper: loss.upper(),
                    sentences: loss.sentences,
                    times: time_shares(&sparse),
                });
                (sidecar.layers, sidecar.loss) = (families[i].layers(knob), Some(loss));
                break;
            }
            // Each step back looks at the same sentences again, so the bound then is a little too
            // good.
            knob *= back_off(loss.upper(), options.max_loss);
        }
    }
    Ok(EncoderCalibration { candidates, chosen, sidecar })
}

/// What the layers are given and what their neurons make of it.
fn watch(encoder: &Encoder, sentences: &[&str], progress: &mut dyn Progress) -> Result<Vec<Layer>, Error> {
    let inputs = encoder.config().embedding;
    let mut samples: Vec<Samples> = encoder.ffns().map(|_| Samples { x: Vec::new(), inputs }).collect();
    let most = inputs * families::tokens(encoder);
    progress.begin("watching the layers", sentences.len());
    for sentence in sentences {
        encoder.watch_ffn_inputs(&[sentence], |i, x| {
            let room = most.saturating_sub(samples[i].x.len()).min(x.len());
            samples[i].x.extend_from_slice(&x[..room]);
        })?;
        step(progress)?;
    }
    let layers = encoder.ffns().zip(samples);
    Ok(layers.map(|((_, ffn), samples)| Layer::new(encoder.compute(), ffn, samples)).collect())
}
