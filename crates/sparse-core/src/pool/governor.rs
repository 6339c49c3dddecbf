//! Whether workers help: measured, because only the system knows who else wants the cores.

use std::time::Duration;

/// Computing time after which a rate is known.
const WINDOW: Duration = Duration::from_millis(8);
/// A window together ends at once when it is so much behind the better mode's rate: less than losing a core costs.
const LATE: Duration = Duration::from_millis(2);
/// Computing time between two tries of the other mode, at least and at most.
const TRIES: (Duration, Duration) = (WINDOW, Duration::from_secs(1));
/// Computing time between two tries for what the one before lost.
const PATIENCE: u32 = 64;
/// How much faster the other mode has to be before it becomes the better one.
const MARGIN: f64 = 1.02;
/// Together, a rate that falls below this share of what it was asks for a try at once.
const FALL: f64 = 0.8;

/// Chooses between working together and working alone by the rate of jobs that say how much work they are.
///
/// With a core of its own for every thread, together is faster. When another process keeps a core busy, a worker is
/// taken off it while it holds a chunk, for milliseconds, or shares the caller's core: then alone is faster. So each
/// mode is tried now and then. A try that loses time is given up early and not repeated before that time is a
/// small share of all; one that loses none is repeated more and more rarely.
#[derive(Debug)]
pub(super) struct Governor {
    /// The better mode so far.
    alone_is_better: bool,
    /// Whether this window tries the other mode.
    trying: bool,
    /// Work and time of this window.
    work: f64,
    time: Duration,
    /// Work per second in the better mode, smoothed; zero before the first window has ended.
    rate: f64,
    /// Computing time until the next try, and what that was after the last one.
    until_try: Duration,
    between_tries: Duration,
}

impl Governor {
    /// Begins with a window alone: the rate that together has to reach.
    pub(super) fn new() -> Self {
        Self {
            alone_is_better: true,
            trying: false,
            work: 0.0,
            time: Duration::ZERO,
            rate: 0.0,
            until_try: Duration::ZERO,
            between_tries: TRIES.0,
        }
    }

    /// Whether the next job is for the caller alone.
    pub(super) fn alone(&self) -> bool {
        self.alone_is_better != self.trying
    }

    /// Learns from a job of some `work`, in any unit, that took `time`.
    pub(super) fn learn(&mut self, work: usize, time: Duration) {
        self.work += work as f64;
        self.time += time;
        if self.time >= WINDOW || !self.alone() && self.lost() >= LATE {
            self.end_window();
            (self.work, self.time) = (0.0, Duration::ZERO);
        }
    }

    /// How much less time this window's work takes in the better mode.
    fn lost(&self) -> Duration {
        match self.rate > 0.0 {
            true => self.time.saturating_sub(Duration::from_secs_f64(self.work / self.rate)),
            false => Duration::ZERO,
        }
    }

    fn end_window(&mut self) {
        let rate = self.work / self.time.as_secs_f64();
        if self.trying {
            self.trying = false;
            if rate > self.rate * MARGIN {
                self.alone_is_better = !self.alone_is_better;
                self.rate = rate;
                // Longer if this mode was tried in vain before: luck may have made it look better.
                self.between_tries = (self.between_tries / 4).max(TRIES.0);
            } else {
                self.between_tries = (2 * self.between_tries).max(PATIENCE * self.lost()).min(TRIES.1);
            }
            self.until_try = self.between_tries;
            return;
        }
        // Alone, only other programs slow the caller down, and workers cannot help that.
        let fell = !self.alone_is_better && rate < self.rate * FALL;
        self.rate = if self.rate == 0.0 || fell { rate } else { 0.75 * self.rate + 0.25 * rate };
        self.until_try = self.until_try.saturating_sub(self.time);
        self.trying = fell || self.until_try.is_zero();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: usize = 1_000_000;

    /// The share of `seconds` that `governor` spends alone when a job takes as many microseconds in each mode.
    fn share_alone(governor: &mut Governor, together: u64, alone: u64, seconds: u64) -> f64 {
        let (mut all, mut spent_alone) = (Duration::ZERO, Duration::ZERO);
        while all < Duration::from_secs(seconds) {
            let is_alone = governor.alone();
            let time = Duration::from_micros(if is_alone { alone } else { together });
            all += time;
            spent_alone += if is_alone { time } else { Duration::ZERO };
            governor.learn(JOB, time);
        }
        spent_alone.as_secs_f64() / all.as_secs_f64()
    }

    #[test]
    fn the_faster_mode_is_found_and_found_again() {
        let mut governor = Governor::new();
        assert!(share_alone(&mut governor, 60, 100, 8) < 0.03);
        // Somebody else takes a core.
        assert!(share_alone(&mut governor, 200, 100, 8) > 0.97);
        // And gives it back.
        share_alone(&mut governor, 60, 100, 2);
        assert!(share_alone(&mut governor, 60, 100, 8) < 0.03);
    }

    #[test]
    fn a_neighbor_costs_little_from_the_first_moment_on() {
        let mut governor = Governor::new();
        // Every tenth job together loses its core for 3 ms.
        let (mut jobs, mut all) = (0, Duration::ZERO);
        for i in 0..6000 {
            let time = Duration::from_micros(if governor.alone() {
                100
            } else {
                90 + u64::from(i % 10 == 0) * 3000
            });
            governor.learn(JOB, time);
            all += time;
            jobs += 1;
        }
        assert!(all < Duration::from_micros(103 * jobs), "{all:?} for {jobs} jobs of 100 us");
    }
}
