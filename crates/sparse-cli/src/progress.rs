//! How far long work in several stages is, on stderr.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

use crate::interrupt;

/// Steps of a bar over all stages.
const FINE: u64 = 1000;
/// Time between two lines about the same stage.
const LINES: Duration = Duration::from_secs(15);

/// A bar: over all stages if the work can tell how long it will take, and otherwise one for each.
/// When stderr is no terminal there is nothing, or [`lines`](Self::lines). Ctrl-C ends the work
/// after the current step.
#[derive(Default)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    /// When the last line was written, if lines are wanted.
    lines: Option<Instant>,
    start: Option<Instant>,
    left: Option<Duration>,
    stage: String,
    steps: usize,
    done: usize,
}

impl Bar {
    /// One that writes a line now and then when stderr is no terminal.
    #[cfg(feature = "calibrate")]
    pub(crate) fn lines() -> Self {
        use std::io::IsTerminal;
        let lines = (!std::io::stderr().is_terminal()).then(Instant::now);
        Self { lines, ..Self::default() }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// What was last begun; empty before anything was.
    #[cfg(feature = "calibrate")]
    pub(crate) fn stage(&self) -> &str {
        &self.stage
    }

    fn show(&mut self) {
        let spent = self.start.get_or_insert_with(Instant::now).elapsed();
        if let Some(last) = &mut self.lines {
            let begun = self.done == 0;
            if begun || last.elapsed() >= LINES {
                *last = Instant::now();
                let steps = if begun { String::new() } else { format!(", {} of {}", self.done, self.steps) };
                let left = self.left.map_or_else(String::new, |left| {
                    format!(", about {} left", FormattedDuration(Duration::from_secs(left.as_secs())))
                });
                let spent = FormattedDuration(Duration::from_secs(spent.as_secs()));
                eprintln!("{spent} {}{steps}{left}", self.stage);
            }
            return;
        }
        let Some(bar) = &self.bar else { return };
        match self.left {
            Some(left) => {
                let share = spent.as_secs_f64() / (spent + left).as_secs_f64().max(1e-9);
                bar.set_length(FINE);
                bar.set_position((share * FINE as f64) as u64);
                let left = FormattedDuration(Duration::from_secs(left.as_secs()));
                bar.set_message(format!("{} {}/{}, about {left} left", self.stage, self.done, self.steps));
            }
            None => {
                bar.set_position(self.done as u64);
                bar.set_message(format!("{} {}/{}", self.stage, self.done, self.steps));
            }
        }
    }

    /// Begins a stage of so many steps.
    pub(crate) fn begin(&mut self, stage: &str, steps: usize) {
        tracing::info!(stage, steps);
        (self.stage, self.steps, self.done) = (stage.to_owned(), steps, 0);
        let all = self.left.is_some();
        if self.lines.is_none() && (self.bar.is_none() || !all) {
            self.finish();
            let bar = ProgressBar::new(steps as u64);
            let template = if all { "{wide_bar:.dim} {msg}" } else { "{msg} {wide_bar:.dim} {eta} left" };
            // The template is a constant without faults; an unstyled bar would do as well.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
        self.show();
    }

    /// Ends a step.
    pub(crate) fn step(&mut self) -> ControlFlow<()> {
        self.done += 1;
        self.show();
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(feature = "calibrate")]
impl sparse_calibrate::Progress for Bar {
    fn begin(&mut self, stage: &str, steps: usize) {
        self.begin(stage, steps);
    }

    fn step(&mut self) -> ControlFlow<()> {
        self.step()
    }

    fn left(&mut self, time: Duration) {
        self.left = Some(time);
    }
}
