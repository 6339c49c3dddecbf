//! Screening the output head: fitting axes, choosing margins, measuring what is missed.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sparse_core::{
    Activations, AxesFit, BatchMode, Margins, Reach, Screen, ScreenScratch, Wanted, lost_rows,
};
use sparse_gguf::Gguf;
use sparse_model::sidecar::HeadScreen;
use sparse_model::{Model, Placement, ScreenCounts, Session, Sidecar};

use crate::Error;
use crate::loss::session;
use crate::options::Options;
use crate::progress::{Progress, Schedule, step};
use crate::speed::{Speed, decode};
use crate::windows::Windows;

/// Share of the tokens whose best row may be missed when margins are chosen, and of the probability
/// that may be: somewhat less than what is allowed in the end.
const MISSES: f64 = 7e-4;
const MASS_MISSES: f64 = 9e-4;
/// Largest shares that a screen may miss on text that nothing was fitted to.
const ALLOWED: f64 = 1e-3;
/// Margins that are tried for the mass.
const MASS_MARGINS: [f32; 8] = [0.5, 1.0, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0];
/// One in so many tuning tokens is looked at for that.
const STRIDE: usize = 4;
/// The share of all probability that sampling draws from.
const TOP_P: f32 = 0.95;
/// Tokens whose logits are computed at a time.
const BATCH: usize = 16;
/// Shares of the time that is left: fitting axes, choosing margins, measuring a screen.
const FIT_SHARE: f64 = 0.15;
const TUNE_SHARE: f64 = 0.3;
const MEASURE_SHARE: f64 = 0.5;
/// Tokens that scoring is timed with.
const TIMED: usize = 31;
/// Tokens of a continuation, and of the text before it; fewer where the model's context or the
/// windows are short.
const CONTINUATION: usize = 64;

/// What screening the head came to.
#[derive(Debug, Serialize)]
pub struct HeadCalibration {
    /// The screens that were measured.
    pub candidates: Vec<HeadReport>,
    /// Which of them reads least among those that miss little enough.
    pub chosen: Option<usize>,
    /// How fast the whole model decodes with it.
    pub speed: Option<Speed>,
    /// How many greedy continuations were compared, and how many were the same with it.
    pub continuations: Option<Continuations>,
    /// Why no screen was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// What to keep: nothing if it does not pay.
    #[serde(skip)]
    pub screen: Option<HeadScreen>,
}

/// Greedy texts with the screen, compared with those without.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Continuations {
    /// Texts.
    pub texts: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Texts that are the same.
    pub same: usize,
}

/// A screen, measured on text that nothing was fitted to.
#[derive(Clone, Debug, Serialize)]
pub struct HeadReport {
    /// Which.
    pub name: String,
    /// Margin for the best rows.
    pub margin_best: f32,
    /// Margin for the most probable rows.
    pub margin_mass: f32,
    /// Bytes that scoring reads, as a share of the head's.
    pub screen_share: f64,
    /// Tokens that were measured.
    pub tokens: usize,
    /// Share of them whose most probable continuation is the whole head's.
    pub agreement: f64,
    /// Mean share of the probability of what top-p 0.95 draws from that is not on the list.
    pub missed_mass: f64,
    /// What looking for the best row takes.
    pub best: Work,
    /// What top-p 0.95 takes.
    pub mass: Work,
}

/// What a screen takes of the head, per token.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Work {
    /// Share of the tokens for which the whole head was computed.
    pub fallbacks: f64,
    /// Rows computed exactly, for the other tokens.
    pub rows: f64,
    /// Bytes of screen, rows and fallbacks, as a share of the head's.
    pub bytes: f64,
}

impl HeadReport {
    fn suffices(&self) -> bool {
        1.0 - self.agreement <= ALLOWED && self.missed_mass <= ALLOWED
    }
}

impl HeadCalibration {
    /// What came of it, in a sentence.
    pub fn verdict(&self) -> String {
        let (Some(chosen), Some(speed)) = (self.chosen.map(|i| &self.candidates[i]), &self.speed) else {
            let why = self.note.unwrap_or("no screen misses as little as it should");
            return format!("head: {why}: it is computed whole");
        };
        let measured = format!(
            "head: {} reads {:.1} % of it and finds the most probable token {:.2} % of the time; {}",
            chosen.name,
            100.0 * chosen.best.bytes,
            100.0 * chosen.agreement,
            speed.verdict()
        );
        match self.screen {
            Some(_) => measured,
            None => format!("{measured}: it is computed whole"),
        }
    }
}

