//! Neurons that are read from a file of records when a token needs them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use sparse_core::{
    ColumnMatrix, Down, Matrix, NeuronStore, NeuronWeights, Place, Slab, SparseFfn, Storage, StoreError,
    StoreStatistics, StoredDown, StoredFfn, StoredNeurons, UnitLoader,
};
use sparse_simd::{BlockFormat, ColumnLayout};

use super::Layer;
use super::records::{RecordFile, Spacing, column_layout, part_bytes};
use super::watched::WatchedFile;
use crate::{CacheKind, Error, FeedForward};

/// Records that are read together at most, if they are near each other.
const RUN: usize = 16;
/// Bytes between two records that cost less to read than another request.
const GAP: usize = 16 << 10;
/// Bytes that are read at once of a layer that is read as a whole.
const PIECE: usize = 1 << 20;
/// Bytes that the store keeps of each neuron, and of each that is in memory beside its record.
const BOOKKEEPING: [usize; 2] = [64, 128];

/// The neurons that are in a file, and those of them in memory.
#[derive(Debug)]
pub(crate) struct NeuronStores(Vec<(Arc<NeuronStore<Place>>, Arc<Slab>)>);

impl NeuronStores {
    /// What all stores have done.
    pub(crate) fn statistics(&self) -> StoreStatistics {
        self.0.iter().map(|(store, _)| store.statistics()).fold(StoreStatistics::default(), |mut all, one| {
            all += one;
            all
        })
    }

    /// Keeps the system from paging neurons out.
    pub(crate) fn lock(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(_, slab)| slab.lock())
    }
}

/// Which layers leave their neurons in a file, and what that takes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    layers: Vec<Planned>,
    groups: Vec<Group>,
    /// Bytes of their weights in the model.
    pub(crate) weights: usize,
    /// Bytes of what stays in memory of them.
    pub(crate) resident: usize,
    /// Bytes of the largest layer, which a prompt reads as a whole.
    pub(crate) whole: usize,
}

/// Layers whose neurons take rooms of the same kind.
#[derive(Debug)]
struct Group {
    parts: Vec<usize>,
    neurons: usize,
    /// Neurons of its largest layer.
    largest: usize,
}

impl Group {
    /// Bytes that a neuron in memory takes.
    fn room(&self) -> usize {
        self.parts.iter().sum::<usize>() + BOOKKEEPING[1]
    }
}

#[derive(Debug)]
struct Planned {
    group: usize,
    /// Number of its first neuron among those of the group.
    first: usize,
    /// Bytes at the beginning of a record that are in memory anyway.
    skipped: usize,
    records: Records,
    heat: Option<Vec<f32>>,
    down: StoredDown,
}

/// Where the records of a layer are, and what they are.
#[derive(Clone, Debug)]
struct Records {
    layer: usize,
    /// Where they begin in the file.
    start: u64,
    spacing: Spacing,
    /// Which neuron each is.
    order: Vec<u32>,
    /// Format and bytes of gate, if there is one, and `up`.
    rows: Vec<(BlockFormat, usize)>,
    inputs: usize,
    outputs: usize,
}

impl Plan {
    /// Plans for the layers that can leave their neurons in `file`: those whose selectors
    /// [tell them apart](StoredFfn::fits).
    ///
    /// # Errors
    /// If the file does not have what it should.
    pub(crate) fn new(file: &RecordFile, layers: &[Layer]) -> Result<Self, Error> {
        let mut plan = Self::default();
        for (i, layer) in layers.iter().enumerate() {
            if let Some(ffn) = layer.ffn.network().filter(|ffn| StoredFfn::fits(ffn.selector())) {
                plan.add(file, i, ffn)?;
            }
        }
        file.release();
        Ok(plan)
    }

