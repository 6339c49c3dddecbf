//! From scores to the rows that matter.

use alloc::vec;
use alloc::vec::Vec;

use sparse_simd::{Activation, Kernels};

use super::Screen;
use crate::{Activations, Compute, Matrix};

/// Rows that are looked at together.
const CHUNK: usize = 64;
/// Rows that are computed first, at least, to know what others have to exceed.
const FIRST: usize = 8;
/// The margin by which those are chosen, at most: the best row is above its score by two deviations, on average.
const LIKELY: f32 = 2.0;
/// One in so many rows may be on the list; with more, computing all is about as fast, for they are in order.
const MOST: usize = 3;
/// Logits below the best one that have a part in the estimate of all probability, and the steps that they are counted in.
const SPAN: f32 = 24.0;
const BINS: usize = 256;
/// The probability beyond the nucleus is taken to be so much of what it is: estimates of it are off by a third, one way or the
/// other, and what ends the nucleus too early is missed whatever the margin.
const CAUTION: f32 = 0.35;
/// Rows that a token leans toward have more than is expected of them. Of those whose logits are known, by how much is known,
/// too; this power of it fits the others.
const LEAN: f32 = 0.25;
/// Logits by which a list that is too short is extended; by twice as many each time, up to [`SPAN`].
const STEP: f32 = 1.0;

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    /// The one with the largest logit.
    Best,
    /// So many with the largest logits.
    Top(usize),
    /// Those whose logit is at most this much below the largest.
    Within(f32),
    /// The most probable ones that have this share of all probability together.
    Mass(f32),
}

/// What is asked of a screen.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Which rows.
    pub reach: Reach,
    /// Bound `c` of the logits, which are `c tanh(product / c)`; without it they are the head's products.
    pub cap: Option<f32>,
    /// What becomes of a row's logit before rows are compared; it may make logits smaller, not larger.
    pub adjust: &'a dyn Fn(u32, f32) -> f32,
}

impl<'a> Wanted<'a> {
    /// Rows by the head's products, as they are.
    pub fn plain(reach: Reach) -> Self {
        Self { reach, cap: None, adjust: &|_, logit| logit }
    }

    /// The smallest product that makes a logit of at least `least`, if that is known.
    fn product(&self, least: f32) -> Option<f32> {
        match self.cap {
            // Near the bound, products are not known from their logits.
            Some(cap) => ((least / cap).abs() < 0.999).then(|| cap * (least / cap).atanh()),
            None => Some(least),
        }
    }
}

/// Rows of the head and their exact logits.
#[derive(Clone, Copy, Debug)]
pub struct Shortlist<'a> {
    /// The rows, ascending.
    pub ids: &'a [u32],
    /// Their logits: the same numbers that the whole head has for them.
    pub logits: &'a [f32],
    /// The logarithm of the sum of all other rows' `exp(logit)`, estimated; minus infinity where it does not matter.
    pub outside: f32,
}

/// Buffers for [`Screen::shortlist`], allocated once.
#[derive(Debug)]
pub struct ScreenScratch {
    pub(super) projected: Activations,
    /// Room for a token.
    pub(super) spare: Vec<f32>,
    /// A score per row.
    pub(super) scores: Vec<f32>,
    /// Per chunk of rows: the largest logit that one may have.
    bounds: Vec<f32>,
    order: Vec<f32>,
    ids: Vec<u32>,
    /// The rows that were listed first.
    first: Vec<u32>,
    logits: Vec<f32>,
    bins: Vec<u32>,
}

impl ScreenScratch {
    /// Room for what `screen` does.
    pub fn new(screen: &Screen) -> Self {
        Self::for_shape(screen.rows(), screen.axes().inputs(), screen.axes().dims())
    }

    /// Room for a screen of so many rows.
    pub(super) fn for_shape(rows: usize, inputs: usize, dims: usize) -> Self {
        let chunks = rows.div_ceil(CHUNK);
        // Two lists, one of which may be a chunk too long.
        let most = 2 * (rows / MOST) + CHUNK;
        Self {
            projected: Activations::with_capacity(1, dims),
            spare: vec![0.0; inputs],
            scores: vec![0.0; rows],
            bounds: vec![0.0; chunks],
            order: Vec::with_capacity(chunks.max(rows / MOST + CHUNK)),
            ids: Vec::with_capacity(most),
            first: Vec::with_capacity(most),
            logits: vec![0.0; most],
            bins: vec![0; BINS],
        }
    }
}

