//! Reading: the header of a file, checked against the bytes that are there.
//!
//! The layout is the one of the GGUF specification (`docs/gguf.md` in the ggml repository) and `gguf.h`.

use std::collections::HashMap;

use crate::cursor::Cursor;
use crate::tensor::byte_len;
use crate::value::read_type;
use crate::{Error, GgmlType, Metadata, TensorInfo, Value};

/// The first four bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The magic of PowerInfer's files, which are GGUF files otherwise.
const POWERINFER: [u8; 4] = *b"PWRI";

/// ggml's limit on the dimensions of a tensor.
pub(crate) const MAX_DIMS: u32 = 4;

/// What the keys of a tokenizer begin with.
const TOKENIZER: &str = "tokenizer.";

/// Bytes of the shortest key-value pair: a key of one letter and a value of one byte.
const MIN_PAIR_BYTES: usize = 8 + 1 + 4 + 1;

/// Bytes of the shortest tensor entry: an empty name, no dimensions, type and offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// Everything before the tensor data.
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) by_name: HashMap<String, usize>,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut c = Cursor::new(bytes);
        let version = read_version(&mut c)?;
        let tensor_count = c.u64(format_args!("tensor count"))?;
        let pair_count = c.u64(format_args!("metadata key count"))?;
        let metadata = read_metadata(&mut c, pair_count)?;
        let alignment = metadata.alignment()?;

        c.expect(tensor_count, MIN_TENSOR_BYTES, format_args!("table of {tensor_count} tensors"))?;
        let mut entries = Vec::new();
        let mut by_name = HashMap::new();
        for i in 0..tensor_count {
            let entry = Entry::read(&mut c, i)?;
            if by_name.insert(entry.name.clone(), entries.len()).is_some() {
                return Err(Error::DuplicateTensor { tensor: entry.name });
            }
            entries.push(entry);
        }
        // Without tensors nothing has to be padded.
        if !entries.is_empty() {
            let padding = c.pos().wrapping_neg() % alignment;
            c.take(padding as u64, format_args!("padding before the tensor data"))?;
        }
        let data_start = c.pos();
        let tensors = place(entries, data_start, bytes.len(), alignment)?;
        Ok(Self { version, metadata, tensors, by_name })
    }
}

fn read_version(c: &mut Cursor<'_>) -> Result<u32, Error> {
    let found = c.array(format_args!("magic"))?;
    if found != MAGIC && found != POWERINFER {
        return Err(Error::BadMagic { found });
    }
    let version = c.u32(format_args!("version"))?;
    match version {
        2 | 3 => Ok(version),
        // The bytes of a small number in the other order.
        _ if version & 0xffff == 0 && version != 0 => Err(Error::BigEndian { version: version.swap_bytes() }),
        _ => Err(Error::UnsupportedVersion { version }),
    }
}

fn read_metadata(c: &mut Cursor<'_>, count: u64) -> Result<Metadata, Error> {
    c.expect(count, MIN_PAIR_BYTES, format_args!("table of {count} metadata keys"))?;
    let mut metadata = Metadata::new();
    for index in 0..count {
        c.set_lossy(true);
        let key = c.name(format_args!("metadata key {index}"))?;
        if key.is_empty() {
            return Err(Error::EmptyKey { index });
        }
        // Most texts are labels for people. Those of a tokenizer decide what the model computes.
        c.set_lossy(!key.starts_with(TOKENIZER));
        let ty = read_type(c, format_args!("value type of metadata key `{key}`"))?;
        let mut value = Value::read(c, ty, format_args!("value of metadata key `{key}`"))?;
        value.trim_nul();
        if metadata.get(&key).is_some() {
            return Err(Error::DuplicateKey { key });
        }
        metadata.insert(key, value);
    }
    c.set_lossy(false);
    Ok(metadata)
}

/// A tensor as the file describes it, before its place is checked.
struct Entry {
    name: String,
    dims: Vec<usize>,
    ty: GgmlType,
    /// From the start of the data section.
    offset: u64,
    /// Bytes of data, where the type's size is known.
    len: Option<usize>,
}

impl Entry {
    fn read(c: &mut Cursor<'_>, index: u64) -> Result<Self, Error> {
        let name = c.name(format_args!("name of tensor {index}"))?;
        let at = c.pos() as u64;
        let count = c.u32(format_args!("dimension count of tensor `{name}`"))?;
        if count > MAX_DIMS {
            return Err(Error::Invalid {
                what: format!("dimension count of tensor `{name}`"),
                offset: at,
                found: count.into(),
                expected: "at most 4",
            });
        }
        let dims = (0..count)
            .map(|_| c.u64(format_args!("dimensions of tensor `{name}`")))
            .collect::<Result<Vec<_>, _>>()?;
        let ty = GgmlType::from_id(c.u32(format_args!("type of tensor `{name}`"))?);
        let offset = c.u64(format_args!("data offset of tensor `{name}`"))?;

        let in_memory = dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>();
        let dims = in_memory.ok_or_else(|| Error::too_large(&name, dims))?;
        let len = byte_len(&name, &dims, ty)?;
        Ok(Self { name, dims, ty, offset, len })
    }
}

/// Gives every tensor its range in the file: aligned, inside the file, apart from all others.
fn place(
    entries: Vec<Entry>,
    data_start: usize,
    file_len: usize,
    alignment: usize,
) -> Result<Vec<TensorInfo>, Error> {
    let mut tensors = Vec::with_capacity(entries.len());
    for e in entries {
        if !e.offset.is_multiple_of(alignment as u64) {
            return Err(Error::MisalignedTensor { tensor: e.name, offset: e.offset, alignment });
        }
        let start = (data_start as u64).saturating_add(e.offset);
        let left = (file_len as u64).saturating_sub(start);
        let needed = e.len.unwrap_or(0) as u64;
        if start > file_len as u64 || needed > left {
            let what = format!("data of tensor `{}`", e.name);
            return Err(Error::Truncated { what, offset: start, needed, left });
        }
        // Both ends lie inside the file, so they fit usize.
        let start = start as usize;
        let end = e.len.map_or(usize::MAX, |len| start + len);
        tensors.push(TensorInfo { name: e.name, dims: e.dims, ty: e.ty, range: start..end, part: 0 });
    }

    // By start, so that neighbors in the list are neighbors in the file. Empty tensors take no place.
    let mut order = (0..tensors.len()).filter(|&i| !tensors[i].range.is_empty()).collect::<Vec<_>>();
    order.sort_by_key(|&i| (tensors[i].range.start, tensors[i].range.end));
    for (k, &i) in order.iter().enumerate() {
        let next = order.get(k + 1).map(|&j| &tensors[j]);
        let limit = next.map_or(file_len, |t| t.range.start);
        if tensors[i].range.end == usize::MAX {
            tensors[i].range.end = limit;
        } else if let Some(next) = next
            && tensors[i].range.end > limit
        {
            return Err(Error::OverlappingTensors {
                first: tensors[i].name.clone(),
                second: next.name.clone(),
                offset: limit as u64,
            });
        }
    }
    Ok(tensors)
}
