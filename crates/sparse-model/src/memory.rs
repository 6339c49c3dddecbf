//! How much memory weights may take.

use std::fmt;
use std::str::FromStr;
#[cfg(feature = "fs")]
use std::sync::Arc;

#[cfg(feature = "fs")]
use sparse_core::{CachePolicy, Lfu, Lru};
use sparse_core::{LazyScreen, StoreStatistics, StoredExperts};
use sparse_gguf::Gguf;
#[cfg(feature = "fs")]
use sparse_simd::Kernels;

#[cfg(feature = "fs")]
use crate::weights::neurons::{NeuronStores, Plan};
#[cfg(feature = "fs")]
use crate::weights::records::RecordFile;
#[cfg(feature = "fs")]
use crate::weights::{ffn_weight, is_expert, is_multiplied};
use crate::{Error, Model, ModelConfig};

/// Which experts or neurons leave memory first when others come in.
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
/// Experts are read from the model's file when a token needs them, and neurons from a [file of records](crate::RecordFile). All
/// other weights stay in memory. Keys and values, buffers and the program itself are not counted.
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
    pub(crate) budget: MemoryBudget,
    /// Bytes of the weights that stay.
    pub(crate) resident: usize,
    #[cfg(feature = "fs")]
    pub(crate) experts: Option<crate::weights::stored::ExpertStore>,
    /// The neurons of layers that can leave them in a file.
    #[cfg(feature = "fs")]
    pub(crate) records: Option<Arc<RecordFile>>,
    #[cfg(feature = "fs")]
    pub(crate) neurons: Option<NeuronStores>,
}

/// Reads weights into memory but for the experts, for neurons of which there are `records`, and for those that will be
/// [interleaved](Model::interleave), which are read once.
#[cfg(feature = "fs")]
pub fn into_memory(gguf: Gguf, records: bool) -> Result<Gguf, sparse_gguf::Error> {
    let (kernels, tied) = (Kernels::get(), gguf.info("output.weight").is_none());
    gguf.into_memory(|tensor| {
        let interleaved = tensor.format().is_ok_and(|format| kernels.prefers_interleaved(format));
        is_expert(&tensor.name)
            || records && ffn_weight(&tensor.name).is_some()
            || interleaved && is_multiplied(&tensor.name, tied)
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
    Ok((Memory { budget, resident, experts, records: None, neurons: None }, stored))
}

/// Without files, all weights stay.
#[cfg(not(feature = "fs"))]
pub(crate) fn open(
    gguf: &Gguf,
    _: &ModelConfig,
    budget: MemoryBudget,
) -> Result<(Memory, Vec<Option<StoredExperts>>), Error> {
    let resident = gguf.tensors().map(|tensor| tensor.range().len()).sum();
    Ok((Memory { budget, resident }, Vec::new()))
}

impl Model {
    /// What the stores of experts or of neurons have done, in a model with a [budget](MemoryBudget).
    pub fn store_statistics(&self) -> Option<StoreStatistics> {
        #[cfg(feature = "fs")]
        {
            let Memory { experts, neurons, .. } = self.memory.as_ref()?;
            let experts = experts.as_ref().map(|experts| experts.store.statistics());
            experts.or(neurons.as_ref().map(NeuronStores::statistics))
        }
        #[cfg(not(feature = "fs"))]
        None
    }

    /// Locks the neurons in memory, if a [budget](MemoryBudget) left some in a file: the system never pages them out. Other
    /// weights, experts among them, are not locked.
    ///
    /// # Errors
    /// When the system cannot, or allows this program less locked memory.
    #[cfg(feature = "fs")]
    pub fn lock_memory(&self) -> std::io::Result<()> {
        self.memory.as_ref().and_then(|memory| memory.neurons.as_ref()).map_or(Ok(()), NeuronStores::lock)
    }

    /// Whether neurons will be left in a file of records: a sidecar then leaves the weights where they are.
    pub fn has_records(&self) -> bool {
        #[cfg(feature = "fs")]
        return self.memory.as_ref().is_some_and(|memory| memory.records.is_some());
        #[cfg(not(feature = "fs"))]
        false
    }

    /// Gives experts, and neurons of layers that tell them apart, what the other weights leave of the
    /// [budget](MemoryBudget). Without one it does nothing.
    ///
    /// To be called once, before the model is [interleaved](Self::interleave), when it has its selectors and its screen. Layers
    /// that leave their neurons in a file are no [networks](Self::ffns) afterwards.
    ///
    /// # Errors
    /// [`Error::MemoryBudget`] if that is not enough for a token; if neurons cannot be read.
    pub fn fit_memory(&mut self) -> Result<(), Error> {
        // Neurons have their places.
        #[cfg(feature = "fs")]
        if self.memory.as_ref().is_some_and(|memory| memory.neurons.is_some()) {
            return Ok(());
        }
        #[cfg(feature = "fs")]
        let plan = match self.memory.as_ref().and_then(|memory| memory.records.as_ref()) {
            Some(records) => Plan::new(records, &self.weights.layers)?,
            None => Plan::default(),
        };
        #[cfg(feature = "fs")]
        let choosing: usize = {
            let chosen = self.weights.layers.iter().filter_map(|layer| layer.ffn.selector());
            chosen.filter(|_| !self.has_own_predictors).map(|(_, selector)| selector.bytes()).sum()
        };
        let Some(memory) = &mut self.memory else { return Ok(()) };
        let resident = memory.resident + self.screen.as_ref().map_or(0, LazyScreen::bytes);
        #[cfg(feature = "fs")]
        let (resident, needed) = {
            let experts = memory.experts.as_ref().map_or(0, |experts| experts.needed);
            let stays = resident - plan.weights + plan.resident + choosing;
            (stays, experts + plan.whole + plan.needed())
        };
        #[cfg(not(feature = "fs"))]
        let needed = 0;
        let (budget, minimum) = (memory.budget.bytes, resident + needed);
        if budget < minimum {
            let problem = match needed {
                0 => "every token reads all of its weights: only experts can stay in the file, and neurons of layers \
                      that skip some, once `sparse convert` has stored them one by one"
                    .to_owned(),
                #[cfg(feature = "fs")]
                _ if memory.experts.is_none() => format!(
                    "{resident} bytes that every token reads, {} of a layer that a prompt reads as a whole, and {} of \
                     the neurons of one layer",
                    plan.whole,
                    plan.needed()
                ),
                _ => format!(
                    "{resident} bytes that every token reads, and {needed} of the experts of one layer"
                ),
            };
            return Err(Error::MemoryBudget { budget, minimum, problem });
        }
        #[cfg(feature = "fs")]
        if let Some(experts) = &memory.experts {
            experts.store.set_budget(budget - resident);
        } else if let Some(records) = memory.records.as_ref().filter(|_| needed > 0) {
            let (rooms, cache) = (budget - resident - plan.whole, memory.budget.cache);
            memory.neurons = Some(plan.carry_out(records, &mut self.weights.layers, rooms, cache)?);
        }
        Ok(())
    }
}
