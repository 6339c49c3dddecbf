//! Text, cut into windows.

use sparse_model::Model;

use crate::Error;
use crate::calibrate::Options;

/// Windows that the sensitivity of layers is measured on.
pub(crate) const PROBES: usize = 2;

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

    /// Those that divergences are measured on: few, since there is one measurement per layer.
    pub(crate) fn probes(&self) -> &[Vec<u32>] {
        &self.tune[..PROBES.min(self.tune.len())]
    }
}
