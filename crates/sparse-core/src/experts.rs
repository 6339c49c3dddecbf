//! Mixtures of experts: feed-forward networks of which a router chooses some for every token.
//!
//! ```text
//! x -> router -> weights of the chosen experts -> y = sum of weight * expert(x), + shared(x)
//! ```
//!
//! An expert is a [`SparseFfn`] over a range of the layer's neurons, so the router is a selector of blocks, and
//! selectors of neurons work inside the experts.

mod router;

use alloc::vec;
use alloc::vec::Vec;

use router::Route;
pub use router::{Gating, Router};

use crate::error::same_len;
use crate::{Activations, BatchMode, Compute, Error, FfnCounts, FfnScratch, SparseFfn};

/// A feed-forward layer of experts.
#[derive(Debug)]
pub struct ExpertFfn {
    router: Router,
    experts: Vec<SparseFfn>,
    shared: Option<SparseFfn>,
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
        if let Some(shared) = &shared {
            same_len("inputs of the shared expert", router.inputs(), shared.inputs())?;
            same_len("outputs of the shared expert", experts[0].outputs(), shared.outputs())?;
        }
        Ok(Self { router, experts, shared })
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The experts, and behind them the shared one.
    pub fn networks(&self) -> impl Iterator<Item = &SparseFfn> {
        self.experts.iter().chain(&self.shared)
    }

    /// The experts, and behind them the shared one, to be given selectors.
    pub fn networks_mut(&mut self) -> impl Iterator<Item = &mut SparseFfn> {
        self.experts.iter_mut().chain(&mut self.shared)
    }

    /// Neurons of all experts, the shared one included.
    pub fn neurons(&self) -> usize {
        self.networks().map(SparseFfn::neurons).sum()
    }

    /// Bytes that computing a token reads: the router, the experts that it chooses, the shared one.
    pub fn bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, SparseFfn::bytes);
        self.router.bytes() + self.router.used() * self.experts[0].bytes() + shared
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

    /// Computes the layer for every token of `x`, whose int8 form must be up to date, with the experts last
    /// [chosen](Self::route); `out` is `[tokens x outputs]`. Each expert is read once, for all its tokens. A token's experts
    /// are added in the order of their numbers.
    ///
    /// With [`Compute::each`] the result does not depend on which tokens are computed together.
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
    ) -> FfnCounts {
        let (tokens, inputs) = (x.tokens(), x.cols());
        let mut counts = FfnCounts { bytes: self.router.bytes() as u64, ..FfnCounts::default() };
        match &self.shared {
            Some(shared) => counts += shared.forward(compute, x, batch, &mut scratch.ffn, out),
            None => out.fill(0.0),
        }
        let k = compute.kernels;
        let ExpertScratch { routes, x: chosen, out: part, ffn, .. } = scratch;
        for routes in routes.chunk_by(|a, b| a.expert == b.expert) {
            let expert = &self.experts[routes[0].expert as usize];
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
        FfnCounts { tokens: tokens as u64, ..counts }
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
        let outputs = most(|layer| layer.experts[0].outputs());
        Self {
            logits: vec![0.0; tokens * most(|layer| layer.router.experts())],
            order: Vec::with_capacity(most(|layer| layer.router.experts())),
            routes: Vec::with_capacity(tokens * most(|layer| layer.router.used())),
            x: Activations::with_capacity(tokens, most(|layer| layer.router.inputs())),
            out: vec![0.0; tokens * outputs],
            ffn: FfnScratch::new(tokens, layers.flat_map(ExpertFfn::networks)),
        }
    }
}
