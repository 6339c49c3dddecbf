//! Neurons in lanes, hot ones in wide and cold ones in narrow ones.
//!
//! What it costs to round a neuron is taken to be its part in the energy of its layer's output,
//! `E[h_j^2] |down_j|^2`, times the divergence that the layer causes when all of it is in the
//! narrowest lane. Two bits more make a squared error sixteen times smaller. So with one threshold
//! `t`, neurons whose cost is below `t` go to Bit3, those below `16 t` to Bit5 and the others to
//! Bit7: the last two bits of every neuron are then worth the same.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sparse_core::{FfnCounts, Selector};
use sparse_gguf::Gguf;
use sparse_model::lanes::{NeuronLanes, NeuronRecords};
use sparse_model::sidecar::MeasuredLoss;
use sparse_model::{Model, Sidecar, sidecar};
use sparse_precision::PrecisionLane::{self, Bit3, Bit5, Bit7};

use crate::Error;
use crate::error::one_network;
use crate::held_out::{HeldOut, affordable};
use crate::loss::{Loss, Reference, Until};
use crate::options::Options;
use crate::progress::{Progress, Schedule, Silent, step};
use crate::report::{loss_fields, loss_verdict};
use crate::samples::{Samples, collect};
use crate::speed::{Speed, decode};
use crate::text::Text;
use crate::windows::{PROBES, Windows};

/// Widest first.
const LANES: [PrecisionLane; 3] = [Bit7, Bit5, Bit3];
/// How many times larger a cost has to be to deserve two bits more.
const STEP: f64 = 16.0;
/// Thresholds that are tried.
const TRIALS: usize = 8;
/// How often a threshold that is over the budget on the last text is lowered, and to which part.
const RETRIES: usize = 5;
const RETREAT: f64 = 0.6;
/// Shares of the time that is left: one trial of a threshold, and measuring the result.
const TRIAL_SHARE: f64 = 0.05;
const TEST_SHARE: f64 = 0.6;
/// Tokens of a layer whose neurons are watched.
const TOKENS: usize = 2048;

/// The result of [`calibrate_lanes`].
#[derive(Debug)]
pub struct LaneCalibration {
    /// Everything that was tried: neurons as the file has them, all in one lane, and in those of
    /// the threshold.
    pub candidates: Vec<LaneCandidate>,
    /// The smallest choice inside the budget, if that is smaller than the file's weights; or why
    /// there is none.
    pub chosen: Result<ChosenLanes, NoLanes>,
    /// What to keep: selectors and screen as they were, and the lanes, if any were chosen.
    pub sidecar: Sidecar,
}

/// Why neurons are better left as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum NoLanes {
    /// All choices that were tried are over the budget.
    OverBudget,
    /// What is inside the budget takes as many bytes as the file's weights, or more.
    SavesNothing {
        /// Bits per weight of the smallest choice inside the budget.
        bits: f64,
        /// Those as the file has them.
        file_bits: f64,
    },
    /// What is inside the budget on the text that it was chosen by is over it on other text, and so
    /// are wider lanes, as far as they would save bytes.
    OverBudgetOnOtherText,
}

impl fmt::Display for NoLanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverBudget => f.write_str("even with all neurons in Bit7 the model is over the budget"),
            Self::SavesNothing { bits, file_bits } => write!(
                f,
                "those inside the budget save nothing: {bits:.2} bits per weight, and the file has {file_bits:.2}"
            ),
            Self::OverBudgetOnOtherText => f.write_str(
                "those inside the budget on the text that they were chosen by are over it on other text",
            ),
        }
    }
}

/// Lanes that were tried.
#[derive(Clone, Debug, Serialize)]
pub struct LaneCandidate {
    /// Which: as in the file, all in one lane, or hot and cold neurons at some threshold.
    pub name: String,
    /// Loss on the text that the threshold was chosen by, that of the selectors included.
    pub loss: Loss,
    /// Bytes of all feed-forward weights.
    pub bytes: usize,
    /// Bits per weight.
    pub bits: f64,
}

/// Lanes that were measured in full.
#[derive(Clone, Debug, Serialize)]
pub struct ChosenLanes {
    /// Layers: how many neurons are in Bit7, Bit5 and Bit3.
    pub neurons: Vec<[usize; 3]>,
    /// Loss on text that nothing was fitted to, that of the selectors included.
    #[serde(serialize_with = "loss_fields")]
    pub loss: MeasuredLoss,
    /// Bytes of all feed-forward weights.
    pub bytes: usize,
    /// Those as the file has them.
    pub file_bytes: usize,
    /// Bits per weight.
    pub bits: f64,
    /// Those as the file has them.
    pub file_bits: f64,
    /// Bytes of feed-forward weights that a token reads.
    pub bytes_per_token: f64,
    /// How fast the whole model decodes in lanes; `dense` is the same model without lanes.
    pub speed: Speed,
}

