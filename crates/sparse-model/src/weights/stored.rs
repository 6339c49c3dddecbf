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
    weight: Piece,
    bias: Option<Piece>,
}

/// Rows of a tensor, in a file.
#[derive(Clone, Debug)]
struct Piece {
    file: usize,
    start: u64,
    len: usize,
    format: BlockFormat,
    cols: usize,
}

impl Expert {
    fn parts(&self) -> [&Part; 3] {
        [&self.gate, &self.up, &self.down]
    }

    /// The weights, then the biases.
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        let biases = self.parts().into_iter().filter_map(|part| part.bias.as_ref());
        self.parts().into_iter().map(|part| &part.weight).chain(biases)
    }

    /// Bytes of everything that is read for it.
    fn bytes(&self) -> usize {
        self.pieces().map(|piece| piece.len).sum()
    }

    /// Bytes of the weights.
    fn weight_bytes(&self) -> usize {
        self.parts().map(|part| part.weight.len).iter().sum()
    }
}

impl Loader {
    /// Reads all pieces into one memory.
    fn read(&self, expert: &Expert) -> io::Result<SparseFfn> {
        let mut result = Ok(());
        let raw = Storage::filled(expert.bytes(), |mut rest| {
            for piece in expert.pieces() {
                let (bytes, after) = rest.split_at_mut(piece.len);
                if result.is_ok() {
                    result = self.files[piece.file].read(piece.start, bytes);
                }
                rest = after;
            }
        });
        result?;
        let (owner, mut start) = (raw.into_shared(), 0);
        let mut matrix = |piece: &Piece| {
            let range = start..start + piece.len;
            start = range.end;
            Matrix::new(piece.format, piece.cols, Storage::Shared { owner: Arc::clone(&owner), range })
                .expect("a shape that was checked when the model was opened")
        };
        let mut matrices = expert.parts().map(|part| matrix(&part.weight));
        let [gate_bias, up_bias, down_bias] = expert.parts().map(|part| {
            part.bias.as_ref().map(|piece| {
                let mut values = vec![0.0; piece.cols];
                matrix(piece).decode_row(0, &mut values);
                values
            })
        });
        drop(owner);
        if self.interleave.load(Ordering::Relaxed) {
            sparse_core::interleave(&self.compute, &mut matrices, |_| ());
        }
        let [gate, up, down] = matrices;
        let linear = |weight, bias| Linear::new(weight, bias).expect("as checked");
        let (gate, up) = (linear(gate, gate_bias), linear(up, up_bias));
        let [activation, up_activation] = expert.activation;
        let ffn = SparseFfn::gated(gate, up, Down::Rows(down), activation).expect("as checked");
        let ffn = ffn.with_up_activation(up_activation);
        Ok(match down_bias {
            Some(bias) => ffn.with_down_bias(bias).expect("as checked"),
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
                self.files[expert.gate.weight.file].path.display()
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
            let place = Place { layer, number, experts: experts.count };
            units.push(source.expert_in_file(place, ffn, &mut files)?);
        }
    }
    if units.is_empty() {
        return Ok((None, Vec::new()));
    }
    let first = |layer: usize| units.partition_point(|unit: &Expert| unit.layer < layer);
    let sizes: Vec<_> = (0..config.layers.len())
        .map(|layer| (first(layer), &units[first(layer).min(units.len() - 1)]))
        .map(|(first, unit)| (first, unit.bytes(), unit.weight_bytes()))
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
    let layers = config.layers.iter().zip(sizes).map(|(spec, (first, all, weights))| {
        let experts = spec.feed_forward.experts.as_ref()?;
        needed = needed.max(experts.used * all);
        Some(StoredExperts {
            store: Arc::clone(&store),
            first: first as u32,
            inputs: config.embedding,
            neurons: spec.feed_forward.neurons,
            outputs: config.embedding,
            bytes: weights,
        })
    });
    let layers = layers.collect();
    Ok((Some(ExpertStore { store, needed, bytes, interleave }), layers))
}

/// Which expert of how many.
#[derive(Clone, Copy)]
struct Place {
    layer: usize,
    number: usize,
    experts: usize,
}

impl Source<'_> {
    /// Where the weights and biases of `ffn`, an expert over the model's file, are in that file.
    fn expert_in_file(
        &self,
        place: Place,
        ffn: &SparseFfn,
        files: &mut Vec<PathBuf>,
    ) -> Result<Expert, Error> {
        let Place { layer, number, experts } = place;
        let tensor = |part: &str| format!("blk.{layer}.ffn_{part}_exps");
        // A tensor has all experts one after the other, and of each expert so many projections.
        let (gate_at, up_at, projections) = match self.has(&format!("{}.weight", tensor("gate_up"))) {
            true => ((tensor("gate_up"), 0), (tensor("gate_up"), 1), 2),
            false => ((tensor("gate"), 0), (tensor("up"), 0), 1),
        };
        let mut part =
            |(name, at): (String, usize), projections: usize, matrix: &Matrix, bias: Option<&[f32]>| {
                let which = (number * projections + at, experts * projections);
                let bias = bias.map(|bias| self.piece(&format!("{name}.bias"), which, bias.len(), files));
                let bias = bias.transpose()?;
                let weight = self.piece(&format!("{name}.weight"), which, matrix.cols(), files)?;
                Ok::<_, Error>(Part { weight, bias })
            };
        let gate = ffn.gate().expect("experts have gates");
        let Down::Rows(down) = ffn.down() else { unreachable!("as the file has it") };
        let matrix = |linear: &'_ Linear| linear.weight().segments()[0].clone();
        Ok(Expert {
            layer,
            number,
            activation: [ffn.activation(), ffn.up_activation()],
            gate: part(gate_at, projections, &matrix(gate), gate.bias())?,
            up: part(up_at, projections, &matrix(ffn.up()), ffn.up().bias())?,
            down: part((tensor("down"), 0), 1, down, ffn.down_bias())?,
        })
    }

    /// Piece `index` of `count` equally large ones that make the tensor called `name`; its rows have `cols` values.
    fn piece(
        &self,
        name: &str,
        (index, count): (usize, usize),
        cols: usize,
        files: &mut Vec<PathBuf>,
    ) -> Result<Piece, Error> {
        let Some((path, range)) = self.gguf.location(name) else {
            return Err(super::fault(name, "is not in a file: a memory budget needs one to read from"));
        };
        let file = files.iter().position(|file| file == path).unwrap_or_else(|| {
            files.push(path.to_owned());
            files.len() - 1
        });
        let format = self.gguf.tensor(name)?.info.format()?;
        if !cols.is_multiple_of(format.block_len()) {
            let problem = format!("{cols} values are no whole blocks of {}", format.name());
            return Err(super::fault(name, problem));
        }
        let len = range.len() / count;
        Ok(Piece { file, start: (range.start + index * len) as u64, len, format, cols })
    }
}
