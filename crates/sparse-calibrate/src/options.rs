//! What calibration is to do.

use std::time::Duration;

/// What calibration is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest loss, `exp(KL) - 1`, by its upper 95 % bound: 0.01 is 1 %.
    pub max_loss: f64,
    /// Choose predictors by the share of the active neurons that they find, whatever the loss: for
    /// random weights, whose predictions mean nothing.
    pub recall: Option<f64>,
    /// Tokens per window; the second half of each is scored.
    pub window: usize,
    /// Tokens that selectors are fitted to, at most.
    pub fit_tokens: usize,
    /// Tokens that settings are chosen by, at most.
    pub tune_tokens: usize,
    /// Tokens that the result is measured on, at most; only half of them are scored.
    pub test_tokens: usize,
    /// Tokens that the dense model makes up, on which the result has to be inside the budget, too;
    /// 0 if the text is the model's own already.
    pub own_tokens: usize,
    /// Ranks of the predictors that are tried.
    pub ranks: Vec<usize>,
    /// Threads.
    pub threads: usize,
    /// Time that calibration takes, about. What there is no time for is not tried.
    pub time: Duration,
    /// Keep the selectors in the sidecar even if they make the model slower: to look at them.
    /// Everything is tried then, whether it can pay or not.
    pub keep: bool,
    /// Look for neurons to leave out.
    pub ffn: bool,
    /// Look for a screen of the output head.
    pub head: bool,
    /// Greedy texts to compare with and without the screen.
    pub continuations: usize,
}

impl Options {
    /// The largest loss.
    pub(crate) fn budget(&self) -> f64 {
        self.recall.map_or(self.max_loss, |_| f64::INFINITY)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_loss: 0.01,
            recall: None,
            window: 512,
            fit_tokens: 8192,
            tune_tokens: 16_384,
            test_tokens: 65_536,
            own_tokens: 2048,
            ranks: vec![32, 64, 128],
            threads: 1,
            time: Duration::from_secs(600),
            keep: false,
            ffn: true,
            head: true,
            continuations: 20,
        }
    }
}
