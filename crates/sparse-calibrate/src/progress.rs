//! Telling how far a long calculation is, and ending it in time.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::Error;

/// Is told how far a calculation is, and may end it.
pub trait Progress {
    /// A stage of so many steps begins.
    fn begin(&mut self, stage: &str, steps: usize);
    /// A step is done. `Break` ends the calculation with [`Error::Interrupted`].
    fn step(&mut self) -> ControlFlow<()>;
    /// All that is left to do will take about so long, later stages included. Called before
    /// [`step`](Self::step) and [`begin`](Self::begin) by calculations that can tell.
    fn left(&mut self, _time: Duration) {}
}

/// Nobody is told anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: usize) {}
    fn step(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A step is done; an error if that was enough.
pub(crate) fn step(progress: &mut dyn Progress) -> Result<(), Error> {
    match progress.step() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

/// Share of a stage from which on its own pace says how long it takes.
const PACE: f64 = 0.2;

/// The stages of a calculation that has a limited time, and how long they are expected to take.
pub(crate) struct Schedule<'a> {
    progress: &'a mut dyn Progress,
    end: Instant,
    /// Stages to come, by the beginning of their names, with the seconds that they are expected to
    /// take.
    plan: Vec<(&'static str, f64)>,
    /// Seconds that are kept for what follows all of them.
    after: f64,
    begun: Instant,
    expected: f64,
    steps: usize,
    done: usize,
}

impl<'a> Schedule<'a> {
    /// A calculation that has until `end`.
    pub(crate) fn new(progress: &'a mut dyn Progress, end: Instant) -> Self {
        let begun = Instant::now();
        Self { progress, end, plan: Vec::new(), after: 0.0, begun, expected: 0.0, steps: 1, done: 0 }
    }

    /// The same calculation with `reserve` of its time kept for something else.
    pub(crate) fn part(&mut self, reserve: Duration) -> Schedule<'_> {
        let end = self.end.checked_sub(reserve).unwrap_or(self.end);
        Schedule { after: reserve.as_secs_f64(), ..Schedule::new(self.progress, end) }
    }

    /// States what is still to come after the current stage, in order.
    pub(crate) fn plan(&mut self, plan: impl IntoIterator<Item = (&'static str, f64)>) {
        self.plan = plan.into_iter().collect();
    }

    /// Seconds until the end; 0 after it.
    pub(crate) fn seconds_left(&self) -> f64 {
        self.end.saturating_duration_since(Instant::now()).as_secs_f64()
    }

    fn tell(&mut self) {
        let (spent, share) =
            (self.begun.elapsed().as_secs_f64(), self.done as f64 / self.steps.max(1) as f64);
        let stage = if share >= PACE { spent / share } else { self.expected.max(spent) };
        let later: f64 = self.plan.iter().map(|(_, seconds)| seconds).sum();
        let left = (stage * (1.0 - share)).max(0.0) + later + self.after;
        self.progress.left(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX));
    }
}

impl Progress for Schedule<'_> {
    fn begin(&mut self, stage: &str, steps: usize) {
        self.expected = 0.0;
        if let Some(at) = self.plan.iter().position(|(name, _)| stage.starts_with(name)) {
            self.expected = self.plan.drain(..=at).next_back().map_or(0.0, |(_, seconds)| seconds);
        }
        (self.begun, self.steps, self.done) = (Instant::now(), steps, 0);
        self.tell();
        self.progress.begin(stage, steps);
    }

    fn step(&mut self) -> ControlFlow<()> {
        self.done += 1;
        self.tell();
        self.progress.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Vec<f64>);

    impl Progress for Told {
        fn begin(&mut self, _: &str, _: usize) {}
        fn step(&mut self) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
        fn left(&mut self, time: Duration) {
            self.0.push(time.as_secs_f64());
        }
    }

    #[test]
    fn what_is_left_is_the_stage_and_all_later_ones() {
        let mut told = Told::default();
        let mut schedule = Schedule::new(&mut told, Instant::now() + Duration::from_secs(5000));
        schedule.plan([("one", 1000.0), ("two", 2000.0), ("three", 3000.0)]);
        schedule.begin("one of them", 10);
        assert!(schedule.step().is_continue());
        // A stage that is passed over takes no time.
        schedule.begin("three", 2);
        schedule.begin("unplanned", 2);
        assert!(schedule.seconds_left() > 4000.0);
        // Clocks only make the current stage shorter than expected, by far less than a second per
        // step.
        let rounded: Vec<f64> = told.0.iter().map(|s| s.round()).collect();
        assert_eq!(rounded, [6000.0, 5900.0, 3000.0, 0.0]);
        let reserve = Duration::from_secs(1000);
        let left = Schedule::new(&mut Silent, Instant::now() + Duration::from_secs(5000))
            .part(reserve)
            .seconds_left();
        assert!(left <= 4000.0, "{left}");
    }
}
