//! Files of neuron records: what a token needs of a neuron lies together, to be read at once.
//!
//! A GGUF file beside the model's. Metadata: `sparse.records.version`, `sparse.model.fingerprint`. Tensors of every layer, bytes
//! but for the order and the heat:
//!
//! ```text
//! blk.N.ffn_order          which neuron each record is (i32)
//! blk.N.ffn_heat           share of the tokens that used the neuron (f32), in that order, if it is known
//! blk.N.ffn_records        gate row | up row | down of every neuron, the hottest first
//! blk.N.ffn_down.factors   what columns of a quantized down share, if it has columns
//! ```
//!
//! Orders and heats of all layers come before the records. So a file that is continued has those of the earlier run.
//!
//! A record that fits a page of 4 KB several times does not cross one; a larger one begins with a page if that wastes less
//! than a quarter.

use std::path::{Path, PathBuf};

use sparse_core::{ColumnMatrix, Down, SparseFfn};
use sparse_gguf::{GgmlType, Gguf, GgufWriter, Metadata, Sink, TensorWriter};

use super::fault;
use crate::{Error, FeedForward, Model};

const VERSION: u32 = 1;
/// What disks and page caches read at once.
const PAGE: usize = 4096;
/// Bytes that are written at a time.
const CHUNK: usize = 1 << 20;

/// Where records of `bytes` bytes are: so many begin with every so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spacing {
    pub(super) bytes: usize,
    count: usize,
    every: usize,
}

impl Spacing {
    pub(super) fn of(bytes: usize) -> Self {
        let pages = bytes.div_ceil(PAGE) * PAGE;
        match bytes {
            0..=PAGE => Self { bytes, count: PAGE / bytes.max(1), every: PAGE },
            _ if pages - bytes < bytes / 4 => Self { bytes, count: 1, every: pages },
            _ => Self { bytes, count: 1, every: bytes },
        }
    }

    /// Where record `i` begins.
    pub(super) fn start(self, i: usize) -> usize {
        i / self.count * self.every + i % self.count * self.bytes
    }

    /// Bytes of `records` records.
    fn all(self, records: usize) -> usize {
        records.div_ceil(self.count) * self.every
    }
}

/// Bytes of a neuron's gate row, if it has one, `up` row, and part of `down`.
///
/// # Errors
/// If `down` cannot be stored by columns, or neurons are in lanes.
pub(super) fn part_bytes(layer: usize, ffn: &SparseFfn) -> Result<Vec<usize>, Error> {
    let row = |w: &sparse_core::SegmentedMatrix| match w.segments() {
        [one] => Ok(one.row_bytes()),
        _ => Err(fault(
            &format!("blk.{layer}.ffn_up.weight"),
            "has its neurons in lanes: those stay in memory",
        )),
    };
    let mut parts: Vec<usize> =
        ffn.gate().into_iter().chain([ffn.up()]).map(|l| row(l.weight())).collect::<Result<_, _>>()?;
    parts.push(match ffn.down() {
        Down::Neurons(w) => row(w)?,
        Down::Columns(w) => w.layout().column_bytes(),
        Down::Rows(w) if w.format().has_columns() => column_layout(w)?.column_bytes(),
        _ => {
            let name = format!("blk.{layer}.ffn_down.weight");
            return Err(fault(&name, "has a format that cannot be stored neuron by neuron"));
        }
    });
    Ok(parts)
}

pub(super) fn column_layout(w: &sparse_core::Matrix) -> Result<sparse_simd::ColumnLayout, Error> {
    let layout = sparse_simd::ColumnLayout::new(w.format(), w.rows(), w.cols());
    layout.map_err(|e| Error::Ffn(e.into()))
}

/// A file of neuron records.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    pub(super) gguf: Gguf,
    fingerprint: String,
}

impl RecordFile {
    /// Where the records of the model in the file `model` are looked for.
    pub fn beside(model: &Path) -> PathBuf {
        model.with_extension("records.gguf")
    }

