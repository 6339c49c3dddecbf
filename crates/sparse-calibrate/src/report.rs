//! What calibration found.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use sparse_core::{BatchMode, Compute, FfnCounts, FfnScratch, Selector, SelectorQuality, SparseFfn};
use sparse_model::Sidecar;
use sparse_model::sidecar::MeasuredLoss;

use crate::head::HeadCalibration;
use crate::loss::Loss;
use crate::samples::Samples;
use crate::speed::Speed;

/// The result of [`calibrate`](crate::calibrate).
#[derive(Debug)]
pub struct Calibration {
    /// Everything that was tried, dense first.
    pub candidates: Vec<Candidate>,
    /// The fastest configuration inside the budget; nothing if none was.
    pub chosen: Option<Chosen>,
    /// The screens of the head that were tried.
    pub head: Option<HeadCalibration>,
    /// What to keep: the selectors of the chosen configuration, or dense ones if it gains nothing and was not
    /// [asked for](crate::Options::keep) all the same.
    pub sidecar: Sidecar,
}

/// A configuration that was measured in full.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// Its name among the candidates.
    pub name: String,
    /// Its layers.
    pub layers: Vec<LayerReport>,
    /// Its loss on text that nothing was fitted to.
    #[serde(serialize_with = "loss_fields")]
    pub loss: MeasuredLoss,
    /// Share of the dense layers' bytes that it reads per token.
    pub bytes_share: f64,
    /// How fast the whole model decodes with it, as it runs: dense in `slower` layers.
    pub speed: Speed,
    /// Layers that stay dense on this machine, because skipping is slower in them; none if selectors are kept whatever they
    /// gain.
    pub slower: usize,
    /// Whether that is faster than the dense model.
    pub pays: bool,
}

impl Calibration {
    /// What came of it, in a sentence for neurons and one for the head.
    pub fn verdict(&self) -> String {
        let ffn = (!self.candidates.is_empty()).then(|| self.ffn_verdict());
        let head = self.head.as_ref().map(HeadCalibration::verdict);
        ffn.into_iter().chain(head).collect::<Vec<_>>().join("\n")
    }

    fn ffn_verdict(&self) -> String {
        let Some(chosen) = &self.chosen else {
            return "nothing that was tried stays inside the budget: the model stays dense".into();
        };
        let Chosen { name, loss, speed, bytes_share, slower, .. } = chosen;
        let (percent, upper) = (100.0 * loss.perplexity_increase, 100.0 * loss.upper());
        let measured = format!(
            "{name} reads {:.1} % of the feed-forward weights and costs {percent:.2} % of perplexity (at most {upper:.2} %, on {} tokens)",
            100.0 * bytes_share,
            loss.tokens
        );
        let layers = chosen.layers.len();
        let here = match *slower {
            0 => String::new(),
            n => format!(
                "; skipping is slower than the dense path in {n} of {layers} layers, which stay dense on this machine"
            ),
        };
        match chosen.pays {
            true => format!("{measured}; the model decodes at {:.2} times its dense speed{here}", speed.gain),
            false if *slower == layers => {
                format!(
                    "{measured}, but skipping is slower than the dense path in every layer here: the model stays dense"
                )
            }
            false => format!(
                "{measured}, but the model decodes at {:.2} times its dense speed: skipping gains nothing here, it stays dense{here}",
                speed.gain
            ),
        }
    }
}

/// [`MeasuredLoss`] with its upper bound.
pub(crate) fn loss_fields<S: Serializer>(loss: &MeasuredLoss, serializer: S) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_struct("MeasuredLoss", 6)?;
    fields.serialize_field("perplexity_increase", &loss.perplexity_increase)?;
    fields.serialize_field("standard_error", &loss.standard_error)?;
    fields.serialize_field("upper", &loss.upper())?;
    fields.serialize_field("kl", &loss.kl)?;
    fields.serialize_field("top1", &loss.top1)?;
    fields.serialize_field("tokens", &loss.tokens)?;
    fields.end()
}

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
}

/// One layer of the chosen configuration.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Number of the layer.
    pub layer: usize,
    /// Its selector.
    pub selector: &'static str,
    /// Share of the gates computed.
    pub gate_density: f64,
    /// Share of `up` computed.
    pub up_density: f64,
    /// Share of `down` used.
    pub down_density: f64,
    /// Share of the neurons that an oracle would have taken that were kept: for ReLU those that are not zero, for others
    /// as many as were chosen.
    pub recall: f64,
    /// Share of the neurons kept, or named by a predictor, that an oracle would have taken.
    pub precision: f64,
    /// Share of the output's energy that was kept.
    pub kept_energy: f64,
    /// The divergence, in nats, that the layer causes if all others are dense; nothing for encoders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Bytes read per token.
    pub bytes: f64,
    /// Bytes read per token when dense.
    pub dense_bytes: usize,
}

impl LayerReport {
    pub(crate) fn new(layer: usize, ffn: &SparseFfn, counts: &FfnCounts, quality: &SelectorQuality) -> Self {
        let tokens = counts.tokens.max(1) as f64;
        let density = |n: u64| n as f64 / tokens / ffn.neurons() as f64;
        // Zeros that a predictor named are not among what was kept in the end.
        let named = if ffn.gate().is_some() { counts.gate } else { counts.up };
        let precision = match ffn.selector() {
            Selector::LowRank { .. } if ffn.activation().has_zeros() => {
                counts.down as f64 / named.max(1) as f64
            }
            _ => quality.precision(),
        };
        Self {
            layer,
            selector: ffn.selector().name(),
            gate_density: density(counts.gate),
            up_density: density(counts.up),
            down_density: density(counts.down),
            recall: quality.recall(),
            precision,
            kl: None,
            kept_energy: quality.kept_energy(),
            bytes: counts.bytes as f64 / tokens,
            dense_bytes: ffn.bytes(),
        }
    }
}

/// How well the selector of `ffn` chooses on inputs that it was not fitted to, and what single tokens would take.
pub(crate) fn quality(compute: &Compute, ffn: &SparseFfn, samples: &Samples) -> (SelectorQuality, FfnCounts) {
    let range = samples.held();
    let all = samples.neurons(compute, ffn, range.clone()).hidden;
    let x = samples.activations(compute, range.clone());
    let mut scratch = FfnScratch::new(range.len(), [ffn]);
    let mut out = vec![0.0; range.len() * ffn.outputs()];
    let counts = ffn.forward(compute, &x, BatchMode::Masked, &mut scratch, &mut out);
    let norms = ffn.down().norms();
    let n = ffn.neurons();
    let mut quality = SelectorQuality::default();
    for (chosen, all) in scratch.hidden().chunks(n).zip(all.chunks(n)) {
        let mean = |j: usize| ffn.means().map_or(0.0, |means| means[j]);
        let share = |j: usize| (all[j] - mean(j)).abs() * norms[j];
        let count = chosen.iter().filter(|h| **h != 0.0).count();
        // What an oracle would have taken: everything that is not zero, or the best of as many as were chosen.
        let bound = match ffn.activation().has_zeros() || count == 0 {
            true => f32::MIN_POSITIVE,
            false => {
                let mut sorted: Vec<f32> = (0..n).map(share).collect();
                *sorted.select_nth_unstable_by(n - count, f32::total_cmp).1
            }
        };
        for (j, h) in chosen.iter().enumerate() {
            quality.add(*h != 0.0, share(j) >= bound, share(j));
        }
    }
    (quality, counts)
}