impl LaneCalibration {
    /// What came of it, in a sentence.
    pub fn verdict(&self) -> String {
        let c = match &self.chosen {
            Ok(chosen) => chosen,
            Err(why) => return format!("lanes: {why}; neurons stay as they are"),
        };
        let saved = 100.0 * (1.0 - c.bytes as f64 / c.file_bytes as f64);
        format!(
            "lanes: {:.2} bits per feed-forward weight, {saved:.0} % less than the file's {:.2}; selectors included, {}; {}",
            c.bits,
            c.file_bits,
            loss_verdict(&c.loss),
            c.speed.verdict()
        )
    }
}

/// Chooses a lane for every neuron of the model in `gguf`, by `text`, as narrow as the budget
/// allows. Selectors and screen are those of `before`, or what the model was made for.
///
/// # Errors
/// If the text is too short, `before` is for another model, a row is no whole number of blocks of
/// 32, the model fails, or `progress` asks to stop.
pub fn calibrate_lanes(
    gguf: &Gguf,
    before: Option<Sidecar>,
    text: Text<'_>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<LaneCalibration, Error> {
    let schedule = &mut Schedule::new(progress, Instant::now() + options.time);
    let mut dense = Model::from_gguf(gguf, options.threads)?;
    one_network(&dense, "the choice of lanes", "")?;
    let mut kept = match before {
        Some(before) => before.check(gguf)?,
        None => Sidecar::of(gguf, &dense),
    };
    for ffn in dense.ffns_mut() {
        ffn.set_selector(Selector::Dense)?;
    }
    let dense = Arc::new(dense);
    let windows = Windows::new(&dense, text, options, schedule)?;
    let mut held_out = HeldOut::new(&dense, &windows, schedule)?;
    let mut reference = Reference::new(&dense, windows.tune.clone());
    let trial = TRIAL_SHARE * schedule.seconds_left();
    reference.truncate(affordable(trial, windows.len(), held_out.pace).max(PROBES));
    schedule.begin("watching the layers", windows.fit.len());
    let samples = collect(&dense, &windows.fit, schedule)?;
    let layers = Layers::new(gguf, &dense, &samples, options.threads, schedule)?;
    let costs = layers.costs(&mut reference, schedule)?;

    let weights: usize = dense
        .ffns()
        .map(|f| f.neurons() * (f.outputs() + f.inputs() * (1 + usize::from(f.gate().is_some()))))
        .sum();
    let bits = |bytes: usize| 8.0 * bytes as f64 / weights as f64;
    let ffn_bytes = |model: &Model| model.ffns().map(|f| f.bytes()).sum::<usize>();
    let (budget, file_bytes) = (options.max_loss, ffn_bytes(&dense));
    let mut candidates = Vec::new();
    let mut measure = |name: String, lanes: &[NeuronLanes]| -> Result<Tried, Error> {
        let model = layers.model(lanes, &kept.selectors)?;
        schedule.begin(&format!("trying {name}"), reference.windows().len());
        let loss = reference.measure(&model, Until::Clear(budget), schedule)?.loss;
        let bytes = ffn_bytes(&model);
        tracing::debug!(name, upper = loss.upper(), bytes, "tried");
        candidates.push(LaneCandidate { name, loss, bytes, bits: bits(bytes) });
        Ok(Tried { bytes, inside: loss.upper() <= budget })
    };
    measure("as in the file".into(), &[])?;
    let found = smallest(&costs, |choice| measure(choice.to_string(), &layers.lanes(&costs, choice)?))?;
    let mut choice = match found {
        None => Err(NoLanes::OverBudget),
        Some((_, bytes)) if bytes >= file_bytes => {
            Err(NoLanes::SavesNothing { bits: bits(bytes), file_bits: bits(file_bytes) })
        }
        Some((choice, _)) => Ok(choice),
    };

    held_out.limit(TEST_SHARE * schedule.seconds_left());
    let mut chosen = None;
    let largest = costs.iter().flatten().copied().fold(0.0, f64::max);
    for _ in 0..=RETRIES {
        let Ok(tried) = choice else { break };
        let lanes = layers.lanes(&costs, tried)?;
        let model = layers.model(&lanes, &kept.selectors)?;
        if ffn_bytes(&model) >= file_bytes {
            break;
        }
        let (loss, measured) = held_out.measure(&model, budget, schedule)?;
        if loss.upper() <= budget {
            chosen = Some((lanes, model, loss, measured.counts));
            break;
        }
        tracing::info!(%tried, upper = loss.upper(), "over the budget on other text");
        choice = tried.wider(largest).ok_or(NoLanes::OverBudgetOnOtherText);
    }
    let Some((lanes, mut model, loss, counts)) = chosen else {
        // A loss that was measured with other lanes goes with them.
        if kept.lanes.take().is_some() {
            kept.loss = None;
        }
        let why = choice.err().unwrap_or(NoLanes::OverBudgetOnOtherText);
        return Ok(LaneCalibration { candidates, chosen: Err(why), sidecar: kept });
    };
    // Timed as they will run: with the crossover.
    let mut plain = layers.model(&[], &kept.selectors)?;
    for model in [&mut model, &mut plain] {
        let model = Arc::get_mut(model).expect("no session holds the model");
        sidecar::prepare(model, kept.densities.as_deref())?;
    }
    let prompt = &windows.test[0][..windows.len() / 4];
    let speed = decode(&plain, &model, prompt, schedule)?;
    let bytes = ffn_bytes(&model);
    let per_token = |c: &FfnCounts| c.bytes as f64 / c.tokens.max(1) as f64;
    let chosen = ChosenLanes {
        neurons: lanes.iter().map(counted).collect(),
        loss,
        bytes,
        file_bytes,
        bits: bits(bytes),
        file_bits: bits(file_bytes),
        bytes_per_token: counts.iter().map(per_token).sum(),
        speed,
    };
    (kept.loss, kept.lanes) = (Some(loss), Some(lanes));
    Ok(LaneCalibration { candidates, chosen: Ok(chosen), sidecar: kept })
}

