//! Text that nothing is fitted to.

use std::sync::Arc;
use std::time::Instant;

use sparse_model::Model;
use sparse_model::sidecar::{MeasuredLoss, OwnText};

use crate::Error;
use crate::loss::{Measured, Reference, Until, stated};
use crate::progress::{Progress, Schedule};
use crate::windows::{PROBES, Windows};

/// Windows of the test set that show how surprising the text is to the dense model.
const SURPRISE: usize = 4;

/// Windows of so many tokens that can be computed in `seconds`, at `pace` seconds per token.
pub(crate) fn affordable(seconds: f64, window: usize, pace: f64) -> usize {
    (seconds / (pace * window as f64).max(1e-9)) as usize
}

/// The test set and text of the model's own, which have the last word about a configuration.
pub(crate) struct HeldOut {
    text: Reference,
    own: Option<Reference>,
    /// Negative log-likelihood of the dense model on either, in nats.
    text_nats: f64,
    own_nats: f64,
    /// Seconds per token of a batch.
    pub(crate) pace: f64,
}

impl HeldOut {
    /// Scores the dense model on the texts of `windows`.
    pub(crate) fn new(
        dense: &Arc<Model>,
        windows: &Windows,
        schedule: &mut Schedule<'_>,
    ) -> Result<Self, Error> {
        let mut text = Reference::new(dense, windows.test.clone());
        let mut own = (!windows.own.is_empty()).then(|| Reference::new(dense, windows.own.clone()));
        let surprise = SURPRISE.min(windows.test.len());
        schedule.begin("scoring the dense model", surprise + windows.own.len());
        let start = Instant::now();
        let text_nats = text.dense_nats(surprise, schedule)?;
        let pace = start.elapsed().as_secs_f64() / (surprise * windows.len()) as f64;
        let own_nats = match &mut own {
            Some(own) => own.dense_nats(windows.own.len(), schedule)?,
            None => f64::NAN,
        };
        Ok(Self { text, own, text_nats, own_nats, pace })
    }

    /// What is to be said about the text, if it is not the model's.
    pub(crate) fn foreign_text(&self) -> Option<String> {
        let (perplexity, text_perplexity) = (self.own_nats.exp(), self.text_nats.exp());
        let own = OwnText { kl: 0.0, kl_error: 0.0, tokens: 0, perplexity, text_perplexity };
        self.own.as_ref().and_then(|_| own.foreign_text())
    }

    /// Leaves as much of the test set as can be computed in `seconds` with both models.
    pub(crate) fn limit(&mut self, seconds: f64) {
        let tokens = self.text.windows()[0].len();
        self.text.truncate(affordable(seconds / 2.0, tokens, self.pace).max(PROBES));
    }

    /// Measures `sparse`, and stops where it is seen to be over `budget`.
    pub(crate) fn measure(
        &mut self,
        sparse: &Arc<Model>,
        budget: f64,
        schedule: &mut Schedule<'_>,
    ) -> Result<(MeasuredLoss, Measured), Error> {
        let until = Until::Outside(budget);
        let own_windows = self.own.as_ref().map_or(0, |own| own.windows().len());
        schedule.begin("measuring the loss on other text", self.text.windows().len() + own_windows);
        let own = match &mut self.own {
            Some(own) => Some(own.measure(sparse, until, schedule)?),
            None => None,
        };
        let text = self.text.measure(sparse, until, schedule)?;
        Ok((stated(&text, own.as_ref(), self.text_nats, self.own_nats), text))
    }
}
