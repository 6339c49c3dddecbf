//! When to change lanes.
//!
//! A signal starts in some lane. [`GraduationPolicy`] moves it up when it is new or drifts, and down when nothing
//! happens. The first line that applies decides:
//!
//! | condition | decision |
//! |---|---|
//! | a change less than [`DWELL`](GraduationPolicy::DWELL) updates ago | stay |
//! | (novelty > `novelty_threshold` or drift steps >= `drift_persistence_threshold`), confidence >= `confidence_threshold`, cost < `escalation_budget`, and not [`Float`](PrecisionLane::Float) yet | escalate |
//! | stable for [`DWELL`](GraduationPolicy::DWELL) updates: no novelty, no drift | demote |
//! | stalled: velocity below [`STALL`](GraduationPolicy::STALL), or fewer active neurons than [`IDLE`](GraduationPolicy::IDLE) | demote |
//! | uncertain: confidence < `confidence_threshold`, and no action needed | demote |
//! | otherwise, and where there is no lane below | stay |
//!
//! Cost is what the caller reports plus what escalations have spent: each spends the share of a float's bits that it adds
//! to the signal, 1/16 from one integer lane to the next, 25/32 to floats, and every update pays back
//! [`REFILL`](GraduationPolicy::REFILL).
//!
//! The budget is looked at before an escalation, not after it. The last escalation may therefore overdraw: with a budget of
//! 0.2, a step to floats spends 25/32. After that nothing is escalated until the cost is below the budget again.

pub use crate::PrecisionLane;

/// What a policy goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraduationConfig {
    /// Novelty above this escalates.
    pub novelty_threshold: f32,
    /// So many steps of drift escalate.
    pub drift_persistence_threshold: u32,
    /// Confidence from which escalating is worth it; below it signals that need no action are demoted.
    pub confidence_threshold: f32,
    /// The cost, as a share of that of floats, below which escalations are allowed. The last one may overdraw; nothing
    /// further is escalated until updates have paid back enough.
    pub escalation_budget: f32,
}

/// What is known of a signal at one step. [`Default`] is a signal of which nothing is to be said: it is stable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraduationMetrics {
    /// How unlike the past the signal is, 0 to 1.
    pub novelty: f32,
    /// For how many steps the signal has been drifting.
    pub drift_steps: u32,
    /// How sure the consumer is of what it makes of the signal, 0 to 1.
    pub confidence: f32,
    /// Share of the escalation budget's unit, the cost of floats, that other signals use.
    pub cost_usage: f32,
    /// How much the signal moves, 0 to 1; 1 if not known.
    pub velocity: f32,
    /// Share of neurons that it activates; 1 if not known.
    pub active_neurons: f32,
    /// Whether something depends on the signal now.
    pub action_needed: bool,
}

impl Default for GraduationMetrics {
    fn default() -> Self {
        Self {
            novelty: 0.0,
            drift_steps: 0,
            confidence: 1.0,
            cost_usage: 0.0,
            velocity: 1.0,
            active_neurons: 1.0,
            action_needed: false,
        }
    }
}

/// What to do with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraduationDecision {
    /// Keep the lane.
    Stay,
    /// Go up to this lane.
    Escalate(PrecisionLane),
    /// Go down to this lane.
    Demote(PrecisionLane),
}

/// Decides, step by step, in which lane a signal is.
///
/// ```
/// use sparse_precision::precision::*;
///
/// let config = GraduationConfig {
///     novelty_threshold: 0.3,
///     drift_persistence_threshold: 5,
///     confidence_threshold: 0.8,
///     escalation_budget: 0.2,
/// };
/// let mut policy = GraduationPolicy::new(PrecisionLane::Bit5, config);
/// policy.update_metrics(GraduationMetrics { novelty: 0.4, confidence: 0.9, ..Default::default() });
/// assert_eq!(policy.decide(), GraduationDecision::Escalate(PrecisionLane::Bit7));
/// assert_eq!(policy.lane(), PrecisionLane::Bit7);
/// ```
#[derive(Clone, Debug)]
pub struct GraduationPolicy {
    lane: PrecisionLane,
    config: GraduationConfig,
    metrics: GraduationMetrics,
    /// What escalations spent and updates have not paid back yet.
    spent: f32,
    /// Updates since the last change.
    since_change: u32,
    /// Updates for which nothing was new.
    stable: u32,
}

