//! Experts that are read from the model's file when they are needed.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sparse_core::{
    ActivationType, Compute, Down, Linear, Matrix, NeuronStore, Pool, SparseFfn, Storage, StoreError,
    StoredExperts, UnitLoader,
};
use sparse_gguf::Gguf;
use sparse_simd::{BlockFormat, Kernels};

use super::Source;
use super::watched::WatchedFile;
use crate::config::ModelConfig;
use crate::{CacheKind, Error};

/// The experts of all layers, in their file.
#[derive(Debug)]
pub(crate) struct ExpertStore {
    pub(crate) store: Arc<NeuronStore<SparseFfn>>,
    /// Bytes of the experts that a token needs at once: those of one layer.
    pub(crate) needed: usize,
    /// Bytes of all experts.
    pub(crate) bytes: usize,
    /// Whether rows are interleaved as they come in.
    interleave: Arc<AtomicBool>,
}

impl ExpertStore {
    /// From now on, rows are stored as [`sparse_core::interleave`] stores those of resident experts.
    pub(crate) fn interleave(&self) {
        self.interleave.store(true, Ordering::Relaxed);
    }
}

/// Reads experts.
struct Loader {
    files: Vec<WatchedFile>,
    /// Where the experts are, layer by layer.
    units: Vec<Expert>,
    compute: Compute,
    interleave: Arc<AtomicBool>,
}

/// Where an expert is, and what it is.
#[derive(Clone, Debug)]
struct Expert {
    layer: usize,
    number: usize,
    activation: [ActivationType; 2],
    gate: Part,
    up: Part,
    down: Part,
}

/// A projection of an expert.
#[derive(Clone, Debug)]
struct Part {
    file: usize,
    start: u64,
    len: usize,
    format: BlockFormat,
    cols: usize,
    bias: Option<Vec<f32>>,
}

impl Expert {
    fn bytes(&self) -> usize {
        self.gate.len + self.up.len + self.down.len
    }
}

impl Loader {
    /// Reads the three parts into one memory.
    fn read(&self, expert: &Expert) -> io::Result<SparseFfn> {
        let parts = [&expert.gate, &expert.up, &expert.down];
        let mut result = Ok(());
        let raw = Storage::filled(expert.bytes(), |mut rest| {
            for part in parts {
                let (bytes, after) = rest.split_at_mut(part.len);
                if result.is_ok() {
                    result = self.files[part.file].read(part.start, bytes);
                }
                rest = after;
            }
        });
        result?;
        let (owner, mut start) = (raw.into_shared(), 0);
        let mut matrices = parts.map(|part| {
            let range = start..start + part.len;
            start = range.end;
            Matrix::new(part.format, part.cols, Storage::Shared { owner: Arc::clone(&owner), range })
                .expect("a shape that was checked when the model was opened")
        });
        drop(owner);
        if self.interleave.load(Ordering::Relaxed) {
            sparse_core::interleave(&self.compute, &mut matrices, |_| ());
        }
        let [gate, up, down] = matrices;
        let linear = |weight, part: &Part| Linear::new(weight, part.bias.clone()).expect("as checked");
        let (gate, up) = (linear(gate, &expert.gate), linear(up, &expert.up));
        let [activation, up_activation] = expert.activation;
        let ffn = SparseFfn::gated(gate, up, Down::Rows(down), activation).expect("as checked");
        let ffn = ffn.with_up_activation(up_activation);
        Ok(match &expert.down.bias {
            Some(bias) => ffn.with_down_bias(bias.clone()).expect("as checked"),
            None => ffn,
        })
    }
}

impl UnitLoader<SparseFfn> for Loader {
    fn bytes(&self, unit: u32) -> usize {
        self.units[unit as usize].bytes()
    }

    fn load(&self, unit: u32) -> Result<SparseFfn, StoreError> {
        let expert = &self.units[unit as usize];
        self.read(expert).map_err(|source| StoreError {
            what: format!(
                "expert {} of layer {} in `{}`",
                expert.number,
                expert.layer,
                self.files[expert.gate.file].path.display()
            ),
            source,
        })
    }
}

