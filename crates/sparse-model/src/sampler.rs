//! Choosing the next token from logits.

mod penalties;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sparse_core::Reach;

use crate::Error;
use penalties::Biases;

/// How to choose tokens. Biases, penalties and filters apply in the order of the fields, as in llama.cpp.
///
/// A new field may come with any release: fill in the rest from [`default`](Self::default).
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Tokens, and what is added to their logits; minus infinity excludes a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Divides positive logits, and multiplies negative ones, of tokens among the last `penalty_window`; 1 is off
    /// (CTRL, arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Subtracted from the logit of a token as often as it is among the last `penalty_window`; 0 is off. OpenAI's
    /// `frequency_penalty`.
    pub frequency_penalty: f32,
    /// Subtracted once from the logits of tokens among the last `penalty_window`; 0 is off. OpenAI's `presence_penalty`.
    pub presence_penalty: f32,
    /// Tokens that the three penalties look back.
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
    /// If the repetition penalty is not above 0, a probability not between 0 and 1, the temperature below 0, one of them or
    /// of the other penalties not finite, or a bias NaN or plus infinity.
    pub fn check(&self) -> Result<(), Error> {
        let share = |p: f32| (0.0..=1.0).contains(&p);
        let penalty = self.repetition_penalty;
        for (what, value, good, expected) in [
            ("repetition_penalty", penalty, penalty.is_finite() && penalty > 0.0, "above 0"),
            ("top_p", self.top_p, share(self.top_p), "from 0 to 1"),
            ("min_p", self.min_p, share(self.min_p), "from 0 to 1"),
            ("temperature", self.temperature, (0.0..=f32::MAX).contains(&self.temperature), "from 0 up"),
            (
                "frequency_penalty",
                self.frequency_penalty,
                self.frequency_penalty.is_finite(),
                "that is finite",
            ),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), "that is finite"),
        ] {
            if !good {
                return Err(Error::setting(what, format!("is {value}, expected a number {expected}")));
            }
        }
        match self.logit_bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
            Some((id, bias)) => Err(Error::setting("logit_bias", format!("of token {id} is {bias}"))),
            None => Ok(()),
        }
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
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
    biases: Biases,
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
        let biases = Biases::new(&config.logit_bias);
        Self { config, biases, rng, candidates: Vec::new(), weights: Vec::new() }
    }

    /// How it chooses.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// The next token after `history` (prompt included). The logits are not empty, and at least one is finite: those of
    /// [`Session::forward`](crate::Session::forward), or of [`Session::candidates`](crate::Session::candidates) for this
    /// sampler and history. Where others are minus infinity, their tokens are never chosen.
    pub fn sample<'a>(&mut self, logits: impl Into<Logits<'a>>, history: &[u32]) -> u32 {
        let Logits { ids, values, outside } = logits.into();
        self.candidates.clear();
        {
            let penalized = self.biases.penalties(&self.config, history);
            let all = values.iter().zip(0..).map(|(&logit, i)| {
                let id = ids.map_or(i, |ids| ids[i as usize]);
                Candidate { id, logit: penalized(id, logit) }
            });
            if self.config.temperature == 0.0 {
                return all.fold(Candidate { id: 0, logit: f32::NEG_INFINITY }, better).id;
            }
            self.candidates.extend(all);
        }
        self.keep_top_k();
        self.keep_probable(outside);
        self.draw()
    }

    /// What becomes of a token's logit after `history`.
    pub(crate) fn penalty<'a>(&'a self, history: &[u32]) -> impl Fn(u32, f32) -> f32 + use<'a> {
        self.biases.penalties(&self.config, history)
    }

    /// The tokens that this sampler may choose from; nothing if it needs all. Penalties and biases that make tokens more
    /// probable need all, too.
    pub(crate) fn reach(&self) -> Option<Reach> {
        let c = &self.config;
        let raised = c.logit_bias.iter().any(|(_, bias)| *bias > 0.0);
        if raised || c.repetition_penalty < 1.0 || c.frequency_penalty < 0.0 || c.presence_penalty < 0.0 {
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

    /// OpenAI's formula: `logit - count * frequency - (count > 0) * presence`, in llama.cpp over a window.
    #[test]
    fn frequency_counts_and_presence_does_not() {
        let penalized = |frequency_penalty, presence_penalty, id| {
            let config = SamplerConfig {
                frequency_penalty,
                presence_penalty,
                penalty_window: 4,
                ..SamplerConfig::greedy()
            };
            // The 3 at the beginning is outside the window.
            Sampler::new(config).penalty(&[3, 1, 1, 2, 1])(id, 2.0)
        };
        for (frequency, presence, expected) in [
            (0.5, 0.0, [2.0, 0.5, 1.5, 2.0]),
            (0.0, 0.5, [2.0, 1.5, 1.5, 2.0]),
            (0.25, -1.0, [2.0, 2.25, 2.75, 2.0]),
        ] {
            let found = [0, 1, 2, 3].map(|id| penalized(frequency, presence, id));
            assert_eq!(found, expected, "frequency {frequency}, presence {presence}");
        }
    }

    #[test]
    fn biases_add_up_and_exclude() {
        let choose = |logit_bias: &[(u32, f32)]| {
            let config = SamplerConfig { logit_bias: logit_bias.to_vec(), ..SamplerConfig::greedy() };
            Sampler::new(config).sample(&LOGITS[..], &[])
        };
        assert_eq!(choose(&[(4, 4.5)]), 4);
        assert_eq!(choose(&[(4, 2.5), (4, 2.0)]), 4);
        assert_eq!(choose(&[(1, f32::NEG_INFINITY)]), 3);
        assert_eq!(choose(&[(1, f32::NEG_INFINITY), (3, f32::NEG_INFINITY)]), 2);
        let drawn = counts(SamplerConfig { logit_bias: vec![(1, f32::NEG_INFINITY)], ..open() }, 500);
        assert_eq!(drawn[1], 0);
        // Ids that do not exist are nobody's.
        assert_eq!(choose(&[(u32::MAX, 100.0)]), 1);
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
            ("frequency_penalty", SamplerConfig { frequency_penalty: f32::NAN, ..config() }),
            ("presence_penalty", SamplerConfig { presence_penalty: f32::INFINITY, ..config() }),
        ]);
        for bias in [f32::NAN, f32::INFINITY] {
            let config = SamplerConfig { logit_bias: vec![(7, bias)], ..config() };
            assert!(config.check().unwrap_err().to_string().starts_with("logit_bias: of token 7 is"));
        }
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
            SamplerConfig { top_k: 3, frequency_penalty: 0.5, logit_bias: vec![(3, -2.0)], ..open() },
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
        for config in [
            open(),
            SamplerConfig { repetition_penalty: 0.9, ..SamplerConfig::greedy() },
            SamplerConfig { presence_penalty: -0.1, ..SamplerConfig::greedy() },
            SamplerConfig { logit_bias: vec![(1, 0.1)], ..SamplerConfig::greedy() },
        ] {
            assert_eq!(Sampler::new(config).reach(), None);
        }
    }
}