    fn add(&mut self, file: &RecordFile, layer: usize, ffn: &SparseFfn) -> Result<(), Error> {
        let (parts, neurons) = (part_bytes(layer, ffn)?, ffn.neurons());
        let spacing = Spacing::of(parts.iter().sum());
        let down = match ffn.down() {
            Down::Neurons(w) => StoredDown::Rows { format: w.segments()[0].format() },
            Down::Columns(w) => columns(file, layer, *w.layout())?,
            Down::Rows(w) => columns(file, layer, column_layout(w)?)?,
            _ => unreachable!("as `part_bytes` has it"),
        };
        let keeps = StoredFfn::keeps_first(ffn.selector());
        let kept = &parts[usize::from(keeps)..];
        let group = self.groups.iter().position(|group| group.parts == kept).unwrap_or_else(|| {
            self.groups.push(Group { parts: kept.to_vec(), neurons: 0, largest: 0 });
            self.groups.len() - 1
        });
        let skipped = if keeps { parts[0] } else { 0 };
        let rows = ffn.gate().into_iter().chain([ffn.up()]);
        let rows = rows.map(|l| l.weight().segments()[0].format()).zip(parts.iter().copied());
        self.layers.push(Planned {
            group,
            first: self.groups[group].neurons,
            skipped,
            records: Records {
                layer,
                start: file.start(layer, spacing, neurons)?,
                spacing,
                order: file.order(layer, neurons)?,
                rows: rows.collect(),
                inputs: ffn.inputs(),
                outputs: ffn.outputs(),
            },
            heat: file.heat(layer, neurons)?,
            down: down.clone(),
        });
        let factors = match &down {
            StoredDown::Rows { .. } => 0,
            StoredDown::Columns { factors, .. } => factors.len(),
        };
        let group = &mut self.groups[group];
        group.neurons += neurons;
        group.largest = group.largest.max(neurons);
        self.weights += ffn.bytes();
        self.resident += skipped * neurons + factors + neurons * BOOKKEEPING[0];
        self.whole = self.whole.max(ffn.bytes());
        Ok(())
    }

    /// Bytes of neurons that have to have room: those of one layer.
    pub(crate) fn needed(&self) -> usize {
        self.groups.iter().map(|group| group.largest * group.room()).sum()
    }

    /// Gives neurons `budget` bytes, and reads the hottest ones. `layers` are those that it was made for.
    ///
    /// # Errors
    /// If neurons cannot be read, or there is not enough memory.
    pub(crate) fn carry_out(
        mut self,
        file: &RecordFile,
        layers: &mut [Layer],
        budget: usize,
        cache: CacheKind,
    ) -> Result<NeuronStores, Error> {
        let watched = Arc::new(WatchedFile::open(file.path().to_owned())?);
        let spare = budget - self.needed();
        let beyond: usize = self.groups.iter().map(|g| (g.neurons - g.largest) * g.room()).sum();
        let mut stores = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            // All groups get the same share of what is left.
            let more = (group.neurons - group.largest) as f64;
            let rooms = group.largest + (more * (spare as f64 / beyond as f64).min(1.0)) as usize;
            let slab = Slab::new(group.parts.clone(), rooms as u32).map_err(Error::Io)?;
            let (slab, planned) = (Arc::new(slab), || self.layers.iter().filter(|l| l.group == number));
            let loader = Loader {
                file: Arc::clone(&watched),
                slab: Arc::clone(&slab),
                layers: planned().map(|l| (l.first, l.skipped, l.records.clone())).collect(),
            };
            let room = slab.room_bytes();
            let store = NeuronStore::new(group.neurons, rooms * room, cache.policy(), Box::new(loader));
            let heat = planned().flat_map(|l| match &l.heat {
                Some(heat) => heat.clone(),
                None => vec![0.0; l.records.order.len()],
            });
            let pinned = (rooms / 2).min(rooms - group.largest);
            fill(&store, &heat.collect::<Vec<f32>>(), rooms, pinned)?;
            stores.push((Arc::new(store), slab));
        }
        for planned in self.layers.drain(..) {
            let (store, slab) = &stores[planned.group];
            let mut records = vec![0; planned.records.order.len()];
            planned.records.order.iter().enumerate().for_each(|(r, j)| records[*j as usize] = r as u32);
            let (file, down) = (Arc::clone(&watched), planned.down.clone());
            let ffn = &mut layers[planned.records.layer].ffn;
            let FeedForward::Network(network) = ffn else { unreachable!("planned for a network") };
            let stored = StoredNeurons {
                store: Arc::clone(store),
                slab: Arc::clone(slab),
                first: planned.first as u32,
                records,
                down: planned.down,
                whole: Box::new(move || planned.records.whole(&file, &down)),
            };
            // The rows that stay are copied: in the map of the file they would take as much again.
            let first = network.gate().unwrap_or(network.up()).weight().segments()[0].storage();
            let mapped = matches!(first, Storage::Shared { .. }).then(|| first.clone());
            let stored = StoredFfn::new(network, stored)?;
            if let Some(mapped) = mapped {
                sparse_gguf::release(mapped.bytes());
            }
            *ffn = FeedForward::Stored(Box::new(stored));
        }
        Ok(NeuronStores(stores))
    }
}

