//! Experts that are read when they are needed.

use alloc::sync::Arc;

use crate::{NeuronStore, SparseFfn};

/// The experts of one layer in a store that has those of all layers.
#[derive(Clone, Debug)]
pub struct StoredExperts {
    /// The store.
    pub store: Arc<NeuronStore<SparseFfn>>,
    /// Number of the layer's first expert in the store.
    pub first: u32,
    /// Width of the input of an expert.
    pub inputs: usize,
    /// Neurons of an expert.
    pub neurons: usize,
    /// Width of the output of an expert.
    pub outputs: usize,
    /// Bytes that computing an expert reads.
    pub bytes: usize,
}