/// Fits a screen to the head of the model in `gguf` with the selectors and lanes of `sidecar`, and
/// measures it. One with random axes is tried if that does not suffice.
pub(crate) fn calibrate(
    gguf: &Gguf,
    sidecar: &Sidecar,
    texts: &Windows,
    options: &Options,
    schedule: &mut Schedule<'_>,
) -> Result<HeadCalibration, Error> {
    let Options { threads, continuations, keep, .. } = *options;
    let open = || -> Result<Model, Error> {
        let mut model = Model::from_gguf(gguf, threads)?;
        sidecar.clone().apply(gguf, &mut model, Placement::Measured)?;
        Ok(model)
    };
    let whole = Arc::new(open()?);
    let mut result = HeadCalibration {
        candidates: Vec::new(),
        chosen: None,
        speed: None,
        continuations: None,
        note: None,
        screen: None,
    };
    if !whole.can_screen() {
        result.note = Some("it has a bias, which a screen does not know");
        return Ok(result);
    }
    let mut kinds = Vec::new();
    let time = schedule.seconds_left();
    schedule.plan([
        ("watching", FIT_SHARE * time),
        ("choosing", TUNE_SHARE * time),
        ("measuring", MEASURE_SHARE * (1.0 - TUNE_SHARE) * time),
        ("timing", 2.0),
        ("comparing", 2.0),
    ]);
    for fitted in [true, false] {
        let suffices = result.candidates.iter().any(HeadReport::suffices);
        if suffices && !keep {
            break;
        }
        let mut kind = match fitted {
            true => fit(&whole, &texts.fit, FIT_SHARE * schedule.seconds_left(), schedule)?,
            false => HeadScreen::default(),
        };
        let mut screen = whole.make_screen(&kind)?;
        if !keep && !faster(&whole, &screen, &texts.test[0])? {
            result.note = Some("a screen takes longer than all of it here");
            continue;
        }
        if fitted {
            // Those of random axes do not depend on the text.
            let time = TUNE_SHARE * schedule.seconds_left();
            kind.margins = tune(&whole, &mut screen, &texts.tune, time, schedule)?;
            screen.set_margins(kind.margins);
        }
        let time = MEASURE_SHARE * schedule.seconds_left();
        result.candidates.extend(measure(&whole, &[&screen], &texts.test, time, schedule)?);
        kinds.push(kind);
    }
    let candidates = &result.candidates;
    let enough = (0..candidates.len()).filter(|i| candidates[*i].suffices() || keep);
    result.chosen = enough.min_by(|a, b| candidates[*a].best.bytes.total_cmp(&candidates[*b].best.bytes));
    if let Some(i) = result.chosen {
        let screen = kinds[i].clone();
        let mut screened = open()?;
        screen.apply(&mut screened)?;
        // It is there before times are compared.
        screened.screen();
        let screened = Arc::new(screened);
        let prompt = &texts.test[0][..texts.test[0].len() / 4];
        let speed = decode(&whole, &screened, prompt, schedule)?;
        if continuations > 0 {
            result.continuations = Some(compare(&whole, &screened, &texts.test, continuations, schedule)?);
        }
        result.screen = (keep || speed.pays()).then_some(screen);
        result.speed = Some(speed);
    }
    Ok(result)
}

/// Whether scoring all rows takes less time than computing them, in the median over the tokens of
/// `window`.
fn faster(model: &Arc<Model>, screen: &Screen, window: &[u32]) -> Result<bool, Error> {
    let (d, compute) = (model.config().embedding, model.compute());
    let mut session = session(model, &[window.to_vec()], BatchMode::Dense)?;
    let (mut scratch, mut one) = (ScreenScratch::new(screen), Activations::with_capacity(1, d));
    let mut logits = vec![0.0; model.vocab_len()];
    let mut times = [Vec::new(), Vec::new()];
    one.resize(1);
    session.watch_head_inputs(window, |all| {
        for x in all.x().chunks(d).take(TIMED) {
            one.x_mut().copy_from_slice(x);
            one.quantize(compute.kernels);
            let start = Instant::now();
            model.head().matmul(compute, &one, &mut logits);
            times[0].push(start.elapsed());
            let start = Instant::now();
            screen.margin_of(compute, &one, 0, logits[0], &mut scratch);
            times[1].push(start.elapsed());
        }
    })?;
    let [all, scores] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    Ok(scores < all)
}

