//! Whether workers help: measured, because only the system knows who else wants the cores.

use std::time::{Duration, Instant};

/// Computing time after which a rate is known.
const WINDOW: Duration = Duration::from_millis(8);
/// Windows in the better mode between two tries of the other one: at first, and at most.
const TRIES: (u32, u32) = (1, 64);
/// How much faster the other mode has to be before it becomes the better one.
const MARGIN: f64 = 1.02;
/// A rate that falls below this share of what it was asks for a try at once.
const FALL: f64 = 0.8;

/// Chooses between working together and working alone by the rate of jobs that say how much work they are.
///
/// With a core of its own for every thread, together is faster. When another process keeps a core busy, a worker is
/// taken off it while it holds a chunk, for milliseconds, or shares the caller's core: then alone is faster. So each
/// mode is tried now and then; the mode that is not the better one gets one window in [`TRIES`].
#[derive(Debug)]
pub(super) struct Governor {
    /// The better mode so far.
    alone_is_better: bool,
    /// Whether this window tries the other mode.
    trying: bool,
    /// Work and time of this window.
    work: f64,
    time: Duration,
    /// Work per second in the better mode, smoothed.
    rate: f64,
    /// Windows until the next try, and what they will be reset to.
    until_try: u32,
    between_tries: u32,
}

impl Governor {
    pub(super) fn new() -> Self {
        Self {
            alone_is_better: false,
            trying: false,
            work: 0.0,
            time: Duration::ZERO,
            rate: 0.0,
            until_try: TRIES.0,
            between_tries: TRIES.0,
        }
    }

    /// Whether the next job is for the caller alone.
    pub(super) fn alone(&self) -> bool {
        self.alone_is_better != self.trying
    }

    /// Learns from a job of some `work`, in any unit, that started at `start` and has just ended.
    pub(super) fn learn(&mut self, work: usize, start: Instant) {
        self.work += work as f64;
        self.time += start.elapsed();
        if self.time >= WINDOW {
            let rate = self.work / self.time.as_secs_f64();
            (self.work, self.time) = (0.0, Duration::ZERO);
            self.end_window(rate);
        }
    }

    fn end_window(&mut self, rate: f64) {
        if self.trying {
            self.trying = false;
            if rate > self.rate * MARGIN {
                self.alone_is_better = !self.alone_is_better;
                self.rate = rate;
                self.between_tries = TRIES.0;
            } else {
                self.between_tries = (2 * self.between_tries).min(TRIES.1);
            }
            self.until_try = self.between_tries;
            return;
        }
        let fell = rate < self.rate * FALL;
        self.rate = if self.rate == 0.0 || fell { rate } else { 0.75 * self.rate + 0.25 * rate };
        self.until_try -= 1;
        if self.until_try == 0 || (fell && self.between_tries > TRIES.0) {
            self.trying = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of windows that `governor` spends alone when the modes have these rates.
    fn share_alone(governor: &mut Governor, together: f64, alone: f64, windows: usize) -> f64 {
        let mut count = 0;
        for _ in 0..windows {
            let is_alone = governor.alone();
            count += usize::from(is_alone);
            governor.end_window(if is_alone { alone } else { together });
        }
        count as f64 / windows as f64
    }

    #[test]
    fn the_faster_mode_is_found_and_found_again() {
        let mut governor = Governor::new();
        assert!(!governor.alone());
        assert!(share_alone(&mut governor, 1.5, 1.0, 1000) < 0.03);
        // Somebody else takes a core.
        assert!(share_alone(&mut governor, 0.5, 1.0, 1000) > 0.97);
        // And gives it back.
        share_alone(&mut governor, 1.5, 1.0, 100);
        assert!(share_alone(&mut governor, 1.5, 1.0, 1000) < 0.03);
    }
}
