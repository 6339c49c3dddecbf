#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod activations;
#[cfg(feature = "std")]
mod bandwidth;
mod columns;
#[cfg(feature = "std")]
mod engine;
mod error;
#[cfg(feature = "std")]
mod experts;
mod ffn;
#[cfg(feature = "std")]
mod interleave;
mod linear;
mod matrix;
#[cfg(feature = "std")]
mod memory;
mod packed;
mod pool;
mod rows;
#[cfg(feature = "std")]
mod screen;
mod segments;
#[cfg(feature = "std")]
mod store;

pub use activations::Activations;
#[cfg(feature = "std")]
pub use bandwidth::ReadBandwidth;
pub use columns::ColumnMatrix;
#[cfg(feature = "std")]
pub use engine::{FfnWeights, SparseInferenceEngine, SparsityStatistics};
pub use error::{Error, check_order};
#[cfg(feature = "std")]
pub use experts::{ExpertFfn, ExpertScratch, Gating, Router, StoredExperts};
pub use ffn::{
    ActivationType, BatchMode, Crossover, Density, Down, FfnCounts, FfnScratch, LowRankPredictor,
    NeuronWeights, PredictorInput, Rule, Selector, SelectorQuality, SparseFfn, SparsityConfig,
};
#[cfg(feature = "std")]
pub use ffn::{BatchTimes, FfnTimes, StoredDown, StoredFfn, StoredNeurons};
// For the other crates of this workspace alone.
#[cfg(feature = "std")]
#[doc(hidden)]
pub use ffn::median;
#[cfg(feature = "fit")]
pub use ffn::{PredictorFactors, PredictorFit};
#[cfg(feature = "std")]
pub use interleave::interleave;
pub use linear::Linear;
pub use matrix::{Matrix, Storage};
pub use packed::PackedMatrix;
pub use pool::Pool;
#[cfg(feature = "fit")]
pub use screen::AxesFit;
#[cfg(feature = "std")]
pub use screen::{
    Axes, LazyScreen, Margins, Reach, Screen, ScreenScratch, Shortlist, Wanted, lost_rows, soft_cap,
};
pub use segments::SegmentedMatrix;
#[cfg(feature = "std")]
pub use store::{
    CachePolicy, Held, Lfu, Lru, NeuronStore, Place, Slab, StoreError, StoreStatistics, UnitLoader,
};

use sparse_simd::Kernels;

/// What a computation runs on: the kernels of one CPU level and a pool of threads.
#[derive(Debug)]
pub struct Compute {
    /// The kernels, chosen once for this CPU.
    pub kernels: &'static Kernels,
    /// The threads.
    pub pool: Pool,
    /// Whether every token of a batch has the bits that it has alone.
    each: bool,
}

impl Compute {
    /// The best kernels of this CPU on `threads` threads (the calling thread included; 0 counts as 1).
    pub fn new(threads: usize) -> Self {
        Self::with(Kernels::get(), Pool::new(threads))
    }

    /// These kernels on these threads.
    pub fn with(kernels: &'static Kernels, pool: Pool) -> Self {
        Self { kernels, pool, each: false }
    }

    /// The same kernels and threads for batches whose tokens belong to different texts: what comes out for a token is
    /// what comes out for it alone, bit for bit. Otherwise batches are computed in the fastest way, whose sums may have
    /// another order.
    #[must_use]
    pub fn each(&self) -> Self {
        Self { kernels: self.kernels, pool: self.pool.clone(), each: true }
    }

    /// Whether batches are computed [so](Self::each).
    pub fn is_each(&self) -> bool {
        self.each
    }
}
