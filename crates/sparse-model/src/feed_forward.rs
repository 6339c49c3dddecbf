//! The feed-forward part of a layer.

use sparse_core::{ExpertFfn, Matrix, Selector, SparseFfn, StoredFfn};

/// The feed-forward part of a layer: one network, or a mixture of experts.
#[derive(Debug)]
#[non_exhaustive]
pub enum FeedForward {
    /// One network.
    Network(SparseFfn),
    /// Experts, of which each token uses some.
    Experts(ExpertFfn),
    /// One network whose neurons are read when a token needs them.
    Stored(Box<StoredFfn>),
}

impl FeedForward {
    /// The networks in memory: one, or every expert, the shared one last.
    pub fn networks(&self) -> impl Iterator<Item = &SparseFfn> {
        let (one, experts) = match self {
            Self::Network(ffn) => (Some(ffn), None),
            Self::Experts(experts) => (None, Some(experts.networks())),
            Self::Stored(_) => (None, None),
        };
        one.into_iter().chain(experts.into_iter().flatten())
    }

    /// The networks, to be given selectors.
    pub fn networks_mut(&mut self) -> impl Iterator<Item = &mut SparseFfn> {
        let (one, experts) = match self {
            Self::Network(ffn) => (Some(ffn), None),
            Self::Experts(experts) => (None, Some(experts.networks_mut())),
            Self::Stored(_) => (None, None),
        };
        one.into_iter().chain(experts.into_iter().flatten())
    }

    /// The network, if there is one in memory.
    pub fn network(&self) -> Option<&SparseFfn> {
        match self {
            Self::Network(ffn) => Some(ffn),
            Self::Experts(_) | Self::Stored(_) => None,
        }
    }

    /// The network whose neurons are read when a token needs them, if there is one.
    pub fn stored(&self) -> Option<&StoredFfn> {
        match self {
            Self::Stored(ffn) => Some(ffn),
            Self::Network(_) | Self::Experts(_) => None,
        }
    }

    /// The selector of the network, if there is one, and how many neurons it chooses from.
    pub(crate) fn selector(&self) -> Option<(usize, &Selector)> {
        match self {
            Self::Network(ffn) => Some((ffn.neurons(), ffn.selector())),
            Self::Stored(ffn) => Some((ffn.neurons(), ffn.selector())),
            Self::Experts(_) => None,
        }
    }

    /// The matrices in memory that are always multiplied as a whole, in the order of use.
    pub(crate) fn whole_matrices_mut(&mut self) -> impl Iterator<Item = &mut Matrix> {
        let (networks, stored) = match self {
            Self::Stored(ffn) => (None, ffn.whole_matrix_mut()),
            other => (Some(other.networks_mut()), None),
        };
        let networks = networks.into_iter().flatten();
        networks.flat_map(SparseFfn::whole_matrices_mut).chain(stored)
    }

    /// The experts, if there are some.
    pub fn experts(&self) -> Option<&ExpertFfn> {
        match self {
            Self::Network(_) | Self::Stored(_) => None,
            Self::Experts(experts) => Some(experts),
        }
    }

    /// Number of neurons, those of all experts together.
    pub fn neurons(&self) -> usize {
        match self {
            Self::Network(ffn) => ffn.neurons(),
            Self::Experts(experts) => experts.neurons(),
            Self::Stored(ffn) => ffn.neurons(),
        }
    }

    /// Bytes that computing a token reads if nothing is skipped but experts.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Network(ffn) => ffn.bytes(),
            Self::Experts(experts) => experts.bytes(),
            Self::Stored(ffn) => ffn.bytes(),
        }
    }

    /// What decides which neurons a token uses: the selector's name, `experts`, or both.
    pub fn selector_name(&self) -> String {
        match self {
            Self::Network(ffn) => ffn.selector().name().to_owned(),
            Self::Stored(ffn) => ffn.selector().name().to_owned(),
            Self::Experts(experts) => {
                match experts.networks().next().map_or("dense", |f| f.selector().name()) {
                    "dense" => "experts".to_owned(),
                    inside => format!("experts, {inside}"),
                }
            }
        }
    }
}
