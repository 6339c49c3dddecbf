//! What an engine has done.

use std::time::Duration;

use sparse_model::{Model, StoreStatistics, Workspace};

use super::Histogram;

/// Numbers since the engine began.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Texts that wait now, and those that are being computed.
    pub waiting: usize,
    /// See [`waiting`](Self::waiting).
    pub active: usize,
    /// Texts that may wait.
    pub queue_limit: usize,
    /// Texts that are done, cancelled ones included.
    pub texts: u64,
    /// Requests that could not begin.
    pub failed: u64,
    /// Requests that were refused because too many waited.
    pub refused: u64,
    /// Tokens of the prompts of texts that are done.
    pub prompts: u64,
    /// Tokens of prompts that were computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were known from other texts.
    pub known_tokens: u64,
    /// Tokens of texts that are done.
    pub generated_tokens: u64,
    /// Steps, each with one token of some texts.
    pub steps: u64,
    /// Tokens in them.
    pub step_tokens: u64,
    /// Time that they took.
    pub step_time: Duration,
    /// Neurons whose column of the down projection was computed in steps.
    pub neurons: u64,
    /// Neurons that there are, times tokens in steps.
    pub all_neurons: u64,
    /// What the store of experts did, in a model with a memory budget.
    pub store: Option<StoreStatistics>,
    /// From a request to its first token.
    pub first_token: Histogram,
    /// From a request to the beginning of its computation.
    pub queue_time: Histogram,
}

impl Statistics {
    /// Share of the neurons that were skipped in steps.
    pub fn skipped(&self) -> f64 {
        match self.all_neurons {
            0 => 0.0,
            all => 1.0 - self.neurons as f64 / all as f64,
        }
    }

    pub(super) fn count_neurons(&mut self, model: &Model, workspace: &Workspace) {
        let (mut some, mut all) = (0, 0);
        for (ffn, counts) in model.feed_forwards().zip(workspace.ffn_counts()) {
            some += counts.down;
            all += counts.tokens * ffn.neurons() as u64;
        }
        (self.neurons, self.all_neurons) = (some, all);
        self.store = model.store_statistics();
    }
}
