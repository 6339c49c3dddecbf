//! The part of a sidecar that says in which lanes neurons are stored.
//!
//! The weights are not in it: they are rounded anew from the model's own.

use sparse_gguf::{BlockFormat, Gguf, Metadata};
use sparse_precision::PrecisionLane;

use super::selectors::{Part, Tensors};
use crate::lanes::NeuronLanes;
use crate::{Error, Model};

const NAMES: &str = "sparse.lanes.names";
const COUNTS: &str = "sparse.lanes.counts";
const ORDER: &str = "sparse.lanes.order";

/// Those that neurons may be in, widest first.
const LANES: [PrecisionLane; 3] = [PrecisionLane::Bit7, PrecisionLane::Bit5, PrecisionLane::Bit3];

fn importance(layer: usize) -> String {
    format!("blk.{layer}.ffn_input.square")
}

/// Reads them, if the file has some; one per layer.
pub(super) fn read(gguf: &Gguf, layers: usize) -> Result<Option<Vec<NeuronLanes>>, Error> {
    let (meta, file) = (gguf.metadata(), Tensors { gguf });
    let Some(names) = meta.opt_strings(NAMES)? else { return Ok(None) };
    let lanes = names.iter().map(|name| {
        let unknown = || Error::metadata(NAMES, format!("names an unknown lane \"{name}\""));
        LANES.into_iter().find(|lane| lane.to_string() == *name).ok_or_else(unknown)
    });
    let lanes = lanes.collect::<Result<Vec<_>, Error>>()?;
    let integers = |key| {
        let found = meta.opt_i32s(key)?.ok_or_else(|| Error::metadata(key, "is missing"))?;
        let wrong = |v| Error::metadata(key, format!("has {v}, expected no less than 0"));
        found.iter().map(|v| u32::try_from(*v).map_err(|_| wrong(v))).collect::<Result<Vec<u32>, Error>>()
    };
    let (counts, order) = (integers(COUNTS)?, integers(ORDER)?);
    let expected = layers.saturating_mul(lanes.len());
    if counts.len() != expected || lanes.is_empty() {
        let problem = format!("has {} numbers, expected {expected}: one per layer and lane", counts.len());
        return Err(Error::metadata(COUNTS, problem));
    }
    let mut rest = &order[..];
    let of_layer = |(layer, counts): (usize, &[u32])| {
        let segments: Vec<_> = lanes.iter().copied().zip(counts.iter().map(|n| *n as usize)).collect();
        let neurons = counts.iter().fold(0, |sum: usize, n| sum.saturating_add(*n as usize));
        let Some((order, after)) = rest.split_at_checked(neurons) else {
            let problem = format!("ends before the {neurons} neurons of layer {layer}");
            return Err(Error::metadata(ORDER, problem));
        };
        rest = after;
        NeuronLanes::new(order.to_vec(), segments, file.vector(&importance(layer))?)
            .map_err(|e| Error::metadata(ORDER, format!("layer {layer}: {e}")))
    };
    let found = counts.chunks(lanes.len()).enumerate().map(of_layer).collect::<Result<Vec<_>, Error>>()?;
    match rest.len() {
        0 => Ok(Some(found)),
        more => Err(Error::metadata(ORDER, format!("has {more} neurons more than there are in lanes"))),
    }
}

/// Adds them to a file in the making.
pub(super) fn write(lanes: &[NeuronLanes], meta: &mut Metadata, tensors: &mut Vec<Part>) {
    meta.insert(NAMES, LANES.map(|lane| lane.to_string()).to_vec());
    let count =
        |of: &NeuronLanes, lane| of.segments().iter().filter(|s| s.0 == lane).map(|s| s.1 as i32).sum();
    let counts: Vec<i32> = lanes.iter().flat_map(|of| LANES.map(|lane| count(of, lane))).collect();
    meta.insert(COUNTS, counts);
    let order: Vec<i32> = lanes.iter().flat_map(|of| of.order().iter().map(|j| *j as i32)).collect();
    meta.insert(ORDER, order);
    for (layer, of) in lanes.iter().enumerate() {
        let bytes = of.importance().iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((importance(layer), vec![of.importance().len()], BlockFormat::F32, bytes));
    }
}

/// Stores the neurons of `model` in `lanes`, one of them per layer.
pub(super) fn apply(lanes: &[NeuronLanes], model: &mut Model) -> Result<(), Error> {
    model.for_each_ffn(|i, ffn| match lanes.get(i) {
        Some(lanes) => lanes.apply(i, ffn),
        None => Ok(()),
    })
}