impl GraduationPolicy {
    /// Updates between two changes, at least, and those without news after which a signal is stable.
    pub const DWELL: u32 = 8;
    /// Velocity below which a signal is stalled.
    pub const STALL: f32 = 0.01;
    /// Share of active neurons below which a signal is stalled.
    pub const IDLE: f32 = 0.01;
    /// What every update pays back of what escalations spent: a step between integer lanes in 16 updates.
    pub const REFILL: f32 = 1.0 / 256.0;

    /// A signal that begins in `lane`; its first change may come at once.
    pub fn new(lane: PrecisionLane, config: GraduationConfig) -> Self {
        let metrics = GraduationMetrics::default();
        Self { lane, config, metrics, spent: 0.0, since_change: Self::DWELL, stable: 0 }
    }

    /// The lane that the signal is in.
    pub fn lane(&self) -> PrecisionLane {
        self.lane
    }

    /// What escalations have spent and updates have not paid back.
    pub fn spent(&self) -> f32 {
        self.spent
    }

    /// One step of time, and what is known of the signal at it.
    pub fn update_metrics(&mut self, metrics: GraduationMetrics) {
        self.metrics = metrics;
        self.spent = (self.spent - Self::REFILL).max(0.0);
        self.since_change = self.since_change.saturating_add(1);
        let news = metrics.novelty > self.config.novelty_threshold || metrics.drift_steps > 0;
        self.stable = if news { 0 } else { self.stable.saturating_add(1) };
    }

    /// Decides by the newest metrics, and moves to the lane that is decided on. Asked again before the next update, it
    /// stays.
    pub fn decide(&mut self) -> GraduationDecision {
        let decision = self.decision();
        match decision {
            GraduationDecision::Stay => return decision,
            GraduationDecision::Escalate(lane) => {
                self.spent += cost(self.lane, lane);
                self.lane = lane;
            }
            GraduationDecision::Demote(lane) => self.lane = lane,
        }
        (self.since_change, self.stable) = (0, 0);
        decision
    }

    fn decision(&self) -> GraduationDecision {
        let (config, metrics) = (&self.config, &self.metrics);
        if self.since_change < Self::DWELL {
            return GraduationDecision::Stay;
        }
        let new = metrics.novelty > config.novelty_threshold
            || metrics.drift_steps >= config.drift_persistence_threshold;
        // A report below zero is no credit, and NaN allows nothing.
        let cost = self.spent.max(metrics.cost_usage + self.spent);
        let affordable = !metrics.cost_usage.is_nan() && cost < config.escalation_budget;
        if new
            && metrics.confidence >= config.confidence_threshold
            && affordable
            && let Some(lane) = self.lane.wider()
        {
            return GraduationDecision::Escalate(lane);
        }
        let stalled = metrics.velocity < Self::STALL || metrics.active_neurons < Self::IDLE;
        let uncertain = metrics.confidence < config.confidence_threshold && !metrics.action_needed;
        match self.lane.narrower() {
            Some(lane) if self.stable >= Self::DWELL || stalled || uncertain => {
                GraduationDecision::Demote(lane)
            }
            _ => GraduationDecision::Stay,
        }
    }
}

/// What going up costs, as a share of the bits of a float.
fn cost(from: PrecisionLane, to: PrecisionLane) -> f32 {
    (to.bits() - from.bits()) as f32 / PrecisionLane::Float.bits() as f32
}

#[cfg(test)]
mod tests;
