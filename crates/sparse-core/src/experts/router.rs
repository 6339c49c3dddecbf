//! Which experts a token goes to, and with which weights.

use alloc::vec::Vec;

use crate::error::same_len;
use crate::{Activations, Compute, Error, Linear};

/// The smallest sum that weights are divided by: that of half precision, as in llama.cpp.
const MIN_SUM: f32 = 6.103_515_6e-5;

/// What makes weights of a router's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gating {
    /// Softmax over all experts (Shazeer et al. 2017, arXiv 1701.06538).
    Softmax,
    /// A sigmoid per expert (DeepSeek-V3, arXiv 2412.19437).
    Sigmoid,
    /// Softmax over the chosen experts.
    SoftmaxOfChosen,
}

/// Chooses experts: those with the highest scores.
#[derive(Clone, Debug)]
pub struct Router {
    weight: Linear,
    used: usize,
    gating: Gating,
    normalized: bool,
    scale: f32,
    selection_bias: Option<Vec<f32>>,
}

/// A token that goes to an expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Route {
    pub(super) expert: u32,
    pub(super) token: u32,
    /// Factor on what the expert makes of the token.
    pub(super) weight: f32,
}

impl Router {
    /// A router that chooses `used` experts per token; `weight` is `[experts x inputs]`.
    ///
    /// # Errors
    /// If it would choose none, or more than there are.
    pub fn new(weight: Linear, used: usize, gating: Gating) -> Result<Self, Error> {
        let experts = weight.weight().rows();
        if used == 0 || used > experts {
            return Err(Error::Length { what: "experts used, at most", expected: experts, found: used });
        }
        Ok(Self { weight, used, gating, normalized: false, scale: 1.0, selection_bias: None })
    }

    /// The same router whose weights of a token are divided by their sum.
    #[must_use]
    pub fn normalized(self, normalized: bool) -> Self {
        Self { normalized, ..self }
    }

    /// The same router with a factor on all weights.
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same router that chooses by scores plus `bias`, a value per expert; weights are those without it.
    ///
    /// # Errors
    /// If there is another number of values than of experts.
    pub fn with_selection_bias(self, bias: Vec<f32>) -> Result<Self, Error> {
        same_len("selection bias of the router", self.experts(), bias.len())?;
        Ok(Self { selection_bias: Some(bias), ..self })
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.weight.weight().cols()
    }

    /// Experts to choose from.
    pub fn experts(&self) -> usize {
        self.weight.weight().rows()
    }

    /// Experts that a token goes to.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes that choosing reads.
    pub fn bytes(&self) -> usize {
        self.weight.weight().bytes()
    }

    /// The routes of every token of `x`, token by token. `logits` has room for `[tokens x experts]`.
    pub(super) fn route(
        &self,
        compute: &Compute,
        x: &Activations,
        logits: &mut [f32],
        order: &mut Vec<u32>,
        routes: &mut Vec<Route>,
    ) {
        let experts = self.experts();
        let logits = &mut logits[..x.tokens() * experts];
        self.weight.forward(compute, x, logits);
        routes.clear();
        for (token, scores) in (0..).zip(logits.chunks_mut(experts)) {
            match self.gating {
                Gating::Softmax => softmax(scores),
                Gating::Sigmoid => scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + libm::expf(-*s))),
                Gating::SoftmaxOfChosen => {}
            }
            self.choose(scores, order);
            let first = routes.len();
            routes.extend(order.iter().map(|&expert| Route {
                expert,
                token,
                weight: scores[expert as usize],
            }));
            self.weigh(&mut routes[first..]);
        }
    }

    /// The experts with the highest scores; of equal ones those of lower numbers. NaN is the highest, so that it shows.
    fn choose(&self, scores: &[f32], order: &mut Vec<u32>) {
        let score = |e: u32| {
            let bias = self.selection_bias.as_ref().map_or(0.0, |bias| bias[e as usize]);
            let score = scores[e as usize] + bias;
            if score.is_nan() { f32::INFINITY } else { score }
        };
        order.clear();
        order.extend(0..scores.len() as u32);
        if self.used < order.len() {
            let higher = |a: &u32, b: &u32| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
            order.select_nth_unstable_by(self.used - 1, higher);
            order.truncate(self.used);
        }
        order.sort_unstable();
    }

    /// Makes weights of the scores of one token's experts.
    fn weigh(&self, routes: &mut [Route]) {
        if self.gating == Gating::SoftmaxOfChosen {
            let highest = routes.iter().fold(f32::NEG_INFINITY, |m, r| m.max(r.weight));
            routes.iter_mut().for_each(|r| r.weight = libm::expf(r.weight - highest));
        }
        let mut factor = self.scale;
        if self.normalized || self.gating == Gating::SoftmaxOfChosen {
            factor /= routes.iter().map(|r| r.weight).sum::<f32>().max(MIN_SUM);
        }
        routes.iter_mut().for_each(|r| r.weight *= factor);
    }
}

