//! How a layer's weights are stored: whole matrices by eight rows, what is left out row by row or column by column.

use super::{Crossover, Down, Selector, SparseFfn};
use crate::{ColumnMatrix, Error, Linear, Matrix};

impl SparseFfn {
    /// Sorts `down` by columns if it is stored by rows, so that skipping neurons saves their bytes. Nothing is rounded.
    /// The memory of the rows is free afterwards unless it holds something else that is still used.
    ///
    /// # Errors
    /// If it is too large to address.
    pub fn sort_by_columns(&mut self) -> Result<(), Error> {
        if let Down::Rows(rows) = &self.down
            && rows.format().has_columns()
        {
            self.down = Down::Columns(ColumnMatrix::from_rows(rows)?);
        }
        Ok(())
    }

    /// Stores `down` by rows again if it is [sorted by columns](Self::sort_by_columns): faster for a layer that computes
    /// everything.
    pub fn sort_by_rows(&mut self) {
        if let Down::Columns(columns) = &self.down {
            self.down = Down::Rows(columns.to_rows());
        }
    }

    /// The layer without its selector and its means. It shares the weights that are shared anyway, and copies the others.
    #[must_use]
    pub fn dense_copy(&self) -> Self {
        Self {
            gate: self.gate.clone(),
            up: self.up.clone(),
            down: self.down.clone(),
            down_bias: self.down_bias.clone(),
            hidden_norm: self.hidden_norm.clone(),
            selector: Selector::Dense,
            means: None,
            crossover: Crossover::default(),
            ..*self
        }
    }

    /// Whether some rows of the gate may be left out.
    fn skips_gate(&self) -> bool {
        self.selector.skips_first()
    }

    /// Whether some rows of `up` may be left out.
    fn skips_up(&self) -> bool {
        match self.gate {
            Some(_) => !matches!(self.selector, Selector::Dense),
            None => self.selector.skips_first(),
        }
    }

    /// The matrices that are always multiplied as a whole, to be [interleaved](crate::interleave), in the order of use.
    ///
    /// `up` is not among them if `down` has a row per neuron: such a layer is made for skipping, and
    /// its outputs have the same bits whether zeros are skipped or not.
    pub fn whole_matrices_mut(&mut self) -> impl Iterator<Item = &mut Matrix> {
        let neurons = matches!(self.down, Down::Neurons(_));
        let (skips_gate, skips_up) = (self.skips_gate(), self.skips_up() || neurons);
        let gate = self.gate.as_mut().filter(|_| !skips_gate).and_then(Linear::matrix_mut);
        let up = self.up.matrix_mut().filter(|_| !skips_up);
        let down = match &mut self.down {
            Down::Rows(matrix) => Some(matrix),
            _ => None,
        };
        [gate, up, down].into_iter().flatten()
    }

    /// Makes the rows contiguous that the selector may leave out.
    pub(super) fn make_skipped_rows(&mut self) {
        let (skips_gate, skips_up) = (self.skips_gate(), self.skips_up());
        if let Some(gate) = self.gate.as_mut().filter(|_| skips_gate).and_then(Linear::matrix_mut) {
            gate.make_rows();
        }
        if let Some(up) = self.up.matrix_mut().filter(|_| skips_up) {
            up.make_rows();
        }
    }
}
