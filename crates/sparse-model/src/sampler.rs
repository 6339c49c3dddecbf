//! Choosing the next token from logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sparse_core::Reach;

use crate::Error;

/// How to choose tokens. The filters apply in the order of the fields, as in llama.cpp.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides positive logits, and multiplies negative ones, of tokens among the last `penalty_window`; 1 is off
    /// (CTRL, arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Tokens that the repetition penalty looks back.
    pub penalty_window: usize,
    /// Keep the `top_k` most probable tokens; 0 is off.
    pub top_k: usize,
    /// Keep the smallest set of most probable tokens whose probabilities reach `top_p`; 1 is off (arXiv 1904.09751).
    pub top_p: f32,
    /// Keep tokens with at least `min_p` times the probability of the best; 0 is off (arXiv 2407.01082).
    pub min_p: f32,
    /// Divides the logits; 0 always takes the most probable token.
    pub temperature: f32,
    /// Seed of the random choices: same seed, same text.
    pub seed: u64,
}

impl SamplerConfig {
    /// Always the most probable token; the lowest id among equals.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether tokens can be chosen so.
    ///
    /// # Errors
    /// If the repetition penalty is not above 0, a probability not between 0 and 1, the temperature below 0, or one of them not
    /// finite.
    pub fn check(&self) -> Result<(), Error> {
        let share = |p: f32| (0.0..=1.0).contains(&p);
        let penalty = self.repetition_penalty;
        for (what, value, good, expected) in [
            ("repetition_penalty", penalty, penalty.is_finite() && penalty > 0.0, "above 0"),
            ("top_p", self.top_p, share(self.top_p), "from 0 to 1"),
            ("min_p", self.min_p, share(self.min_p), "from 0 to 1"),
            ("temperature", self.temperature, (0.0..=f32::MAX).contains(&self.temperature), "from 0 up"),
        ] {
            if !good {
                return Err(Error::setting(what, format!("is {value}, expected a number {expected}")));
            }
        }
        Ok(())
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            penalty_window: 64,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            temperature: 0.8,
            seed: 0,
        }
    }
}

/// What a sampler chooses from: the logits of all tokens, or of those that matter.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// The tokens, ascending; all of them if there is no list.
    pub ids: Option<&'a [u32]>,
    /// Their logits.
    pub values: &'a [f32],
    /// The logarithm of the sum of all other tokens' `exp(logit)`, estimated; minus infinity if there are none, or they do
    /// not matter.
    pub outside: f32,
}

impl<'a> From<&'a [f32]> for Logits<'a> {
    /// Of all tokens.
    fn from(values: &'a [f32]) -> Self {
        Self { ids: None, values, outside: f32::NEG_INFINITY }
    }
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// Chooses tokens by a [`SamplerConfig`].
#[derive(Debug)]
pub struct Sampler {
    config: SamplerConfig,
    rng: ChaCha8Rng,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Panics
    /// If the configuration does not pass [`SamplerConfig::check`].
    pub fn new(config: SamplerConfig) -> Self {
        config.check().unwrap_or_else(|problem| panic!("{problem}"));
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        Self { config, rng, candidates: Vec::new(), weights: Vec::new() }
    }

