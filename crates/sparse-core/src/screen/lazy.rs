//! A screen that is made part by part, so that nothing waits for all of it.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::build::Builder;
use super::{Axes, Margins, Screen, ScreenScratch};
use crate::{Compute, Error, Matrix};

/// A screen, or what becomes one.
#[derive(Debug)]
pub struct LazyScreen {
    made: OnceLock<Screen>,
    /// There until it is made.
    making: Mutex<Option<Builder>>,
    rows: usize,
    inputs: usize,
    dims: usize,
    bytes: usize,
}

impl LazyScreen {
    /// Parts that it is made in. So many tokens that each takes not much longer.
    pub const PARTS: usize = 32;

    /// A screen to be made of `head`, as [`Screen::new`].
    ///
    /// # Errors
    /// As [`Screen::new`].
    pub fn new(
        compute: &Compute,
        head: &Matrix,
        axes: Axes,
        lost: Option<&[f32]>,
        margins: Margins,
    ) -> Result<Self, Error> {
        let builder = Builder::new(compute, head, axes, lost, margins)?;
        let mut lazy = Self::of(builder.screen());
        lazy.making = Mutex::new(Some(builder));
        Ok(lazy)
    }

    /// The shape of `screen`, which is not in it.
    fn of(screen: &Screen) -> Self {
        Self {
            made: OnceLock::new(),
            making: Mutex::new(None),
            rows: screen.rows(),
            inputs: screen.axes().inputs(),
            dims: screen.axes().dims(),
            bytes: screen.bytes(),
        }
    }

    /// Rows of the head.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per token.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// [`Screen::bytes`] of what it becomes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Buffers for [`Screen::shortlist`].
    pub fn scratch(&self) -> ScreenScratch {
        ScreenScratch::for_shape(self.rows, self.inputs, self.dims)
    }

    /// How many of the [`PARTS`](Self::PARTS) need no more time: all or none.
    pub fn parts(&self) -> usize {
        if self.made.get().is_some() { Self::PARTS } else { 0 }
    }

    /// Makes the first `parts` of the [`PARTS`](Self::PARTS) of `head` that are not there. Returns the screen if these are
    /// all.
    ///
    /// # Panics
    /// If `head` is another one.
    pub fn make(&self, compute: &Compute, head: &Matrix, parts: usize) -> Option<&Screen> {
        assert_eq!((head.rows(), head.cols()), (self.rows, self.inputs), "rows and width of the head");
        if self.made.get().is_none() {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(builder) = &mut *making {
                builder.add(compute, head, self.rows.div_ceil(Self::PARTS).saturating_mul(parts));
            }
            if parts >= Self::PARTS
                && let Some(builder) = making.take()
            {
                self.made.get_or_init(|| builder.finish());
            }
        }
        self.made.get().filter(|_| parts >= Self::PARTS)
    }
}

impl From<Screen> for LazyScreen {
    fn from(screen: Screen) -> Self {
        let mut lazy = Self::of(&screen);
        lazy.made = OnceLock::from(screen);
        lazy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_the_screen_that_is_made_at_once() {
        for rows in [1, 31, 64, 700, 5000] {
            let value = |i: usize| ((i * 7919) % 251) as f32 / 125.0 - 1.0;
            let head = Matrix::from_f32(64, (0..64 * rows).map(value)).unwrap();
            let (compute, axes, margins) = (Compute::new(2), || Axes::rotated(64, 1.0), Margins::default());
            let whole = Screen::new(&compute, &head, axes(), None, margins).unwrap();
            let lazy = LazyScreen::new(&compute, &head, axes(), None, margins).unwrap();
            assert_eq!((lazy.parts(), lazy.bytes()), (0, whole.bytes()));
            for parts in (0..LazyScreen::PARTS).chain([3, 0]) {
                assert!(lazy.make(&compute, &head, parts).is_none());
            }
            let made = lazy.make(&compute, &head, LazyScreen::PARTS).unwrap();
            assert_eq!(made.tiles.bytes(), whole.tiles.bytes(), "{rows} rows");
            assert_eq!((&made.deviations, made.rounding), (&whole.deviations, whole.rounding));
            assert_eq!(lazy.parts(), LazyScreen::PARTS);
        }
    }
}