impl Screen {
    /// The rows of `head` that are `wanted` for one token `x`, and some more, with their exact logits; nothing if the screen
    /// cannot tell, or too many rows are in question. Then the whole head has to be computed. Probabilities of logits
    /// that are capped cannot be told, nor any along random axes: an estimate by their scores missed 0.1 to 0.5 % of the
    /// nucleus, by the kind of text.
    ///
    /// # Panics
    /// If the shapes do not match those that the screen was made for.
    pub fn shortlist<'a>(
        &self,
        compute: &Compute,
        head: &Matrix,
        x: &Activations,
        wanted: &Wanted<'_>,
        scratch: &'a mut ScreenScratch,
    ) -> Option<Shortlist<'a>> {
        assert_eq!(head.rows(), self.rows(), "rows of the head");
        let Wanted { reach, cap, adjust } = *wanted;
        if matches!(reach, Reach::Mass(_)) && (cap.is_some() || self.is_unbiased()) {
            return None;
        }
        let size = self.score(compute, x, scratch)?;
        let shift = compute.kernels.dot_f32(&self.common, x.x());
        let (first, margin) = match reach {
            Reach::Best | Reach::Within(_) => (FIRST, self.margins.best),
            Reach::Top(k) => (FIRST.max(2 * k), self.margins.best),
            Reach::Mass(_) => (4 * FIRST, self.margins.mass),
        };
        // Rows that may be among the best: what they have, others must exceed. With the full margin these would be the least
        // known rows instead.
        let lift = size * margin.min(LIKELY);
        self.bound(lift, scratch);
        scratch.order.clear();
        scratch.order.extend_from_slice(&scratch.bounds);
        let chunks = scratch.order.len();
        if chunks == 0 {
            return None;
        }
        let nth = first.min(chunks) - 1;
        let cut = *scratch.order.select_nth_unstable_by(nth, |a, b| b.total_cmp(a)).1;
        self.collect(lift, cut, scratch)?;
        exact(compute, head, x, cap, scratch);
        let adjusted = scratch.ids.iter().zip(&scratch.logits).map(|(id, logit)| adjust(*id, *logit));
        scratch.order.clear();
        scratch.order.extend(adjusted);
        let mut best = scratch.order.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut others, mut lean) = (0.0, 1.0);
        let least = match reach {
            Reach::Best => best,
            Reach::Within(distance) => best - distance,
            Reach::Top(0) => return None,
            Reach::Top(k) if k > scratch.order.len() => return None,
            Reach::Top(k) => *scratch.order.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
            Reach::Mass(share) => {
                // The best row may be most of what is wanted: it is looked for with the margin of best rows.
                core::mem::swap(&mut scratch.ids, &mut scratch.first);
                let lift = size * self.margins.best;
                self.bound(lift, scratch);
                self.collect(lift, best - shift, scratch)?;
                scratch.ids.extend_from_slice(&scratch.first);
                scratch.ids.sort_unstable();
                scratch.ids.dedup();
                exact(compute, head, x, cap, scratch);
                let adjusted = scratch.ids.iter().zip(&scratch.logits).map(|(id, logit)| adjust(*id, *logit));
                best = adjusted.fold(best, f32::max);
                let estimate = self.estimate(share, size, shift, best, scratch);
                (others, lean) = (estimate.others, estimate.lean);
                estimate.least
            }
        };
        // These stay on the list, whatever their score is.
        for id in &scratch.ids {
            scratch.scores[*id as usize] = f32::INFINITY;
        }
        let (lift, mut least) = (size * margin, wanted.product(least)? - shift);
        self.bound(lift, scratch);
        self.collect(lift, least, scratch)?;
        exact(compute, head, x, cap, scratch);
        let mut outside = f32::NEG_INFINITY;
        if let Reach::Mass(share) = reach {
            let mut step = STEP;
            loop {
                let seen = scratch.ids.iter().zip(&scratch.logits[..scratch.ids.len()]);
                let (mut estimated, mut inside) = (0.0, 0.0);
                for (id, logit) in seen {
                    let score = scratch.scores[*id as usize];
                    if score < f32::INFINITY {
                        let distance = best - shift - self.expected(*id as usize, size, &scratch.scores);
                        estimated += lean * mass(bin(distance));
                    }
                    inside += (adjust(*id, *logit) - best).exp();
                }
                let left = (others - estimated).max(0.0);
                if inside >= share * (inside + left) {
                    outside = best + left.ln();
                    break;
                }
                // What is wanted ends among the rows that were left out: more of them. Where that does not help, logits are so
                // large, or so uncertain, that the screen cannot tell.
                if step > SPAN {
                    return None;
                }
                least -= step;
                step *= 2.0;
                self.collect(lift, least, scratch)?;
                exact(compute, head, x, cap, scratch);
            }
        }
        let ids = &*scratch.ids;
        Some(Shortlist { ids, logits: &scratch.logits[..ids.len()], outside })
    }

    /// The smallest margin with which `row` would be listed among rows whose logits are no better than its own, `logit`, for
    /// one token `x`: what margins are chosen by. Nothing if `x` is not finite.
    ///
    /// # Panics
    /// As [`shortlist`](Self::shortlist), or if there is no such row.
    pub fn margin_of(
        &self,
        compute: &Compute,
        x: &Activations,
        row: u32,
        logit: f32,
        scratch: &mut ScreenScratch,
    ) -> Option<f32> {
        let size = self.score(compute, x, scratch)?;
        let (r, shift) = (row as usize, compute.kernels.dot_f32(&self.common, x.x()));
        Some((logit - shift - scratch.scores[r]) / (size * self.deviations[r]))
    }

    /// The largest that a row's logit may be, less what all rows share.
    #[inline]
    fn upper(&self, r: usize, lift: f32, scores: &[f32]) -> f32 {
        scores[r] + lift * self.deviations[r]
    }

    /// The logit whose `exp` is the expectation of a row's, if errors are normally distributed over all rows with this score.
    #[inline]
    fn expected(&self, r: usize, size: f32, scores: &[f32]) -> f32 {
        let deviation = size * self.deviations[r];
        scores[r] + 0.5 * deviation * deviation
    }

    fn bound(&self, lift: f32, scratch: &mut ScreenScratch) {
        let chunks = scratch.scores.chunks(CHUNK).zip(self.deviations.chunks(CHUNK));
        for (bound, (scores, deviations)) in scratch.bounds.iter_mut().zip(chunks) {
            // Sixteen maxima side by side, which compilers make vectors.
            let mut most = [f32::NEG_INFINITY; 16];
            let larger = |a: f32, b: f32| if b > a { b } else { a };
            let (scores, scores_rest) = scores.as_chunks::<16>();
            let (deviations, deviations_rest) = deviations.as_chunks::<16>();
            for (s, d) in scores.iter().zip(deviations) {
                for i in 0..16 {
                    most[i] = larger(most[i], s[i] + lift * d[i]);
                }
            }
            for ((s, d), most) in scores_rest.iter().zip(deviations_rest).zip(&mut most) {
                *most = larger(*most, s + lift * d);
            }
            *bound = most.into_iter().fold(f32::NEG_INFINITY, larger);
        }
    }

    /// Lists the rows that may have a logit of at least `cut`.
    fn collect(&self, lift: f32, cut: f32, scratch: &mut ScreenScratch) -> Option<()> {
        scratch.ids.clear();
        for (chunk, bound) in scratch.bounds.iter().enumerate() {
            if *bound >= cut {
                let first = chunk * CHUNK;
                for r in first..self.rows().min(first + CHUNK) {
                    if self.upper(r, lift, &scratch.scores) >= cut {
                        scratch.ids.push(r as u32);
                    }
                }
                if scratch.ids.len() > self.rows() / MOST {
                    return None;
                }
            }
        }
        (!scratch.ids.is_empty()).then_some(())
    }

    /// Where the most probable rows that have `share` of all probability end, and what the others have.
    fn estimate(
        &self,
        share: f32,
        size: f32,
        shift: f32,
        best: f32,
        scratch: &mut ScreenScratch,
    ) -> Estimate {
        scratch.bins.fill(0);
        let top = best - shift;
        for r in 0..self.rows() {
            scratch.bins[bin(top - self.expected(r, size, &scratch.scores))] += 1;
        }
        // Of the rows listed so far the logits are known.
        let (mut known, mut expected) = (0.0, 0.0);
        for (id, logit) in scratch.ids.iter().zip(&scratch.logits) {
            let bin = bin(top - self.expected(*id as usize, size, &scratch.scores));
            known += (logit - best).exp();
            expected += mass(bin);
            scratch.bins[bin] -= 1;
        }
        let lean = (known / expected).clamp(1.0, 1e4).powf(LEAN);
        let others: f32 = scratch.bins.iter().enumerate().map(|(i, n)| *n as f32 * lean * mass(i)).sum();
        let mut left = CAUTION * (1.0 - share) * (known + others);
        let below = scratch.bins.iter().enumerate().rev().find(|(i, n)| {
            left -= **n as f32 * lean * mass(*i);
            left < 0.0
        });
        let least = best - below.map_or(0, |(i, _)| i + 1) as f32 * (SPAN / BINS as f32);
        Estimate { least, others, lean }
    }
}

