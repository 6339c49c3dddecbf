//! Text, cut into windows.

use std::sync::Arc;

use sparse_model::Model;

use crate::Error;
use crate::options::Options;
use crate::progress::Schedule;
use crate::text::{Text, drawn_evenly, pace, sampled};

/// Windows that the sensitivity of layers is measured on.
pub(crate) const PROBES: usize = 2;
/// Tokens of made-up text that the result is measured on, at most: each costs a decoding step.
const SAMPLED_TEST: usize = 16_384;
/// Tokens of made-up text, at most.
const MADE_UP: usize = 1 << 18;
/// Share of the time in which a model may make up all text.
const SAMPLING: f64 = 0.25;
/// Tokens of a window of made-up text, at least.
const SHORTEST: usize = 64;
/// Seed of made-up text.
const SEED: u64 = 1;
/// Tokens per window of the model's own text that a result is checked on, at most, its seed, and
/// its share of the time.
const OWN: usize = 256;
const OWN_SEED: u64 = 0x517;
const OWN_SHARE: f64 = 0.08;

/// Text, cut into windows for each purpose.
pub(crate) struct Windows {
    pub(crate) fit: Vec<Vec<u32>>,
    pub(crate) tune: Vec<Vec<u32>>,
    pub(crate) test: Vec<Vec<u32>>,
    /// Text that the dense model made up; none if the others are that already.
    pub(crate) own: Vec<Vec<u32>>,
}

impl Windows {
    /// Cuts `text`, which `model` makes up itself if it has to: a part to fit to, a part to choose
    /// settings by, and a part to measure the result on.
    ///
    /// # Errors
    /// If the windows do not suit the model, or there is too little text.
    pub(crate) fn new(
        dense: &Arc<Model>,
        text: Text<'_>,
        options: &Options,
        schedule: &mut Schedule<'_>,
    ) -> Result<Self, Error> {
        let limit = dense.config().context;
        if !(8..=limit).contains(&options.window) {
            let expected = format!("8 to {limit} tokens");
            return Err(Error::Option { option: "window", value: options.window.to_string(), expected });
        }
        let wanted = [options.fit_tokens, options.tune_tokens, options.test_tokens.min(SAMPLED_TEST)];
        let wanted = wanted.into_iter().fold(0, usize::saturating_add).min(MADE_UP);
        match text {
            Text::Given { text, test } => {
                let mut windows = Self::cut(dense, text, test, options.window, options)?;
                windows.sample_own(dense, options.own_tokens, schedule)?;
                Ok(windows)
            }
            Text::Even => {
                let text = drawn_evenly(dense.tokenizer(), wanted, SEED);
                Self::cut(dense, &text, None, options.window, options)
            }
            Text::Own => {
                let affordable = (SAMPLING * schedule.seconds_left() / pace(dense)?) as usize;
                let mut window = options.window;
                while affordable < 3 * PROBES * window && window > SHORTEST {
                    window /= 2;
                }
                let tokens = wanted.min(affordable).max(3 * PROBES * window);
                let text = sampled(dense, tokens, window, SEED, schedule)?;
                Self::cut(dense, &text, None, window, options)
            }
        }
    }

    fn cut(
        model: &Model,
        text: &[u32],
        test: Option<&[u32]>,
        window: usize,
        options: &Options,
    ) -> Result<Self, Error> {
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
        Ok(Self { fit: fit_windows, tune: all, test: test_windows, own: Vec::new() })
    }

    /// Has the dense model make up its own text: `tokens` of them, or as many as there is time for.
    fn sample_own(
        &mut self,
        dense: &Arc<Model>,
        tokens: usize,
        schedule: &mut Schedule<'_>,
    ) -> Result<(), Error> {
        if tokens > 0 {
            let window = OWN.min(self.len());
            let affordable = (OWN_SHARE * schedule.seconds_left() / pace(dense)?) as usize;
            let tokens = tokens.min(affordable).max(PROBES * window);
            let text = sampled(dense, tokens, window, OWN_SEED, schedule)?;
            self.own = text.chunks_exact(window).map(<[u32]>::to_vec).collect();
        }
        Ok(())
    }

    /// Tokens of a window, other than the model's own text.
    pub(crate) fn len(&self) -> usize {
        self.test[0].len()
    }
}

#[cfg(test)]
mod tests {
    use sparse_gguf::Gguf;
    use sparse_testdata::TinyLlama;

    use super::*;

    #[test]
    fn no_window_serves_two_purposes() {
        let gguf = Gguf::from_bytes(TinyLlama::default().build().to_bytes()).unwrap();
        let model = Model::from_gguf(&gguf, 1).unwrap();
        let options = Options { window: 8, fit_tokens: 16, tune_tokens: 24, ..Options::default() };
        // The second token of a window says which it is; the first may be the one that begins a text.
        let text: Vec<u32> = (0..30).flat_map(|w| [200, w, 2, 3, 4, 5, 6, 7]).collect();
        for (fit, tune) in [(16, 24), (usize::MAX, usize::MAX), (0, 0)] {
            let options = Options { fit_tokens: fit, tune_tokens: tune, ..options.clone() };
            let windows = Windows::cut(&model, &text, None, 8, &options).unwrap();
            let parts = [&windows.fit, &windows.tune, &windows.test];
            let mut all: Vec<u32> = parts.iter().flat_map(|part| part.iter().map(|w| w[1])).collect();
            let found = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!((found, all.len()), (30, 30), "{fit} and {tune} tokens");
            assert!(parts.iter().all(|part| !part.is_empty()));
        }
    }
}
