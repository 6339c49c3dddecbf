//! The output head: all of it, or the rows that a screen lists.

use std::fmt;
use std::str::FromStr;

use sparse_core::{Axes, LazyScreen, Screen};
use sparse_simd::{Level, TileLayout};

use crate::sidecar::HeadScreen;
use crate::{Error, Model};

/// Bytes of a head from which on a screen is worth its while: smaller ones stay in caches.
const LEAST_BYTES: usize = 16 << 20;
/// The part of the bytes per token that a screen has to save.
const LEAST_SAVED: f64 = 1.0 / 8.0;
/// Share of a head's rows that are computed besides, about.
const ROWS: f64 = 0.02;

/// How the logits of single tokens are computed where only the largest are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadMode {
    /// Screened if that saves at least an eighth of the bytes that decoding a token reads, and memory has no
    /// [budget](crate::MemoryBudget), of which a screen takes its share. The first tokens do not wait for the screen: see
    /// [`Model::screen`].
    #[default]
    Auto,
    /// All of them.
    Dense,
    /// Screened from the first token on: those of the rows that a compact copy of the head lists.
    Screened,
}

impl HeadMode {
    const ALL: [Self; 3] = [Self::Auto, Self::Dense, Self::Screened];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dense => "dense",
            Self::Screened => "screened",
        }
    }
}

impl fmt::Display for HeadMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HeadMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| format!("expected {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl Model {
    /// The screen of the head, if it has one. It is made now if it is not there yet, which takes a moment.
    ///
    /// Sessions that are made before that make it themselves, a part for each of their first
    /// [`LazyScreen::PARTS`] tokens, for which they compute the whole head. So no token waits long for it, and texts do not
    /// depend on how long it takes.
    pub fn screen(&self) -> Option<&Screen> {
        self.screen.as_ref()?.make(self.compute(), self.head(), LazyScreen::PARTS)
    }

    /// Whether the head has a [screen](Self::screen), or is to get one.
    pub fn has_screen(&self) -> bool {
        self.screen.is_some()
    }

    /// Computes the head like this from now on. A screen that a sidecar brought stays, but for
    /// [`Dense`](HeadMode::Dense). Sessions must be made anew afterwards.
    ///
    /// # Errors
    /// If the screen is too large to address.
    pub fn screen_head(&mut self, mode: HeadMode) -> Result<(), Error> {
        let wanted = match mode {
            HeadMode::Auto => self.memory.is_none() && self.screen_pays(),
            HeadMode::Dense => {
                self.set_screen(None)?;
                false
            }
            HeadMode::Screened => true,
        };
        if wanted && self.screen.is_none() {
            HeadScreen::default().apply(self)?;
        }
        if mode == HeadMode::Screened {
            self.screen();
        }
        Ok(())
    }

    /// Makes [`Session::candidates`](crate::Session::candidates) look at rows of the head that matter only, as `screen` says;
    /// nothing makes it compute all again. Sessions must be made anew afterwards. A model whose neurons stay in a file
    /// needs its screen before it [fits its memory](Self::fit_memory).
    ///
    /// # Errors
    /// If the screen is for another head.
    pub fn set_screen(&mut self, screen: Option<Screen>) -> Result<(), Error> {
        self.set_lazy_screen(screen.map(LazyScreen::from))
    }

    /// [`set_screen`](Self::set_screen) with one that is still to be made.
    pub(crate) fn plan_screen(&mut self, screen: &HeadScreen) -> Result<(), Error> {
        let axes = screen.axes.clone().unwrap_or_else(|| self.random_axes());
        let lazy = LazyScreen::new(self.compute(), self.head(), axes, screen.lost.as_deref(), screen.margins);
        self.set_lazy_screen(Some(lazy.map_err(in_screen)?))
    }

    fn set_lazy_screen(&mut self, screen: Option<LazyScreen>) -> Result<(), Error> {
        if let Some(screen) = &screen {
            let (expected, found) =
                ((self.head().rows(), self.head().cols()), (screen.rows(), screen.inputs()));
            if expected != found {
                let problem = format!("a screen of {expected:?} rows and inputs is needed, found {found:?}");
                return Err(Error::Tensor { name: "screen".into(), problem });
            }
        }
        if screen.is_some() {
            self.weights.head_mut().make_rows();
        }
        self.screen = screen;
        match self.has_records() {
            // Selectors may follow: whoever opened the model fits its memory in the end.
            true => Ok(()),
            false => self.fit_memory(),
        }
    }

    /// A screen for this model's head.
    ///
    /// # Errors
    /// If it is for heads of another shape.
    pub fn make_screen(&self, screen: &HeadScreen) -> Result<Screen, Error> {
        let axes = screen.axes.clone().unwrap_or_else(|| self.random_axes());
        Screen::new(self.compute(), self.head(), axes, screen.lost.as_deref(), screen.margins)
            .map_err(in_screen)
    }

    /// Whether a screen knows all that logits are made of: it knows no biases.
    pub fn can_screen(&self) -> bool {
        self.weights.head_bias.is_none()
    }

    /// Whether a screen without calibration saves enough, by bytes.
    fn screen_pays(&self) -> bool {
        let head = self.head();
        let dims = head.cols().next_multiple_of(32);
        let Ok(layout) = TileLayout::new(head.rows(), 0, dims) else { return false };
        let screened = layout.bytes() as f64 + ROWS * head.bytes() as f64;
        let saved = head.bytes() as f64 - screened;
        self.can_screen()
            && head.bytes() >= LEAST_BYTES
            && self.compute().kernels.level() != Level::Scalar
            && saved >= LEAST_SAVED * self.bytes_per_token() as f64
    }

    /// Axes that need no data: random ones. What the head is given has the size of the norm's weights.
    fn random_axes(&self) -> Axes {
        let weight = &self.weights.output_norm.weight;
        let square = weight.iter().map(|w| w * w).sum::<f32>() / weight.len() as f32;
        Axes::rotated(weight.len(), square.sqrt().max(f32::MIN_POSITIVE))
    }
}

fn in_screen(error: sparse_core::Error) -> Error {
    Error::Tensor { name: "screen".into(), problem: error.to_string() }
}