/// A screen along the directions that the head's inputs vary most in.
fn fit(
    model: &Arc<Model>,
    windows: &[Vec<u32>],
    seconds: f64,
    progress: &mut dyn Progress,
) -> Result<HeadScreen, Error> {
    progress.begin("watching what the head is given", windows.len());
    let mut fit = AxesFit::new(model.config().embedding);
    let mut session = session(model, windows, BatchMode::Masked)?;
    let start = Instant::now();
    for (i, window) in windows.iter().enumerate() {
        if out_of_time(start, seconds, i) {
            break;
        }
        let mut added = Ok(());
        session.clear();
        session.watch_head_inputs(window, |x| {
            if added.is_ok() {
                added = fit.add(x.x());
            }
        })?;
        added?;
        step(progress)?;
    }
    let (axes, left) = fit.axes()?;
    let lost = lost_rows(model.compute(), model.head(), &left);
    Ok(HeadScreen { axes: Some(axes), lost: Some(lost), margins: Margins::default() })
}

/// Whether there is no time for window `i` after `seconds`; the first two are looked at in any
/// case.
fn out_of_time(start: Instant, seconds: f64, i: usize) -> bool {
    i >= 2 && start.elapsed().as_secs_f64() > seconds
}

/// Calls `each(x, logits)` with what the head is given and makes of it, for every token that there
/// is time for.
fn watch(
    model: &Arc<Model>,
    windows: &[Vec<u32>],
    seconds: f64,
    progress: &mut dyn Progress,
    mut each: impl FnMut(&Activations, &[f32]),
) -> Result<(), Error> {
    let (d, rows, compute) = (model.config().embedding, model.vocab_len(), model.compute());
    let mut session = session(model, windows, BatchMode::Masked)?;
    let (mut batch, mut one) = (Activations::with_capacity(BATCH, d), Activations::with_capacity(1, d));
    let mut logits = vec![0.0; BATCH * rows];
    one.resize(1);
    let start = Instant::now();
    for (i, window) in windows.iter().enumerate() {
        if out_of_time(start, seconds, i) {
            break;
        }
        session.clear();
        session.watch_head_inputs(window, |all| {
            for x in all.x().chunks(BATCH * d) {
                let n = x.len() / d;
                batch.resize(n);
                batch.x_mut().copy_from_slice(x);
                batch.quantize(compute.kernels);
                model.head().matmul(compute, &batch, &mut logits[..n * rows]);
                for (x, logits) in x.chunks(d).zip(logits.chunks(rows)) {
                    one.x_mut().copy_from_slice(x);
                    one.quantize(compute.kernels);
                    each(&one, logits);
                }
            }
        })?;
        step(progress)?;
    }
    Ok(())
}

/// The margins that miss as little as they should on these windows.
fn tune(
    model: &Arc<Model>,
    screen: &mut Screen,
    windows: &[Vec<u32>],
    seconds: f64,
    progress: &mut dyn Progress,
) -> Result<Margins, Error> {
    let compute = model.compute();
    let mut scratch = ScreenScratch::new(screen);
    let mut needed = Vec::new();
    let mut by_mass = [Sums::default(); MASS_MARGINS.len()];
    let mut tokens = 0_usize;
    progress.begin("choosing margins", windows.len());
    watch(model, windows, seconds, progress, |x, logits| {
        let Some((id, logit)) = best(logits) else { return };
        needed.extend(screen.margin_of(compute, x, id, logit, &mut scratch));
        tokens += 1;
        if !tokens.is_multiple_of(STRIDE) {
            return;
        }
        let nucleus = Nucleus::new(logits);
        for (mass, sums) in MASS_MARGINS.into_iter().zip(&mut by_mass) {
            screen.set_margins(Margins { mass, ..Margins::default() });
            sums.add_mass(model, screen, x, &nucleus, &mut scratch);
        }
    })?;
    needed.sort_by(f32::total_cmp);
    let at = ((needed.len() as f64 * (1.0 - MISSES)) as usize).min(needed.len().saturating_sub(1));
    let margins = Margins::default();
    let best = needed.get(at).map_or(margins.best, |m| m.max(MASS_MARGINS[0]));
    for (margin, Sums { missed, mass, .. }) in MASS_MARGINS.iter().zip(&by_mass) {
        let tokens = mass.tokens.max(1) as f64;
        let (missed, rows) = (missed / tokens, mass.rows as f64 / tokens);
        tracing::debug!(
            margin,
            missed,
            rows,
            fallbacks = mass.fallbacks as f64 / tokens,
            "tried for the mass"
        );
    }
    let enough = |sums: &Sums| sums.missed / sums.mass.tokens.max(1) as f64 <= MASS_MISSES;
    let least = by_mass.iter().zip(MASS_MARGINS).filter(|(sums, _)| enough(sums));
    // If none is enough, everything is in question, and the whole head is computed where all of the
    // mass counts.
    let mass = least.min_by_key(|(sums, _)| sums.mass.bytes).map_or(f32::MAX, |(_, margin)| margin);
    Ok(Margins { best, mass })
}

