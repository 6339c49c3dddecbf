//! The feed-forward part of a layer.

use sparse_core::{ExpertFfn, SparseFfn};

/// The feed-forward part of a layer: one network, or a mixture of experts.
#[derive(Debug)]
#[non_exhaustive]
pub enum FeedForward {
    /// One network.
    Network(SparseFfn),
    /// Experts, of which each token uses some.
    Experts(ExpertFfn),
}

impl FeedForward {
    /// The networks: one, or every expert, the shared one last.
    pub fn networks(&self) -> impl Iterator<Item = &SparseFfn> {
        let (one, experts) = match self {
            Self::Network(ffn) => (Some(ffn), None),
            Self::Experts(experts) => (None, Some(experts.networks())),
        };
        one.into_iter().chain(experts.into_iter().flatten())
    }

    /// The networks, to be given selectors.
    pub fn networks_mut(&mut self) -> impl Iterator<Item = &mut SparseFfn> {
        let (one, experts) = match self {
            Self::Network(ffn) => (Some(ffn), None),
            Self::Experts(experts) => (None, Some(experts.networks_mut())),
        };
        one.into_iter().chain(experts.into_iter().flatten())
    }

    /// The network, if there is one.
    pub fn network(&self) -> Option<&SparseFfn> {
        match self {
            Self::Network(ffn) => Some(ffn),
            Self::Experts(_) => None,
        }
    }

    /// The experts, if there are some.
    pub fn experts(&self) -> Option<&ExpertFfn> {
        match self {
            Self::Network(_) => None,
            Self::Experts(experts) => Some(experts),
        }
    }

    /// Number of neurons, those of all experts together.
    pub fn neurons(&self) -> usize {
        match self {
            Self::Network(ffn) => ffn.neurons(),
            Self::Experts(experts) => experts.neurons(),
        }
    }

    /// Bytes that computing a token reads if nothing is skipped but experts.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Network(ffn) => ffn.bytes(),
            Self::Experts(experts) => experts.bytes(),
        }
    }

    /// What decides which neurons a token uses: the selector's name, `experts`, or both.
    pub fn selector_name(&self) -> String {
        match self {
            Self::Network(ffn) => ffn.selector().name().to_owned(),
            Self::Experts(experts) => {
                match experts.networks().next().map_or("dense", |f| f.selector().name()) {
                    "dense" => "experts".to_owned(),
                    inside => format!("experts, {inside}"),
                }
            }
        }
    }
}