/// How neurons get their lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    /// All the same.
    All(PrecisionLane),
    /// Each what its cost deserves, by the threshold below which it is Bit3.
    Costs(f64),
}

impl Choice {
    fn lane(self, cost: f64) -> PrecisionLane {
        match self {
            Self::All(lane) => lane,
            Self::Costs(threshold) => match cost / threshold {
                x if x >= STEP => Bit7,
                x if x >= 1.0 => Bit5,
                _ => Bit3,
            },
        }
    }

    /// What to try where this is over the budget; `largest` is that of the costs.
    fn wider(self, largest: f64) -> Option<Self> {
        match self {
            Self::All(Bit3) => Some(Self::Costs(largest * RETREAT)),
            Self::All(Bit5) => Some(Self::All(Bit7)),
            Self::All(_) => None,
            Self::Costs(threshold) => Some(Self::Costs(threshold * RETREAT)),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(lane) => write!(f, "all in {lane}"),
            Self::Costs(threshold) => write!(f, "hot and cold at {threshold:.2e}"),
        }
    }
}

/// What was measured of a choice.
struct Tried {
    bytes: usize,
    inside: bool,
}

/// The choice that takes the fewest bytes of those that `measure` has seen inside the budget, and
/// its bytes.
fn smallest(
    costs: &[Vec<f64>],
    mut measure: impl FnMut(Choice) -> Result<Tried, Error>,
) -> Result<Option<(Choice, usize)>, Error> {
    let mut best: Option<(Choice, usize)> = None;
    let mut inside = |choice: Choice| -> Result<bool, Error> {
        let tried = measure(choice)?;
        if tried.inside && best.is_none_or(|(_, bytes)| tried.bytes < bytes) {
            best = Some((choice, tried.bytes));
        }
        Ok(tried.inside)
    };
    let widest = inside(Choice::All(Bit7))?;
    inside(Choice::All(Bit5))?;
    let narrowest = inside(Choice::All(Bit3))?;
    // Between the two, by the logarithm of the threshold.
    if widest && !narrowest {
        let positive = || costs.iter().flatten().copied().filter(|c| *c > 0.0);
        let mut low = positive().fold(f64::INFINITY, f64::min) / STEP;
        let mut high = 2.0 * positive().fold(low, f64::max);
        for _ in 0..TRIALS {
            let threshold = (low * high).sqrt();
            match inside(Choice::Costs(threshold))? {
                true => low = threshold,
                false => high = threshold,
            }
        }
    }
    Ok(best)
}