/// What one screen misses and takes.
#[derive(Clone, Copy, Default)]
struct Sums {
    same: usize,
    missed: f64,
    best: ScreenCounts,
    mass: ScreenCounts,
}

impl Sums {
    /// One token `x`, whose most probable continuations are known.
    fn add_mass(
        &mut self,
        model: &Model,
        screen: &Screen,
        x: &Activations,
        nucleus: &Nucleus,
        scratch: &mut ScreenScratch,
    ) {
        let list =
            screen.shortlist(model.compute(), model.head(), x, &Wanted::plain(Reach::Mass(TOP_P)), scratch);
        self.mass += ScreenCounts::of(model, screen, list.map(|l| l.ids.len()));
        self.missed += list.map_or(0.0, |list| nucleus.missed(list.ids));
    }
}

/// What screens miss and take on `windows`.
fn measure(
    model: &Arc<Model>,
    screens: &[&Screen],
    windows: &[Vec<u32>],
    seconds: f64,
    progress: &mut dyn Progress,
) -> Result<Vec<HeadReport>, Error> {
    let (compute, head) = (model.compute(), model.head());
    let mut measured: Vec<_> =
        screens.iter().map(|screen| (*screen, ScreenScratch::new(screen), Sums::default())).collect();
    let mut tokens = 0_usize;
    progress.begin("measuring screens of the head", windows.len());
    watch(model, windows, seconds, progress, |x, logits| {
        tokens += 1;
        let expected = best(logits).map(|(id, _)| id);
        let nucleus = Nucleus::new(logits);
        for (screen, scratch, sums) in &mut measured {
            let list = screen.shortlist(compute, head, x, &Wanted::plain(Reach::Best), scratch);
            sums.best += ScreenCounts::of(model, screen, list.map(|l| l.ids.len()));
            let found = match list {
                Some(list) => best(list.logits).map(|(i, _)| list.ids[i as usize]),
                None => expected,
            };
            sums.same += usize::from(found == expected);
            sums.add_mass(model, screen, x, &nucleus, scratch);
        }
    })?;
    let n = tokens.max(1) as f64;
    let work = |c: ScreenCounts| Work {
        fallbacks: c.fallbacks as f64 / n,
        rows: c.rows as f64 / (c.tokens - c.fallbacks).max(1) as f64,
        bytes: c.bytes as f64 / n / head.bytes() as f64,
    };
    let reports = measured.iter().map(|(screen, _, sums)| {
        let axes = screen.axes();
        let kind = if axes.matrix().is_some() { "fitted" } else { "random" };
        HeadReport {
            name: format!("{} + {} {kind} axes", axes.nibbles(), axes.dims() - axes.nibbles()),
            margin_best: screen.margins().best,
            margin_mass: screen.margins().mass,
            screen_share: screen.bytes() as f64 / head.bytes() as f64,
            tokens,
            agreement: sums.same as f64 / n,
            missed_mass: sums.missed / n,
            best: work(sums.best),
            mass: work(sums.mass),
        }
    });
    Ok(reports.collect())
}