fn columns(file: &RecordFile, layer: usize, layout: ColumnLayout) -> Result<StoredDown, Error> {
    let factors = match layout.factor_bytes() {
        0 => Arc::default(),
        bytes => file.factors(layer, bytes)?.into(),
    };
    Ok(StoredDown::Columns { layout, factors })
}

/// Reads the hottest neurons into all rooms, and pins the hottest of those.
fn fill(store: &NeuronStore<Place>, heat: &[f32], rooms: usize, pinned: usize) -> Result<(), Error> {
    let mut hottest: Vec<u32> = (0..heat.len() as u32).collect();
    hottest.sort_by(|a, b| heat[*b as usize].total_cmp(&heat[*a as usize]));
    hottest.truncate(rooms);
    // Nothing is hot if nothing is known.
    let pinned = if heat.iter().any(|heat| *heat > 0.0) { pinned } else { 0 };
    let (pinned, warm) = hottest.split_at_mut(pinned.min(rooms));
    store.pin_all(pinned.iter().copied())?;
    // The last ones leave last.
    warm.reverse();
    for some in warm.chunks(1 << 12) {
        store.get_all(some.iter().copied(), &mut Default::default())?;
    }
    store.reset_statistics();
    Ok(())
}

/// Reads records into rooms.
struct Loader {
    file: Arc<WatchedFile>,
    slab: Arc<Slab>,
    /// The first neuron of each layer, the bytes of records that are not wanted, and where they are.
    layers: Vec<(usize, usize, Records)>,
}

impl Loader {
    /// The layer of a neuron, and where the wanted part of its record is.
    fn place(&self, unit: u32) -> (usize, Range<u64>) {
        let at = self.layers.partition_point(|(first, ..)| *first <= unit as usize) - 1;
        let (first, skipped, records) = &self.layers[at];
        let start = records.start + records.spacing.start(unit as usize - first) as u64;
        (records.layer, start + *skipped as u64..start + records.spacing.bytes as u64)
    }

    fn error(&self, layer: usize, source: io::Error) -> StoreError {
        StoreError { what: format!("neurons of layer {layer} in `{}`", self.file.path.display()), source }
    }
}

impl UnitLoader<Place> for Loader {
    fn bytes(&self, _: u32) -> usize {
        self.slab.room_bytes()
    }

    fn load(&self, unit: u32) -> Result<Place, StoreError> {
        self.load_run(&[unit]).pop().expect("a result per unit")
    }

    fn run(&self) -> usize {
        RUN
    }

    fn load_run(&self, units: &[u32]) -> Vec<Result<Place, StoreError>> {
        let places: Vec<_> = units.iter().map(|unit| self.place(*unit)).collect();
        // Layers may have any order in a file.
        let near = |a: &(usize, Range<u64>), b: &(usize, Range<u64>)| {
            b.1.start.checked_sub(a.1.end).is_some_and(|gap| gap <= GAP as u64)
        };
        let mut loaded = Vec::with_capacity(units.len());
        let mut bytes = Vec::new();
        for run in places.chunk_by(near) {
            let (start, end) = (run[0].1.start, run[run.len() - 1].1.end);
            bytes.resize((end - start) as usize, 0);
            let read = self.file.read(start, &mut bytes).and_then(|()| {
                let record =
                    |place: &Range<u64>| (place.start - start) as usize..(place.end - start) as usize;
                self.slab.put(run.iter().map(|(_, place)| &bytes[record(place)]))
            });
            match read {
                Ok(places) => loaded.extend(places.into_iter().map(Ok)),
                Err(error) => loaded.extend(run.iter().map(|(layer, _)| {
                    // An error has no copy.
                    Err(self.error(*layer, io::Error::new(error.kind(), error.to_string())))
                })),
            }
        }
        loaded
    }
}