/// Neurons in Bit7, Bit5 and Bit3.
fn counted(lanes: &NeuronLanes) -> [usize; 3] {
    LANES.map(|lane| lanes.segments().iter().filter(|s| s.0 == lane).map(|s| s.1).sum())
}

/// The layers of a model, in every lane.
struct Layers<'a> {
    gguf: &'a Gguf,
    threads: usize,
    layers: Vec<Layer>,
}

struct Layer {
    /// All neurons, in each of [`LANES`].
    records: [NeuronRecords; 3],
    /// The mean square of every input.
    importance: Vec<f32>,
    /// What every neuron has of the energy of the output: together 1.
    energy: Vec<f64>,
}

impl<'a> Layers<'a> {
    fn new(
        gguf: &'a Gguf,
        dense: &Model,
        samples: &[Samples],
        threads: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        progress.begin("rounding the neurons to each lane", samples.len());
        let mut layers = Vec::new();
        for (i, (ffn, samples)) in dense.ffns().zip(samples).enumerate() {
            let tokens = samples.tokens().min(TOKENS);
            let hidden = samples.neurons(dense.compute(), ffn, 0..tokens).hidden;
            let mut energy = mean_squares(&hidden, ffn.neurons());
            energy.iter_mut().zip(ffn.down().norms()).for_each(|(e, norm)| *e *= f64::from(norm).powi(2));
            let all: f64 = energy.iter().sum();
            energy.iter_mut().for_each(|e| *e /= all.max(f64::MIN_POSITIVE));
            let importance: Vec<f32> =
                mean_squares(&samples.x, ffn.inputs()).into_iter().map(|m| m as f32).collect();
            let file = NeuronRecords::of(i, ffn)?;
            let [a, b, c] = LANES.map(|lane| file.in_lane(lane, &importance));
            layers.push(Layer { records: [a?, b?, c?], importance, energy });
            step(progress)?;
        }
        Ok(Self { gguf, threads, layers })
    }

    /// The model with these selectors and its first layers in `lanes`, one of them per layer.
    fn model(&self, lanes: &[NeuronLanes], selectors: &[Selector]) -> Result<Arc<Model>, Error> {
        let mut model = Model::from_gguf(self.gguf, self.threads)?;
        for (ffn, selector) in model.ffns_mut().zip(selectors) {
            ffn.set_selector(selector.clone())?;
        }
        for ((ffn, layer), lanes) in model.ffns_mut().zip(&self.layers).zip(lanes) {
            layer.apply(lanes, ffn)?;
        }
        Ok(Arc::new(model))
    }

    /// What rounding costs, per layer and neuron.
    fn costs(&self, reference: &mut Reference, progress: &mut dyn Progress) -> Result<Vec<Vec<f64>>, Error> {
        progress.begin("measuring how much each layer matters", self.layers.len());
        let mut costs = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let mut model = self.model(&[], &vec![Selector::Dense; self.layers.len()])?;
            let ffns = Arc::get_mut(&mut model).expect("no session holds the model").ffns_mut();
            for ffn in ffns.skip(i).take(1) {
                layer.apply(&layer.lanes(&layer.energy, Choice::All(Bit3))?, ffn)?;
            }
            let measured = reference.measure(&model, Until::Windows(PROBES), &mut Silent)?;
            let matters = measured.loss.kl.max(1e-9);
            costs.push(layer.energy.iter().map(|e| e * matters).collect());
            step(progress)?;
        }
        Ok(costs)
    }

    /// Lanes for all layers, by the costs of their neurons.
    fn lanes(&self, costs: &[Vec<f64>], choice: Choice) -> Result<Vec<NeuronLanes>, Error> {
        self.layers.iter().zip(costs).map(|(layer, costs)| layer.lanes(costs, choice)).collect()
    }
}

impl Layer {
    fn apply(&self, lanes: &NeuronLanes, ffn: &mut sparse_core::SparseFfn) -> Result<(), Error> {
        Ok(lanes.apply_with(ffn, |lane, neurons| {
            let at = LANES.iter().position(|l| *l == lane).unwrap_or_default();
            Ok(self.records[at].select(neurons))
        })?)
    }

    /// Neurons by falling cost, in lanes that grow no wider.
    fn lanes(&self, costs: &[f64], choice: Choice) -> Result<NeuronLanes, Error> {
        let mut order: Vec<u32> = (0..costs.len() as u32).collect();
        let cost = |j: &u32| costs[*j as usize];
        order.sort_by(|a, b| cost(b).total_cmp(&cost(a)).then(a.cmp(b)));
        let count = |lane| order.iter().filter(|j| choice.lane(cost(j)) == lane).count();
        let segments = LANES.map(|lane| (lane, count(lane))).to_vec();
        Ok(NeuronLanes::new(order, segments, self.importance.clone())?)
    }
}