/// What scores say about all probability.
struct Estimate {
    /// Rows with a logit below this are likely not to be wanted.
    least: f32,
    /// The sum of `exp(logit - best)` over the rows that are not listed yet.
    others: f32,
    /// By which factor a row's part of it exceeds what its score makes one expect.
    lean: f32,
}

/// Where a row is counted whose logit is `distance` below the best one.
#[inline]
fn bin(distance: f32) -> usize {
    // Negative distances and NaN become zero.
    ((distance * (BINS as f32 / SPAN)) as usize).min(BINS - 1)
}

/// `exp(logit - best)` of a row in a bin.
fn mass(bin: usize) -> f32 {
    (-(bin as f32 + 0.5) * (SPAN / BINS as f32)).exp()
}

/// `x[i] = cap tanh(x[i] / cap)`: the bound on logits of Gemma 2 (arXiv 2408.00118).
pub fn soft_cap(kernels: &Kernels, cap: f32, x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x /= cap);
    kernels.activate(Activation::Tanh, x);
    x.iter_mut().for_each(|x| *x *= cap);
}

/// The logits of the rows on the list.
fn exact(compute: &Compute, head: &Matrix, x: &Activations, cap: Option<f32>, scratch: &mut ScreenScratch) {
    let ids = &*scratch.ids;
    let logits = &mut scratch.logits[..ids.len()];
    head.matmul_rows(compute, ids, x, logits);
    if let Some(cap) = cap {
        soft_cap(compute.kernels, cap, logits);
    }
}
