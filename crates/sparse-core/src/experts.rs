//! Mixtures of experts: feed-forward networks of which a router chooses some for every token.
//!
//! ```text
//! x -> router -> weights of the chosen experts -> y = sum of weight * expert(x), + shared(x)
//! ```
//!
//! An expert is a [`SparseFfn`] over a range of the layer's neurons, so the router is a selector of blocks, and
//! selectors of neurons work inside the experts.

mod router;
mod stored;

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use router::Route;
pub use router::{Gating, Router};
pub use stored::StoredExperts;

use crate::error::same_len;
use crate::{Activations, BatchMode, Compute, Error, FfnCounts, FfnScratch, SparseFfn, StoreError};

/// A feed-forward layer of experts.
#[derive(Debug)]
pub struct ExpertFfn {
    router: Router,
    experts: Experts,
    shared: Option<SparseFfn>,
}

/// Where experts are.
#[derive(Debug)]
enum Experts {
    Resident(Vec<SparseFfn>),
    Stored(StoredExperts),
}

impl ExpertFfn {
    /// A layer whose `router` chooses among `experts`; `shared` is computed for every token.
    ///
    /// # Errors
    /// If there is another number of experts than the router knows, or their shapes differ.
    pub fn new(router: Router, experts: Vec<SparseFfn>, shared: Option<SparseFfn>) -> Result<Self, Error> {
        same_len("experts", router.experts(), experts.len())?;
        for expert in &experts {
            same_len("inputs of an expert", router.inputs(), expert.inputs())?;
            same_len("neurons of an expert", experts[0].neurons(), expert.neurons())?;
            same_len("outputs of an expert", experts[0].outputs(), expert.outputs())?;
        }
        Self { router, experts: Experts::Resident(experts), shared }.check()
    }