/// Of every column of `x`, rows of `n` values.
fn mean_squares(x: &[f32], n: usize) -> Vec<f64> {
    let mut sums = vec![0.0; n];
    for row in x.chunks_exact(n) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v).powi(2));
    }
    let rows = (x.len() / n.max(1)).max(1) as f64;
    sums.into_iter().map(|sum| sum / rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bits_more_for_sixteen_times_the_cost() {
        let lanes = [0.0, 0.9, 1.0, 15.0, 16.0, 1e9].map(|cost| Choice::Costs(2.0).lane(2.0 * cost));
        assert_eq!(lanes, [Bit3, Bit3, Bit5, Bit5, Bit7, Bit7]);
        assert_eq!(mean_squares(&[1.0, 2.0, 3.0, 4.0], 2), [5.0, 10.0]);
    }

    /// The choice for a hundred neurons whose costs are powers, if those are inside the budget that
    /// `inside` says, and how many were tried.
    fn found(inside: impl Fn(Choice) -> bool) -> (Option<Choice>, usize) {
        let costs = [(0..100).map(|i| 0.8_f64.powi(i)).collect::<Vec<_>>()];
        let mut tried = 0;
        let best = smallest(&costs, |choice| {
            tried += 1;
            let bytes = costs[0].iter().map(|c| choice.lane(*c).bits() as usize).sum();
            Ok(Tried { bytes, inside: inside(choice) })
        });
        (best.unwrap().map(|(choice, _)| choice), tried)
    }

    #[test]
    fn only_what_was_measured_inside_the_budget_is_chosen() {
        assert_eq!(found(|_| false), (None, 3));
        assert_eq!(found(|_| true), (Some(Choice::All(Bit3)), 3));
        assert_eq!(found(|choice| choice == Choice::All(Bit7)), (Some(Choice::All(Bit7)), 3 + TRIALS));
        // Measured by chance: Bit7 is over the budget, Bit5 is not.
        assert_eq!(found(|choice| choice == Choice::All(Bit5)), (Some(Choice::All(Bit5)), 3));
        let below = |most: f64| move |choice| matches!(choice, Choice::Costs(t) if t <= most);
        let (choice, _) = found(|choice| choice == Choice::All(Bit7) || below(0.01)(choice));
        assert!(matches!(choice, Some(Choice::Costs(t)) if t > 0.007 && t <= 0.01), "{choice:?}");
        // Thresholds that are larger than all in Bit5 are no gain over it.
        let (choice, _) = found(|choice| matches!(choice, Choice::All(Bit7 | Bit5)) || below(1e-9)(choice));
        assert_eq!(choice, Some(Choice::All(Bit5)));
    }

    #[test]
    fn what_is_over_the_budget_is_followed_by_what_is_wider() {
        let bits = |choice: Choice| (0..100).map(|i| choice.lane(0.8_f64.powi(i)).bits()).sum::<u32>();
        for lane in LANES {
            let mut choice = Choice::All(lane);
            for _ in 0..RETRIES {
                let Some(wider) = choice.wider(1.0) else { break };
                assert!(bits(wider) > bits(choice), "{choice} {wider}");
                choice = wider;
            }
        }
        assert_eq!(Choice::All(Bit7).wider(1.0), None);
    }

    #[test]
    fn verdicts_say_why_neurons_stay_as_they_are() {
        let verdict = |why| {
            let sidecar = Sidecar {
                fingerprint: String::new(),
                activation: None,
                selectors: vec![],
                loss: None,
                screen: None,
                densities: None,
                lanes: None,
                heat: None,
            };
            LaneCalibration { candidates: Vec::new(), chosen: Err(why), sidecar }.verdict()
        };
        let nothing = verdict(NoLanes::SavesNothing { bits: 5.5, file_bits: 4.5 });
        assert!(nothing.contains("save nothing: 5.50 bits per weight, and the file has 4.50;"), "{nothing}");
        assert!(verdict(NoLanes::OverBudget).contains("even with all neurons in Bit7"));
        let other = verdict(NoLanes::OverBudgetOnOtherText);
        assert!(
            other.contains("over it on other text") && other.ends_with("neurons stay as they are"),
            "{other}"
        );
    }
}
