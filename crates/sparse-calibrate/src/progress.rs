//! Telling how far a long calculation is.

use std::ops::ControlFlow;

use crate::Error;

/// Is told how far a calculation is, and may end it.
pub trait Progress {
    /// A stage of so many steps begins.
    fn begin(&mut self, stage: &str, steps: usize);
    /// A step is done. `Break` ends the calculation with [`Error::Interrupted`].
    fn step(&mut self) -> ControlFlow<()>;
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
