#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

#[cfg(feature = "calibrate")]
pub use sparse_calibrate as calibrate;
#[doc(inline)]
pub use sparse_core::{
    ActivationType, Activations, Axes, BatchMode, BatchTimes, CachePolicy, ColumnMatrix, Compute, Crossover,
    Density, Down, Error, ExpertFfn, ExpertScratch, FfnCounts, FfnScratch, FfnTimes, FfnWeights, Gating, Lfu,
    Linear, LowRankPredictor, Lru, Margins, Matrix, NeuronStore, NeuronWeights, PackedMatrix, Pool,
    PredictorInput, Reach, ReadBandwidth, Router, Rule, Screen, ScreenScratch, SegmentedMatrix, Selector,
    SelectorQuality, Shortlist, SparseFfn, SparseInferenceEngine, SparsityConfig, SparsityStatistics,
    Storage, StoreError, StoreStatistics, StoredExperts, UnitLoader, Wanted, check_order, interleave,
    lost_rows, soft_cap,
};
#[cfg(feature = "calibrate")]
#[doc(inline)]
pub use sparse_core::{AxesFit, PredictorFactors, PredictorFit};
pub use sparse_gguf as gguf;
pub use sparse_integration as integration;
pub use sparse_model as model;
#[doc(inline)]
pub use sparse_precision::{
    DeltaScratch, LaneDelta, LaneInput, LaneMatrix, Phases, PiContext, PrecisionLane, Reflex, ReflexGate, pi,
    precision,
};
pub use sparse_simd as simd;

/// Weights in few bits, and where they are kept.
pub mod memory {
    #[doc(inline)]
    pub use sparse_core::{CachePolicy, Lfu, Lru, NeuronStore, StoreError, StoreStatistics, UnitLoader};
    #[doc(inline)]
    pub use sparse_precision::QuantizedWeights;
}
