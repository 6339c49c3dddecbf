//! How much memory weights may take.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "fs")]
use sparse_core::{CachePolicy, Lfu, Lru};
use sparse_core::{Screen, StoreStatistics, StoredExperts};
use sparse_gguf::Gguf;
#[cfg(feature = "fs")]
use sparse_simd::Kernels;

#[cfg(feature = "fs")]
use crate::weights::{is_expert, is_multiplied};
use crate::{Error, Model, ModelConfig};

/// Which experts leave memory first when others come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheKind {
    /// Those not used for the longest time.
    Lru,
    /// Those used least often, uses long ago counting less.
    #[default]
    Lfu,
}

impl CacheKind {
    #[cfg(feature = "fs")]
    pub(crate) fn policy(self) -> Box<dyn CachePolicy> {
        match self {
            Self::Lru => Box::new(Lru::new()),
            Self::Lfu => Box::new(Lfu::new()),
        }
    }
}

impl FromStr for CacheKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "lru" => Ok(Self::Lru),
            "lfu" => Ok(Self::Lfu),
            _ => Err(format!("there is no cache policy \"{name}\"; there are lru and lfu")),
        }
    }
}

impl fmt::Display for CacheKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
        })
    }
}

/// Bytes of weights to keep in memory, and what leaves it first.
///
/// Experts are read from the model's file when a token needs them. All other weights stay in memory. Keys and values,
/// buffers and the program itself are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// The bytes.
    pub bytes: usize,
    /// What leaves first.
    pub cache: CacheKind,
}

impl MemoryBudget {
    /// So many bytes, and the usual policy.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, cache: CacheKind::default() }
    }
}

/// What a model with a budget keeps in memory.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) budget: usize,
    /// Bytes of the weights that stay.
    pub(crate) resident: usize,
    #[cfg(feature = "fs")]
    pub(crate) experts: Option<crate::weights::stored::ExpertStore>,
}

/// Reads weights into memory but for the experts, and for those that will be [interleaved](Model::interleave), which are
/// read once.
#[cfg(feature = "fs")]
pub(crate) fn into_memory(gguf: Gguf) -> Result<Gguf, sparse_gguf::Error> {
    let (kernels, tied) = (Kernels::get(), gguf.info("output.weight").is_none());
    gguf.into_memory(|tensor| {
        let interleaved = tensor.format().is_ok_and(|format| kernels.prefers_interleaved(format));
        is_expert(&tensor.name) || interleaved && is_multiplied(&tensor.name, tied)
    })
}

/// Opens the store of experts for a model with a budget, and says what each layer has in it.
#[cfg(feature = "fs")]
pub(crate) fn open(
    gguf: &Gguf,
    config: &ModelConfig,
    budget: MemoryBudget,
) -> Result<(Memory, Vec<Option<StoredExperts>>), Error> {
    let (experts, stored) = crate::weights::stored::open(gguf, config, budget.cache)?;
    let all: usize = gguf.tensors().map(|tensor| tensor.range().len()).sum();
    let resident = all - experts.as_ref().map_or(0, |experts| experts.bytes);
    Ok((Memory { budget: budget.bytes, resident, experts }, stored))
}

/// Without files, all weights stay.
#[cfg(not(feature = "fs"))]
pub(crate) fn open(
    gguf: &Gguf,
    _: &ModelConfig,
    budget: MemoryBudget,
) -> Result<(Memory, Vec<Option<StoredExperts>>), Error> {
    let resident = gguf.tensors().map(|tensor| tensor.range().len()).sum();
    Ok((Memory { budget: budget.bytes, resident }, Vec::new()))
}

impl Model {
    /// What the store of experts has done, in a model with a [budget](MemoryBudget).
    pub fn store_statistics(&self) -> Option<StoreStatistics> {
        #[cfg(feature = "fs")]
        return Some(self.memory.as_ref()?.experts.as_ref()?.store.statistics());
        #[cfg(not(feature = "fs"))]
        None
    }

    /// Gives the experts what the other weights leave of the budget.
    ///
    /// # Errors
    /// [`Error::MemoryBudget`] if that is not enough for a token.
    pub(crate) fn fit_memory(&self) -> Result<(), Error> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let resident = memory.resident + self.screen.as_ref().map_or(0, Screen::bytes);
        #[cfg(feature = "fs")]
        let needed = memory.experts.as_ref().map_or(0, |experts| experts.needed);
        #[cfg(not(feature = "fs"))]
        let needed = 0;
        if memory.budget < resident + needed {
            let problem = match needed {
                0 => "every token reads all of its weights: only experts can stay in the file".to_owned(),
                _ => format!(
                    "{resident} bytes that every token reads, and {needed} of the experts of one layer"
                ),
            };
            return Err(Error::MemoryBudget { budget: memory.budget, minimum: resident + needed, problem });
        }
        #[cfg(feature = "fs")]
        if let Some(experts) = &memory.experts {
            experts.store.set_budget(memory.budget - resident);
        }
        Ok(())
    }
}