fn softmax(x: &mut [f32]) {
    let highest = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    x.iter_mut().for_each(|v| *v = libm::expf(*v - highest));
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|v| *v /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;
    use alloc::vec;

    /// The routes of one token whose router outputs are `logits`.
    fn routes(
        logits: &[f32],
        change: impl Fn(Router) -> Router,
        used: usize,
        gating: Gating,
    ) -> Vec<(u32, f32)> {
        let weight = Linear::new(Matrix::from_f32(1, logits.iter().copied()).unwrap(), None).unwrap();
        let router = change(Router::new(weight, used, gating).unwrap());
        let mut x = Activations::with_capacity(1, 1);
        x.resize(1);
        x.x_mut()[0] = 1.0;
        let (mut order, mut routes) = (Vec::new(), Vec::new());
        router.route(&Compute::new(1), &x, &mut vec![0.0; logits.len()], &mut order, &mut routes);
        routes.iter().map(|r| (r.expert, (r.weight * 1e4).round() / 1e4)).collect()
    }

    #[test]
    fn the_highest_scores_are_chosen_and_weighted() {
        let logits = [0.0, 2.0_f32.ln(), 4.0_f32.ln(), 0.0];
        let same = |router: Router| router;
        assert_eq!(routes(&logits, same, 2, Gating::Softmax), [(1, 0.25), (2, 0.5)]);
        assert_eq!(routes(&logits, same, 3, Gating::Softmax), [(0, 0.125), (1, 0.25), (2, 0.5)]);
        let normalized = |router: Router| router.normalized(true).scaled(3.0);
        assert_eq!(routes(&logits, normalized, 2, Gating::Softmax), [(1, 1.0), (2, 2.0)]);
        assert_eq!(routes(&logits, same, 2, Gating::SoftmaxOfChosen), [(1, 0.3333), (2, 0.6667)]);
        assert_eq!(routes(&logits, same, 2, Gating::Sigmoid), [(1, 0.6667), (2, 0.8)]);
    }

    #[test]
    fn a_selection_bias_chooses_and_does_not_weigh() {
        let bias = |router: Router| router.with_selection_bias(vec![0.0, 0.0, -1.0, 0.1]).unwrap();
        assert_eq!(routes(&[0.0, 0.0, 9.0, 0.0], bias, 2, Gating::Sigmoid), [(0, 0.5), (3, 0.5)]);
    }

    #[test]
    fn nan_shows_and_wrong_numbers_are_refused() {
        let found = routes(&[0.0, f32::NAN, 1.0], |r| r, 1, Gating::Sigmoid);
        assert!(found[0].0 == 1 && found[0].1.is_nan());
        let weight = Linear::new(Matrix::from_f32(1, [0.0; 3]).unwrap(), None).unwrap();
        for used in [0, 4] {
            let error = Router::new(weight.clone(), used, Gating::Softmax).unwrap_err().to_string();
            assert_eq!(error, format!("experts used, at most: expected 3, found {used}"));
        }
        let error = Router::new(weight, 1, Gating::Softmax).unwrap().with_selection_bias(vec![0.0]);
        assert!(error.unwrap_err().to_string().contains("selection bias"));
    }
}
