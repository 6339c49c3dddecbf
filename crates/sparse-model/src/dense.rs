//! A model without sparsity: what leaving neurons out has to beat.

use sparse_core::{Down, Matrix, Selector, SparseFfn, Storage};

use crate::{Error, Model};

impl Model {
    /// Has every layer compute all its neurons, from the storage that is fastest for that.
    ///
    /// Where the file has a row of `down` per neuron, its weights are rounded a second time: for measuring
    /// time, not for the text.
    ///
    /// # Errors
    /// If the neurons of a layer are no whole number of blocks.
    pub fn make_dense(&mut self) -> Result<(), Error> {
        self.for_each_ffn(|_, ffn| {
            ffn.set_selector(Selector::Dense)?;
            store_by_rows(ffn)
        })
    }
}

/// Stores `down` by rows if it has a row per neuron.
fn store_by_rows(ffn: &mut SparseFfn) -> Result<(), Error> {
    let Down::Neurons(neurons) = ffn.down() else { return Ok(()) };
    let (format, count, outputs) = (neurons.segments()[0].format(), ffn.neurons(), ffn.outputs());
    let (mut values, mut row) = (vec![0.0; count * outputs], vec![0.0; outputs]);
    for j in 0..count {
        neurons.decode_row(j, &mut row);
        row.iter().enumerate().for_each(|(i, w)| values[i * count + j] = *w);
    }
    let bytes = sparse_gguf::quantize(format, &values)?;
    let storage = Storage::filled(bytes.len(), |out| out.copy_from_slice(&bytes));
    let rows = Matrix::new(format, count, storage).map_err(sparse_core::Error::from)?;
    ffn.set_down(Down::Rows(rows))?;
    Ok(())
}