    /// Opens the records [beside](Self::beside) the model in the file `model`, if there are some.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn find(model: &Path) -> Result<Option<Self>, Error> {
        let path = Self::beside(model);
        path.exists().then(|| Self::open(path)).transpose()
    }

    /// Opens a file of records.
    ///
    /// # Errors
    /// If it cannot be read, or has no records that this version knows.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let read = || {
            let gguf = Gguf::open(path)?;
            let meta = gguf.metadata();
            match meta.opt_u32("sparse.records.version")? {
                Some(VERSION) => {}
                Some(other) => {
                    let problem = format!("is {other}, but only {VERSION} is known; convert again");
                    return Err(Error::metadata("sparse.records.version", problem));
                }
                None => {
                    let problem = "is missing: this is no file of `sparse convert`";
                    return Err(Error::metadata("sparse.records.version", problem));
                }
            }
            let fingerprint = meta.string("sparse.model.fingerprint")?.to_owned();
            Ok(Self { path: path.to_owned(), gguf, fingerprint })
        };
        read().map_err(|source| Error::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// The records, if they are of the model with this [fingerprint](Model::fingerprint).
    ///
    /// # Errors
    /// If they are of another.
    pub fn check(&self, fingerprint: &str) -> Result<(), Error> {
        match fingerprint == self.fingerprint {
            true => Ok(()),
            false => Err(Error::Records {
                path: self.path.clone(),
                expected: self.fingerprint.clone(),
                found: fingerprint.to_owned(),
            }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives memory back that the system has mapped of the file: records are read, not mapped.
    pub(super) fn release(&self) {
        self.gguf.views().for_each(|view| sparse_gguf::release(view.data));
    }

    /// The bytes of a tensor, which must be as many as that.
    pub(super) fn bytes(&self, name: &str, len: usize) -> Result<&[u8], Error> {
        let data = self.gguf.tensor(name)?.data;
        match data.len() == len {
            true => Ok(data),
            false => Err(fault(name, format!("has {} bytes, expected {len}", data.len()))),
        }
    }

    /// Where the records of a layer begin in the file, if they are as long as expected.
    pub(super) fn start(&self, layer: usize, spacing: Spacing, neurons: usize) -> Result<u64, Error> {
        let name = records(layer);
        self.bytes(&name, spacing.all(neurons))?;
        let (_, range) = self.gguf.location(&name).ok_or_else(|| fault(&name, "is not in a file"))?;
        Ok(range.start as u64)
    }

    /// Which neuron each record of a layer is.
    pub(super) fn order(&self, layer: usize, neurons: usize) -> Result<Vec<u32>, Error> {
        let name = order(layer);
        let bytes = self.bytes(&name, 4 * neurons)?;
        let order: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        sparse_core::check_order(neurons, &order).map_err(|e| fault(&name, e.to_string()))?;
        Ok(order)
    }

    /// Share of the tokens that used each neuron, in the order of the records; `None` if it is not known.
    pub(super) fn heat(&self, layer: usize, neurons: usize) -> Result<Option<Vec<f32>>, Error> {
        let name = heats(layer);
        if self.gguf.info(&name).is_none() {
            return Ok(None);
        }
        let heat = self.gguf.tensor(&name)?.dequantize()?;
        match heat.len() == neurons && heat.iter().all(|heat| (0.0..=1.0).contains(heat)) {
            true => Ok(Some(heat)),
            false => Err(fault(&name, format!("is not a share from 0 to 1 for each of {neurons} neurons"))),
        }
    }

    pub(super) fn factors(&self, layer: usize, len: usize) -> Result<&[u8], Error> {
        self.bytes(&factors(layer), len)
    }
}

fn records(layer: usize) -> String {
    format!("blk.{layer}.ffn_records")
}

fn order(layer: usize) -> String {
    format!("blk.{layer}.ffn_order")
}

fn heats(layer: usize) -> String {
    format!("blk.{layer}.ffn_heat")
}

fn factors(layer: usize) -> String {
    format!("blk.{layer}.ffn_down.factors")
}

/// Writes the records of `model`, opened from its file and not changed since, to `sink`. `heat` is the share of the
/// tokens that used each neuron, layer by layer, if it is known. `progress` is told how many of how many bytes are written,
/// and ends it by an error. Layers that the sink has from an earlier run are passed over.
///
/// # Errors
/// If the model has experts, weights that cannot be stored neuron by neuron, or another number of neurons than of heats; if
/// the sink fails, or as `progress`.
pub fn write_records<S: Sink>(
    model: &Model,
    heat: Option<&[Vec<f32>]>,
    sink: S,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), Error>,
) -> Result<S::Done, Error> {
    let layers = layers(model, heat)?;
    let mut meta = Metadata::new();
    meta.insert("general.architecture", "sparse");
    meta.insert("general.type", "records");
    meta.insert("general.alignment", PAGE as u32);
    meta.insert("sparse.records.version", VERSION);
    meta.insert("sparse.model.fingerprint", model.fingerprint());
    let mut writer = GgufWriter::new(meta);
    for (i, layer) in layers.iter().enumerate() {
        writer.tensor(order(i), &[layer.order.len()], GgmlType::I32)?;
        if layer.heat.is_some() {
            writer.tensor(heats(i), &[layer.order.len()], GgmlType::F32)?;
        }
    }
    for (i, layer) in layers.iter().enumerate() {
        writer.tensor(records(i), &[layer.bytes()], GgmlType::I8)?;
        if let Down::Rows(w) = layer.ffn.down() {
            writer.tensor(factors(i), &[column_layout(w)?.factor_bytes()], GgmlType::I8)?;
        }
    }
    let mut file = writer.start(sink)?;
    for (i, layer) in layers.iter().enumerate() {
        let words: Vec<u8> = layer.order.iter().flat_map(|j| j.to_le_bytes()).collect();
        file.write(&order(i), &words)?;
        if let Some(heat) = layer.heat {
            let sorted: Vec<u8> = layer.order.iter().flat_map(|j| heat[*j as usize].to_le_bytes()).collect();
            file.write(&heats(i), &sorted)?;
        }
    }
    let (mut done, all) = (0, layers.iter().map(|layer| layer.bytes() as u64).sum());
    for (i, layer) in layers.iter().enumerate() {
        let by_rows = matches!(layer.ffn.down(), Down::Rows(_));
        if file.skip(1 + usize::from(by_rows))? {
            done += layer.bytes() as u64;
            progress(done, all)?;
            continue;
        }
        layer.write(i, &mut file, &mut |bytes| {
            done += bytes as u64;
            progress(done, all)
        })?;
        file.checkpoint()?;
    }
    Ok(file.finish()?)
}

/// A layer to be written.
struct LayerRecords<'a> {
    ffn: &'a SparseFfn,
    spacing: Spacing,
    heat: Option<&'a [f32]>,
    /// The neurons in the order of their records.
    order: Vec<u32>,
}

/// What there is to write of `model`.
fn layers<'a>(model: &'a Model, heat: Option<&'a [Vec<f32>]>) -> Result<Vec<LayerRecords<'a>>, Error> {
    let mut layers = Vec::new();
    for (i, layer) in model.feed_forwards().enumerate() {
        let FeedForward::Network(ffn) = layer else {
            let problem = "experts lie together in the model's file already: there is nothing to convert";
            return Err(fault("blk.0.ffn_gate_exps.weight", problem));
        };
        let spacing = Spacing::of(part_bytes(i, ffn)?.iter().sum());
        let mut order: Vec<u32> = (0..ffn.neurons() as u32).collect();
        let heat = heat.and_then(|heat| heat.get(i)).map(Vec::as_slice);
        if let Some(heat) = heat {
            same_len("heats of neurons", ffn.neurons(), heat.len())?;
            order.sort_by(|a, b| heat[*b as usize].total_cmp(&heat[*a as usize]));
        }
        layers.push(LayerRecords { ffn, spacing, heat, order });
    }
    if let Some(heat) = heat {
        same_len("layers of heat", layers.len(), heat.len())?;
    }
    Ok(layers)
}

impl LayerRecords<'_> {
    /// Bytes of all records.
    fn bytes(&self) -> usize {
        self.spacing.all(self.order.len())
    }

    /// Writes the records of layer `i`, and what its columns share. `progress` is told of the bytes of each chunk.
    fn write<S: Sink>(
        &self,
        i: usize,
        file: &mut TensorWriter<S>,
        progress: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self { ffn, spacing, order, .. } = self;
        let columns = match ffn.down() {
            Down::Rows(w) => Some(ColumnMatrix::from_rows(w)?),
            _ => None,
        };
        let per_chunk = (CHUNK / spacing.every).max(1) * spacing.count;
        for chunk in order.chunks(per_chunk) {
            let mut bytes = vec![0; spacing.all(chunk.len())];
            for (r, j) in chunk.iter().enumerate() {
                let record = &mut bytes[spacing.start(r)..][..spacing.bytes];
                fill(ffn, columns.as_ref(), *j as usize, record);
            }
            file.write(&records(i), &bytes)?;
            progress(bytes.len())?;
        }
        if let Some(columns) = &columns {
            let mut bytes = vec![0; columns.layout().factor_bytes()];
            columns.layout().take_factors(columns.storage().bytes(), &mut bytes);
            file.write(&factors(i), &bytes)?;
        }
        Ok(())
    }
}

