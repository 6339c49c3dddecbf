//! Bars for long work in several stages.

use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressStyle};
use sparse_calibrate::Progress;

use crate::interrupt;

/// A bar per stage; nothing when stderr is no terminal. Ctrl-C ends the work after the current step.
#[derive(Default)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn begin(&mut self, stage: &str, steps: usize) {
        self.finish();
        tracing::info!(stage, steps);
        let bar = ProgressBar::new(steps as u64).with_message(stage.to_owned());
        // The template is a constant without faults; an unstyled bar would do as well.
        if let Ok(style) = ProgressStyle::with_template("{msg} {pos}/{len} {wide_bar:.dim} {eta} left") {
            bar.set_style(style);
        }
        self.0 = Some(bar);
    }

    fn step(&mut self) -> ControlFlow<()> {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