    /// The next token after `history` (prompt included). The logits are finite and not empty: those of
    /// [`Session::forward`](crate::Session::forward), or of [`Session::candidates`](crate::Session::candidates) for this
    /// sampler and history.
    pub fn sample<'a>(&mut self, logits: impl Into<Logits<'a>>, history: &[u32]) -> u32 {
        let Logits { ids, values, outside } = logits.into();
        let penalized = self.penalty(history);
        let all = values.iter().zip(0..).map(|(&logit, i)| {
            let id = ids.map_or(i, |ids| ids[i as usize]);
            Candidate { id, logit: penalized(id, logit) }
        });
        if self.config.temperature == 0.0 {
            return all.fold(Candidate { id: 0, logit: f32::NEG_INFINITY }, better).id;
        }
        self.candidates.clear();
        self.candidates.extend(all);
        self.keep_top_k();
        self.keep_probable(outside);
        self.draw()
    }

    /// What becomes of a token's logit after `history`.
    pub(crate) fn penalty<'a>(&self, history: &'a [u32]) -> impl Fn(u32, f32) -> f32 + use<'a> {
        let penalty = self.config.repetition_penalty;
        let recent = &history[history.len().saturating_sub(self.config.penalty_window)..];
        move |id, logit| match penalty != 1.0 && recent.contains(&id) {
            true if logit > 0.0 => logit / penalty,
            true => logit * penalty,
            false => logit,
        }
    }

    /// The tokens that this sampler may choose from; nothing if it needs all. A penalty that makes tokens more probable
    /// needs all, too.
    pub(crate) fn reach(&self) -> Option<Reach> {
        let c = &self.config;
        if c.repetition_penalty < 1.0 {
            return None;
        }
        if c.temperature == 0.0 {
            return Some(Reach::Best);
        }
        match (c.top_k, c.top_p, c.min_p) {
            (1.., _, _) => Some(Reach::Top(c.top_k)),
            (0, p, _) if p < 1.0 => Some(Reach::Mass(p)),
            (0, _, p) if p > 0.0 => Some(Reach::Within(-p.ln())),
            _ => None,
        }
    }

    /// Leaves the `top_k` best candidates, best first.
    fn keep_top_k(&mut self) {
        let k = self.config.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, by_logit);
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(by_logit);
    }

    /// Applies top-p, then min-p, to candidates in order; `outside` is the logarithm of what others weigh.
    fn keep_probable(&mut self, outside: f32) {
        let SamplerConfig { top_p, min_p, .. } = self.config;
        if top_p < 1.0 {
            self.exponentials(1.0);
            let outside = (outside - self.candidates[0].logit).exp();
            let enough = top_p * (self.weights.iter().sum::<f32>() + outside);
            let mut mass = 0.0;
            let below = self.weights.iter().take_while(|w| {
                mass += **w;
                mass < enough
            });
            let keep = (below.count() + 1).min(self.candidates.len());
            self.candidates.truncate(keep);
        }
        if min_p > 0.0 {
            let least = self.candidates[0].logit + min_p.ln();
            self.candidates.retain(|c| c.logit >= least);
        }
    }

    fn draw(&mut self) -> u32 {
        self.exponentials(self.config.temperature);
        let total: f32 = self.weights.iter().sum();
        // 24 random bits: every f32 in [0, 1) with that resolution.
        let uniform = (self.rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
        let mut left = uniform * total;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            if left < *weight {
                return candidate.id;
            }
            left -= weight;
        }
        // Rounding can leave a remainder: it belongs to the best candidate.
        self.candidates[0].id
    }

    /// `weights = exp((logit - best logit) / temperature)`; candidates are in order.
    fn exponentials(&mut self, temperature: f32) {
        let best = self.candidates[0].logit;
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|c| ((c.logit - best) / temperature).exp()));
    }
}