fn same_len(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    match expected == found {
        true => Ok(()),
        false => Err(sparse_core::Error::Length { what, expected, found }.into()),
    }
}

/// Writes the record of neuron `j`; `columns` is `down` by columns if it is stored by rows.
fn fill(ffn: &SparseFfn, columns: Option<&ColumnMatrix>, j: usize, record: &mut [u8]) {
    let mut rest = record;
    let mut put = |bytes: &[u8]| {
        let (to, after) = core::mem::take(&mut rest).split_at_mut(bytes.len());
        to.copy_from_slice(bytes);
        rest = after;
    };
    let mut row = |w: &sparse_core::SegmentedMatrix| {
        let w = &w.segments()[0];
        put(&w.storage().bytes()[j * w.row_bytes()..][..w.row_bytes()]);
    };
    ffn.gate().into_iter().chain([ffn.up()]).for_each(|linear| row(linear.weight()));
    match (ffn.down(), columns) {
        (Down::Neurons(w), _) => row(w),
        (_, Some(w)) => put(&w.storage().bytes()[w.layout().column(j)]),
        _ => unreachable!("as `part_bytes` has it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_cross_few_pages() {
        let starts = |bytes| (0..4).map(|i| Spacing::of(bytes).start(i)).collect::<Vec<_>>();
        assert_eq!(starts(1500), [0, 1500, 4096, 5596]);
        assert_eq!(starts(3456), [0, 4096, 8192, 12288]);
        assert_eq!(starts(7000), [0, 8192, 16384, 24576]);
        assert_eq!(starts(5000), [0, 5000, 10000, 15000]);
        assert_eq!((Spacing::of(1500).all(3), Spacing::of(5000).all(3)), (8192, 15000));
    }
}