/// A store of the experts of all layers, which has room for none yet, and what each layer has in it; nothing in a model
/// without experts.
///
/// # Errors
/// If tensors are missing or have other shapes, or are not in a file.
pub(crate) fn open(
    gguf: &Gguf,
    config: &ModelConfig,
    kind: CacheKind,
) -> Result<(Option<ExpertStore>, Vec<Option<StoredExperts>>), Error> {
    let source = Source { gguf, config, stored: &[], used: RefCell::default() };
    let (mut files, mut units) = (Vec::new(), Vec::new());
    for (layer, spec) in config.layers.iter().enumerate() {
        let Some(experts) = &spec.feed_forward.experts else { continue };
        for (number, ffn) in source.networks(layer, &spec.feed_forward, experts)?.iter().enumerate() {
            units.push(source.expert_in_file(layer, number, ffn, &mut files)?);
        }
    }
    if units.is_empty() {
        return Ok((None, Vec::new()));
    }
    let first = |layer: usize| units.partition_point(|unit: &Expert| unit.layer < layer);
    let sizes: Vec<_> = (0..config.layers.len())
        .map(|layer| (first(layer), units[first(layer).min(units.len() - 1)].bytes()))
        .collect();
    let count = units.len();
    let bytes = units.iter().map(Expert::bytes).sum();
    let interleave = Arc::new(AtomicBool::new(false));
    let files = files.into_iter().map(WatchedFile::open).collect::<Result<_, _>>()?;
    // On the thread that reads: the others are computing.
    let compute = Compute::with(Kernels::get(), Pool::new(1));
    let loader = Loader { files, units, compute, interleave: Arc::clone(&interleave) };
    let store = Arc::new(NeuronStore::new(count, 0, kind.policy(), Box::new(loader)));
    let mut needed = 0;
    let layers = config.layers.iter().zip(sizes).map(|(spec, (first, bytes))| {
        let experts = spec.feed_forward.experts.as_ref()?;
        needed = needed.max(experts.used * bytes);
        Some(StoredExperts {
            store: Arc::clone(&store),
            first: first as u32,
            inputs: config.embedding,
            neurons: spec.feed_forward.neurons,
            outputs: config.embedding,
            bytes,
        })
    });
    let layers = layers.collect();
    Ok((Some(ExpertStore { store, needed, bytes, interleave }), layers))
}

impl Source<'_> {
    /// Where the weights of `ffn`, an expert over the model's file, are in that file.
    fn expert_in_file(
        &self,
        layer: usize,
        number: usize,
        ffn: &SparseFfn,
        files: &mut Vec<PathBuf>,
    ) -> Result<Expert, Error> {
        let together = format!("blk.{layer}.ffn_gate_up_exps.weight");
        let together = self.has(&together).then_some(together);
        let mut part = |name: &str, parts: usize, at: usize, matrix: &Matrix, bias: Option<&[f32]>| {
            let name = match &together {
                Some(together) if parts == 2 => together.clone(),
                _ => format!("blk.{layer}.ffn_{name}_exps.weight"),
            };
            let Some((path, range)) = self.gguf.location(&name) else {
                return Err(super::fault(&name, "is not in a file: a memory budget needs one to read from"));
            };
            let file = files.iter().position(|file| file == path).unwrap_or_else(|| {
                files.push(path.to_owned());
                files.len() - 1
            });
            let len = matrix.bytes();
            let parts = if together.is_some() { parts } else { 1 };
            let start = (range.start + (number * parts + at.min(parts - 1)) * len) as u64;
            Ok(Part {
                file,
                start,
                len,
                format: matrix.format(),
                cols: matrix.cols(),
                bias: bias.map(<[f32]>::to_vec),
            })
        };
        let gate = ffn.gate().expect("experts have gates");
        let Down::Rows(down) = ffn.down() else { unreachable!("as the file has it") };
        let matrix = |linear: &'_ Linear| linear.weight().segments()[0].clone();
        Ok(Expert {
            layer,
            number,
            activation: [ffn.activation(), ffn.up_activation()],
            gate: part("gate", 2, 0, &matrix(gate), gate.bias())?,
            up: part("up", 2, 1, &matrix(ffn.up()), ffn.up().bias())?,
            down: part("down", 1, 0, down, ffn.down_bias())?,
        })
    }
}