impl Records {
    /// Reads the weights of all neurons, in the model's order.
    fn whole(&self, file: &WatchedFile, down: &StoredDown) -> Result<NeuronWeights, StoreError> {
        self.read(file, down).map_err(|source| StoreError {
            what: format!("layer {} in `{}`", self.layer, file.path.display()),
            source,
        })
    }

    fn read(&self, file: &WatchedFile, down: &StoredDown) -> io::Result<NeuronWeights> {
        let neurons = self.order.len();
        let mut starts = vec![0];
        for (_, bytes) in &self.rows {
            starts.push(starts[starts.len() - 1] + neurons * bytes);
        }
        let begin = starts[self.rows.len()];
        let part = self.spacing.bytes - self.rows.iter().map(|(_, bytes)| bytes).sum::<usize>();
        let len = begin
            + match down {
                StoredDown::Rows { .. } => neurons * part,
                StoredDown::Columns { layout, .. } => layout.bytes(),
            };
        let mut result = Ok(());
        let all = Storage::filled(len, |all| {
            let (rows, of_down) = all.split_at_mut(begin);
            if let StoredDown::Columns { layout, factors } = down {
                layout.put_factors(factors, of_down);
            }
            result = self.each(file, |j, record| {
                let mut rest = record;
                for ((_, bytes), start) in self.rows.iter().zip(&starts) {
                    let (row, after) = rest.split_at(*bytes);
                    rows[start + j * bytes..][..*bytes].copy_from_slice(row);
                    rest = after;
                }
                match down {
                    StoredDown::Rows { .. } => of_down[j * part..][..part].copy_from_slice(rest),
                    StoredDown::Columns { layout, .. } => of_down[layout.column(j)].copy_from_slice(rest),
                }
            });
        });
        result?;
        let owner = all.into_shared();
        let storage = |range| Storage::Shared { owner: Arc::clone(&owner), range };
        let matrix =
            |format, cols, range| Matrix::new(format, cols, storage(range)).expect("the shape it had");
        let mut rows = self.rows.iter().zip(starts.windows(2));
        let mut rows = || rows.next().map(|((format, _), at)| matrix(*format, self.inputs, at[0]..at[1]));
        let gate = if self.rows.len() == 2 { rows() } else { None };
        Ok(NeuronWeights {
            gate: gate.map(Into::into),
            up: rows().expect("every layer has it").into(),
            down: match down {
                StoredDown::Rows { format } => {
                    Down::Neurons(matrix(*format, self.outputs, begin..len).into())
                }
                StoredDown::Columns { layout, .. } => {
                    Down::Columns(ColumnMatrix::new(*layout, storage(begin..len)).expect("the shape it had"))
                }
            },
        })
    }

    /// Calls `f` with each neuron and its record.
    fn each(&self, file: &WatchedFile, mut f: impl FnMut(usize, &[u8])) -> io::Result<()> {
        let mut bytes = Vec::new();
        let per_piece = (PIECE / self.spacing.bytes).max(1);
        for (i, neurons) in self.order.chunks(per_piece).enumerate() {
            let (first, last) = (i * per_piece, i * per_piece + neurons.len() - 1);
            let start = self.spacing.start(first);
            bytes.resize(self.spacing.start(last) + self.spacing.bytes - start, 0);
            file.read(self.start + start as u64, &mut bytes)?;
            for (r, j) in (first..).zip(neurons) {
                f(*j as usize, &bytes[self.spacing.start(r) - start..][..self.spacing.bytes]);
            }
        }
        Ok(())
    }
}