/// Measures the screen that `model` has on up to `most` windows of `text`.
///
/// # Errors
/// If the model has no screen, the text does not fill a window, the model fails, or `progress` asks
/// to stop.
pub fn measure_screen(
    model: &Arc<Model>,
    text: &[u32],
    window: usize,
    most: usize,
    progress: &mut dyn Progress,
) -> Result<HeadReport, Error> {
    let windows: Vec<Vec<u32>> = text.chunks_exact(window.max(1)).take(most).map(<[u32]>::to_vec).collect();
    if windows.is_empty() {
        return Err(Error::TextTooShort { found: text.len(), needed: window, windows: 1, window });
    }
    let expected = || "a model with a screen: from a sidecar, or by --head screened".to_owned();
    let screen = model.screen().ok_or_else(|| Error::Option {
        option: "screen",
        value: "missing".into(),
        expected: expected(),
    })?;
    Ok(measure(model, &[screen], &windows, f64::INFINITY, progress)?.swap_remove(0))
}

/// Continues windows greedily with both models.
fn compare(
    whole: &Arc<Model>,
    screened: &Arc<Model>,
    windows: &[Vec<u32>],
    texts: usize,
    schedule: &mut Schedule<'_>,
) -> Result<Continuations, Error> {
    let prompt = CONTINUATION.min(windows[0].len() / 2);
    let tokens = CONTINUATION.min(whole.config().context - prompt);
    let mut result = Continuations { texts: 0, tokens, same: 0 };
    let room = prompt + tokens;
    let mut sessions = [Session::new(whole, room)?, Session::new(screened, room)?];
    // Several from each window if there are few.
    let parts = windows[0].len() / prompt;
    let starts = (0..parts).flat_map(|part| windows.iter().map(move |w| &w[part * prompt..]));
    schedule.begin("comparing continuations", texts.min(parts * windows.len()));
    for text in starts.take(texts) {
        if result.texts > 0 && schedule.seconds_left() <= 0.0 {
            break;
        }
        let mut found = Vec::new();
        for session in &mut sessions {
            session.clear();
            found.push(crate::speed::continuation(session, &text[..prompt], tokens)?);
        }
        result.texts += 1;
        result.same += usize::from(found[0] == found[1]);
        step(schedule)?;
    }
    Ok(result)
}

fn best(logits: &[f32]) -> Option<(u32, f32)> {
    (0..).zip(logits).map(|(i, l)| (i, *l)).reduce(|a, b| if b.1 > a.1 { b } else { a })
}

/// The most probable tokens that have [`TOP_P`] of all probability together, and their share.
struct Nucleus {
    tokens: Vec<(u32, f64)>,
    all: f64,
}

impl Nucleus {
    fn new(logits: &[f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = logits.iter().map(|l| (l - max).exp()).collect();
        let enough = f64::from(TOP_P) * weights.iter().map(|w| f64::from(*w)).sum::<f64>();
        // Sorting a part is enough, nearly always.
        let mut least = 1e-5;
        loop {
            let mut tokens: Vec<(u32, f64)> =
                (0..).zip(&weights).filter(|(_, w)| **w >= least).map(|(i, w)| (i, f64::from(*w))).collect();
            tokens.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut all = 0.0;
            let end = tokens.iter().position(|(_, w)| {
                all += w;
                all >= enough
            });
            if let Some(end) = end {
                tokens.truncate(end + 1);
            }
            if end.is_some() || least == 0.0 {
                return Self { tokens, all };
            }
            least = 0.0;
        }
    }

    /// The share of these tokens' probability that is not among `ids` (ascending).
    fn missed(&self, ids: &[u32]) -> f64 {
        let out = self.tokens.iter().filter(|(id, _)| ids.binary_search(id).is_err());
        out.map(|(_, w)| w).sum::<f64>() / self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nucleus_is_the_smallest_set_with_its_share() {
        // Probabilities .6, .3, .08, .02: the first three have .98.
        let logits: Vec<f32> = [0.08_f32, 0.6, 0.02, 0.3].iter().map(|p| p.ln()).collect();
        let nucleus = Nucleus::new(&logits);
        assert_eq!(nucleus.tokens.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 0]);
        assert!((nucleus.missed(&[1, 2]) - 0.38 / 0.98).abs() < 1e-6);
        assert_eq!(nucleus.missed(&[0, 1, 3]), 0.0);
        assert_eq!(best(&[1.0, 3.0, 3.0]), Some((1, 3.0)));
        // Where all are alike, nearly all are needed.
        assert_eq!(Nucleus::new(&[-20.0; 1000]).tokens.len(), 950);
    }
}
