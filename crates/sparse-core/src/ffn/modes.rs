//! When a layer skips neurons.

/// Up to where skipping is faster than computing everything, as measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossover {
    /// Density of rows of gate or up.
    pub rows: f32,
    /// Density of columns of down.
    pub down: f32,
    /// Tokens of a batch.
    pub tokens: usize,
}

impl Default for Crossover {
    /// A single token always skips, a batch never.
    fn default() -> Self {
        Self { rows: 1.0, down: 1.0, tokens: 1 }
    }
}

/// What a batch of several tokens does. A single token always computes its active set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchMode {
    /// Computes all neurons if it has more tokens than the [crossover](Crossover::tokens): reading each weight once for all of
    /// them is faster than skipping some for each. Below it, as [`Each`](Self::Each).
    #[default]
    Dense,
    /// Computes all neurons and then uses for each token those alone that it would have chosen by itself. For measuring
    /// what a selector costs in accuracy; saves no time.
    Masked,
    /// Computes for each token its own active set and no more, as for a single token; with [`Compute::each`], to the
    /// same bits.
    ///
    /// [`Compute::each`]: crate::Compute::each
    Each,
}