    /// The same with experts that are read when they are needed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn stored(router: Router, experts: StoredExperts, shared: Option<SparseFfn>) -> Result<Self, Error> {
        same_len("inputs of an expert", router.inputs(), experts.inputs)?;
        Self { router, experts: Experts::Stored(experts), shared }.check()
    }

    fn check(self) -> Result<Self, Error> {
        if let Some(shared) = &self.shared {
            same_len("inputs of the shared expert", self.router.inputs(), shared.inputs())?;
            same_len("outputs of the shared expert", self.outputs(), shared.outputs())?;
        }
        Ok(self)
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The experts that are resident, and behind them the shared one.
    pub fn networks(&self) -> impl Iterator<Item = &SparseFfn> {
        let resident = match &self.experts {
            Experts::Resident(experts) => &experts[..],
            Experts::Stored(_) => &[],
        };
        resident.iter().chain(&self.shared)
    }

    /// The experts that are resident, and behind them the shared one, to be given selectors.
    pub fn networks_mut(&mut self) -> impl Iterator<Item = &mut SparseFfn> {
        let resident = match &mut self.experts {
            Experts::Resident(experts) => &mut experts[..],
            Experts::Stored(_) => &mut [],
        };
        resident.iter_mut().chain(&mut self.shared)
    }

    /// Neurons of all experts, the shared one included.
    pub fn neurons(&self) -> usize {
        let [neurons, _, _] = self.expert_size();
        self.router.experts() * neurons + self.shared.as_ref().map_or(0, SparseFfn::neurons)
    }

    /// Width of the output.
    fn outputs(&self) -> usize {
        self.expert_size()[1]
    }

    /// Neurons, outputs and bytes of an expert.
    fn expert_size(&self) -> [usize; 3] {
        match &self.experts {
            Experts::Resident(experts) => [experts[0].neurons(), experts[0].outputs(), experts[0].bytes()],
            Experts::Stored(experts) => [experts.neurons, experts.outputs, experts.bytes],
        }
    }

    /// Bytes that computing a token reads: the router, the experts that it chooses, the shared one.
    pub fn bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, SparseFfn::bytes);
        self.router.bytes() + self.router.used() * self.expert_size()[2] + shared
    }

    /// Chooses the experts of every token of `x`, whose int8 form must be up to date, for the next
    /// [`forward`](Self::forward).
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn route(&self, compute: &Compute, x: &Activations, scratch: &mut ExpertScratch) {
        self.router.route(compute, x, &mut scratch.logits, &mut scratch.order, &mut scratch.routes);
        scratch.routes.sort_unstable_by_key(|route| (route.expert, route.token));
    }

    /// Tells the store of experts that are read when they are needed, if this layer has one, which of them the next
    /// [`forward`](Self::forward) needs, as last [chosen](Self::route), so that they are read ahead.
    ///
    /// `next` is the layer behind this one and about what its router will read, from which its experts are guessed while
    /// guesses turn out right.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn read_ahead(
        &self,
        compute: &Compute,
        next: Option<(&ExpertFfn, &Activations)>,
        scratch: &mut ExpertScratch,
    ) {
        let Experts::Stored(stored) = &self.experts else { return };
        let ExpertScratch { routes, guessed, logits, order, .. } = scratch;
        guessed.clear();
        let mut first = 0;
        if let Some((next, x)) = next
            && let Experts::Stored(experts) = &next.experts
            // Many tokens need them all.
            && x.tokens() * next.router.used() < next.router.experts()
            && stored.store.guesses_pay()
        {
            next.router.route(compute, x, logits, order, guessed);
            guessed.sort_unstable_by_key(|route| route.expert);
            first = experts.first;
        }
        let units = |routes: &[Route], first: u32| {
            let distinct = routes.chunk_by(|a, b| a.expert == b.expert);
            distinct.map(|routes| first + routes[0].expert).collect::<Vec<_>>().into_iter()
        };
        stored.store.expect(units(routes, stored.first), units(guessed, first));
    }

    /// Computes the layer for every token of `x`, whose int8 form must be up to date, with the experts last
    /// [chosen](Self::route); `out` is `[tokens x outputs]`. Each expert is read once, for all its tokens. A token's experts
    /// are added in the order of their numbers.
    ///
    /// With [`Compute::each`] the result does not depend on which tokens are computed together.
    ///
    /// # Errors
    /// If an expert cannot be read; then `out` is of no meaning.
    ///
    /// # Panics
    /// If the shapes do not match, or `scratch` has not enough room.
    pub fn forward(
        &self,
        compute: &Compute,
        x: &Activations,
        batch: BatchMode,
        scratch: &mut ExpertScratch,
        out: &mut [f32],
    ) -> Result<FfnCounts, StoreError> {
        let (tokens, inputs) = (x.tokens(), x.cols());
        let mut counts = FfnCounts { bytes: self.router.bytes() as u64, ..FfnCounts::default() };
        match &self.shared {
            Some(shared) => counts += shared.forward(compute, x, batch, &mut scratch.ffn, out),
            None => out.fill(0.0),
        }
        let k = compute.kernels;
        let ExpertScratch { routes, x: chosen, out: part, ffn, .. } = scratch;
        for routes in routes.chunk_by(|a, b| a.expert == b.expert) {
            let held: Arc<SparseFfn>;
            let expert = match &self.experts {
                Experts::Resident(experts) => &experts[routes[0].expert as usize],
                Experts::Stored(experts) => {
                    held = experts.store.get(experts.first + routes[0].expert)?;
                    &held
                }
            };
            let outputs = expert.outputs();
            let part = &mut part[..routes.len() * outputs];
            counts += if routes.len() == tokens {
                expert.forward(compute, x, batch, ffn, part)
            } else {
                chosen.reshape(routes.len(), inputs);
                for (route, to) in routes.iter().zip(chosen.x_mut().chunks_mut(inputs)) {
                    to.copy_from_slice(&x.x()[route.token as usize * inputs..][..inputs]);
                }
                chosen.quantize(k);
                expert.forward(compute, chosen, batch, ffn, part)
            };
            for (route, part) in routes.iter().zip(part.chunks(outputs)) {
                k.axpy_f32(route.weight, part, &mut out[route.token as usize * outputs..][..outputs]);
            }
        }
        Ok(FfnCounts { tokens: tokens as u64, ..counts })
    }
}

/// Buffers for [`ExpertFfn`], allocated once for the largest batch and layer.
#[derive(Debug, Default)]
pub struct ExpertScratch {
    /// `[tokens x experts]`.
    logits: Vec<f32>,
    /// Numbers of the experts, for choosing among them.
    order: Vec<u32>,
    /// Which token goes to which expert, by expert.
    routes: Vec<Route>,
    /// The same of the next layer, guessed.
    guessed: Vec<Route>,
    /// The tokens of one expert.
    x: Activations,
    /// What the expert makes of them.
    out: Vec<f32>,
    ffn: FfnScratch,
}

impl ExpertScratch {
    /// Room for `tokens` tokens of any of `layers`.
    pub fn new<'a>(tokens: usize, layers: impl Iterator<Item = &'a ExpertFfn> + Clone) -> Self {
        let most = |size: fn(&ExpertFfn) -> usize| layers.clone().map(size).max().unwrap_or(0);
        let (experts, used) = (most(|layer| layer.router.experts()), most(|layer| layer.router.used()));
        let outputs = most(ExpertFfn::outputs);
        let mut ffn = FfnScratch::new(tokens, layers.clone().flat_map(ExpertFfn::networks));
        ffn.reserve_neurons(tokens, most(|layer| layer.expert_size()[0]));
        Self {
            logits: vec![0.0; tokens * experts],
            order: Vec::with_capacity(experts),
            routes: Vec::with_capacity(tokens * used),
            guessed: Vec::with_capacity(tokens * used),
            x: Activations::with_capacity(tokens, most(|layer| layer.router.inputs())),
            out: vec![0.0; tokens * outputs],
            ffn,
        }
    }
}
