//! Experts: a tensor has those of a layer one after the other.

use sparse_core::{Down, ExpertFfn, Linear, Matrix, Router, SparseFfn};

use super::Source;
use crate::Error;
use crate::config::{ExpertsSpec, FeedForwardSpec};

/// A projection of one expert.
struct Projection {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

impl Source<'_> {
    /// The experts of layer `i`, and what sends tokens to them.
    pub(super) fn experts(
        &self,
        i: usize,
        spec: &FeedForwardSpec,
        experts: &ExpertsSpec,
    ) -> Result<ExpertFfn, Error> {
        let (router, shared) = (self.router(i, experts)?, self.shared_expert(i, spec, experts)?);
        let networks = self.networks(i, spec, experts)?;
        Ok(match self.stored.get(i).and_then(Option::as_ref) {
            Some(stored) => ExpertFfn::stored(router, stored.clone(), shared)?,
            None => ExpertFfn::new(router, networks, shared)?,
        })
    }

    /// The experts of layer `i`. Some files have gate and up in one tensor, `ffn_gate_up_exps`.
    pub(super) fn networks(
        &self,
        i: usize,
        spec: &FeedForwardSpec,
        experts: &ExpertsSpec,
    ) -> Result<Vec<SparseFfn>, Error> {
        let (width, hidden, count) = (self.config.embedding, spec.neurons, experts.count);
        let of = |part: &str, parts: usize, rows: usize, cols: usize| {
            self.projections(&format!("blk.{i}.ffn_{part}_exps"), [cols, parts * rows, count], parts)
        };
        let both = match self.has(&format!("blk.{i}.ffn_gate_up_exps.weight")) {
            true => of("gate_up", 2, hidden, width)?,
            false => {
                let (gates, ups) = (of("gate", 1, hidden, width)?, of("up", 1, hidden, width)?);
                gates.into_iter().zip(ups).flat_map(|(gate, up)| [gate, up]).collect()
            }
        };
        let (mut both, mut networks) = (both.into_iter(), Vec::with_capacity(count));
        for down in of("down", 1, width, hidden)? {
            let mut linear = || {
                let Projection { weight, bias } = both.next().expect("gate and up of every expert");
                Linear::new(weight, bias)
            };
            networks.push(self.expert(spec, linear()?, linear()?, down)?);
        }
        Ok(networks)
    }

    fn router(&self, i: usize, experts: &ExpertsSpec) -> Result<Router, Error> {
        let weight = self.linear(&format!("blk.{i}.ffn_gate_inp"), experts.count, self.config.embedding)?;
        let router = Router::new(weight, experts.used, experts.gating)?;
        let router = router.normalized(experts.normalized).scaled(experts.scale);
        Ok(match experts.selection_bias {
            true => {
                let bias = self.vector(&format!("blk.{i}.exp_probs_b.bias"), experts.count)?;
                router.with_selection_bias(bias)?
            }
            false => router,
        })
    }

    /// The expert of layer `i` that all tokens use.
    fn shared_expert(
        &self,
        i: usize,
        spec: &FeedForwardSpec,
        experts: &ExpertsSpec,
    ) -> Result<Option<SparseFfn>, Error> {
        let (width, hidden) = (self.config.embedding, experts.shared_neurons);
        if hidden == 0 {
            return Ok(None);
        }
        let name = |part: &str| format!("blk.{i}.ffn_{part}_shexp");
        let gate = self.linear(&name("gate"), hidden, width)?;
        let up = self.linear(&name("up"), hidden, width)?;
        let weight = self.matrix(&format!("{}.weight", name("down")), width, hidden)?;
        self.expert(spec, gate, up, Projection { weight, bias: None }).map(Some)
    }

    fn expert(
        &self,
        spec: &FeedForwardSpec,
        gate: Linear,
        up: Linear,
        down: Projection,
    ) -> Result<SparseFfn, Error> {
        let ffn = SparseFfn::gated(gate, up, Down::Rows(down.weight), spec.activation)?;
        let ffn = ffn.with_up_activation(spec.up_activation);
        Ok(match down.bias {
            Some(bias) => ffn.with_down_bias(bias)?,
            None => ffn,
        })
    }

    /// The projections of every expert that the file has in one tensor: so many `parts` below each other per expert.
    /// `dims` are its columns, the rows of an expert and the number of experts.
    fn projections(&self, name: &str, dims: [usize; 3], parts: usize) -> Result<Vec<Projection>, Error> {
        let [_, rows, count] = dims;
        let rows = rows / parts;
        let weights = self.rows_of(&format!("{name}.weight"), &dims, vec![rows; parts * count])?;
        let bias = format!("{name}.bias");
        let biases = self.has(&bias).then(|| self.values(&bias, &dims[1..])).transpose()?;
        let mut biases = biases.as_ref().map(|values| values.chunks(rows));
        let of = |weight| Projection {
            weight,
            bias: biases.as_mut().and_then(Iterator::next).map(<[f32]>::to_vec),
        };
        Ok(weights.into_iter().map(of).collect())
    }
}