/// Highest logit first, then lowest id.
fn by_logit(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

fn better(best: Candidate, c: Candidate) -> Candidate {
    if c.logit > best.logit { c } else { best }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 3.0, -1.0, 0.0];

    fn open() -> SamplerConfig {
        SamplerConfig { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, ..SamplerConfig::default() }
    }

    fn counts(config: SamplerConfig, draws: usize) -> [usize; 6] {
        let mut sampler = Sampler::new(config);
        let mut counts = [0; 6];
        for _ in 0..draws {
            counts[sampler.sample(&LOGITS[..], &[]) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_the_best() {
        assert_eq!(Sampler::new(SamplerConfig::greedy()).sample(&LOGITS[..], &[]), 1);
        assert_eq!(Sampler::new(SamplerConfig::greedy()).sample(&[-4.0, -2.0][..], &[]), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let n = 20_000;
        let total: f32 = LOGITS.iter().map(|l| l.exp()).sum();
        for (count, logit) in counts(open(), n).into_iter().zip(LOGITS) {
            let p = logit.exp() / total;
            let sigma = (n as f32 * p * (1.0 - p)).sqrt();
            assert!((count as f32 - n as f32 * p).abs() < 5.0 * sigma, "{count} draws at p = {p}");
        }
    }

    #[test]
    fn filters_leave_the_right_tokens() {
        // Probabilities: .060 .441 .162 .441*; two best .798 together with ties counted, then .162 ...
        let cases: [(&str, SamplerConfig, &[usize]); 6] = [
            ("top-k 1", SamplerConfig { top_k: 1, ..open() }, &[1]),
            ("top-k 3", SamplerConfig { top_k: 3, ..open() }, &[1, 2, 3]),
            ("top-p .7", SamplerConfig { top_p: 0.7, ..open() }, &[1, 3]),
            ("top-p 0", SamplerConfig { top_p: 0.0, ..open() }, &[1]),
            ("min-p .3", SamplerConfig { min_p: 0.3, ..open() }, &[1, 2, 3]),
            ("cold", SamplerConfig { temperature: 0.01, ..open() }, &[1, 3]),
        ];
        for (name, config, expected) in cases {
            let drawn = counts(config, 2_000);
            let seen: Vec<usize> = (0..6).filter(|i| drawn[*i] > 0).collect();
            assert_eq!(seen, expected, "{name}: {drawn:?}");
        }
    }

    #[test]
    fn the_penalty_looks_back_over_its_window_only() {
        let config = SamplerConfig { repetition_penalty: 4.0, penalty_window: 2, ..SamplerConfig::greedy() };
        let mut sampler = Sampler::new(config);
        assert_eq!(sampler.sample(&LOGITS[..], &[1]), 3);
        assert_eq!(sampler.sample(&LOGITS[..], &[1, 3]), 2);
        assert_eq!(sampler.sample(&LOGITS[..], &[1, 0, 5]), 1);
        // A negative logit gets worse, not better.
        assert_eq!(sampler.sample(&[-1.0, -2.0][..], &[0]), 1);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let config = SamplerConfig::default;
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.5];
        let mut cases = vec![("repetition_penalty", SamplerConfig { repetition_penalty: 0.0, ..config() })];
        for x in bad {
            cases.extend([
                ("repetition_penalty", SamplerConfig { repetition_penalty: x, ..config() }),
                ("top_p", SamplerConfig { top_p: x, ..config() }),
                ("min_p", SamplerConfig { min_p: x, ..config() }),
                ("temperature", SamplerConfig { temperature: x, ..config() }),
            ]);
        }
        cases.extend([
            ("top_p", SamplerConfig { top_p: 1.5, ..config() }),
            ("min_p", SamplerConfig { min_p: 1.5, ..config() }),
        ]);
        for (name, config) in cases {
            let problem = config.check().expect_err(name).to_string();
            assert!(problem.starts_with(&format!("{name}: is ")), "{problem}");
        }
        let extreme = SamplerConfig { temperature: f32::MAX, top_p: 0.0, min_p: 1.0, ..config() };
        assert!([open(), SamplerConfig::greedy(), extreme].iter().all(|c| c.check().is_ok()));
    }

    #[test]
    fn the_seed_decides_the_sequence() {
        let run = |seed| {
            let mut sampler = Sampler::new(SamplerConfig { seed, ..open() });
            (0..50).map(|_| sampler.sample(&LOGITS[..], &[])).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_list_that_holds_what_matters_gives_the_same_tokens() {
        let logits: Vec<f32> = (0..200).map(|i| ((i * 37) % 101) as f32 * 0.1).collect();
        let history = [150, 3, 7];
        for config in [
            SamplerConfig::greedy(),
            SamplerConfig { top_k: 5, ..open() },
            SamplerConfig { top_p: 0.5, ..open() },
            SamplerConfig { min_p: 0.3, repetition_penalty: 1.5, ..open() },
        ] {
            let mut samplers = [Sampler::new(config.clone()), Sampler::new(config.clone())];
            assert!(samplers[0].reach().is_some(), "{config:?}");
            let listed = |i: &u32| logits[*i as usize] > 7.0;
            let ids: Vec<u32> = (0..200).filter(listed).collect();
            let values: Vec<f32> = ids.iter().map(|i| logits[*i as usize]).collect();
            let outside = (0..200).filter(|i| !listed(i)).map(|i| logits[i as usize].exp()).sum::<f32>().ln();
            for _ in 0..100 {
                let list = Logits { ids: Some(&ids), values: &values, outside };
                let token = samplers[0].sample(list, &history);
                assert_eq!(token, samplers[1].sample(&logits[..], &history), "{config:?}");
            }
        }
        for config in [open(), SamplerConfig { repetition_penalty: 0.9, ..SamplerConfig::greedy() }] {
            assert_eq!(Sampler::new(config).reach(), None);
        }
    }
}
