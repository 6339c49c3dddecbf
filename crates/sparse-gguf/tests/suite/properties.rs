//! Properties over random files and values.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use sparse_gguf::{Array, BlockFormat, GgmlType, Gguf, GgufWriter, Metadata, SharedBytes, Value, quantize};

use crate::writing::rewritten;

const TINY: &[u8] = include_bytes!("../golden/tiny.gguf");

/// Text as it reads back: NULs at the end are dropped.
fn text() -> impl Strategy<Value = String> {
    ".{0,12}".prop_map(|text| text.trim_end_matches('\0').to_owned())
}

fn array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        vec(any::<u8>(), 0..5).prop_map(Array::U8),
        vec(any::<i8>(), 0..5).prop_map(Array::I8),
        vec(any::<u16>(), 0..5).prop_map(Array::U16),
        vec(any::<i16>(), 0..5).prop_map(Array::I16),
        vec(any::<u32>(), 0..5).prop_map(Array::U32),
        vec(any::<i32>(), 0..5).prop_map(Array::I32),
        vec(any::<f32>(), 0..5).prop_map(Array::F32),
        vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        vec(text(), 0..5).prop_map(Array::String),
        vec(any::<u64>(), 0..5).prop_map(Array::U64),
        vec(any::<i64>(), 0..5).prop_map(Array::I64),
        vec(any::<f64>(), 0..5).prop_map(Array::F64),
    ];
    // Of the eight levels that are read, one is the value itself and one the flat array.
    flat.prop_recursive(3, 16, 3, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        text().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        array().prop_map(Value::from),
    ]
}

/// A tensor's type, dimensions and data.
fn tensor() -> impl Strategy<Value = (GgmlType, Vec<usize>, Vec<u8>)> {
    let sized = GgmlType::ALL.iter().copied().filter(|ty| ty.block().is_some()).collect::<Vec<_>>();
    (proptest::sample::select(sized), 0usize..3, vec(0usize..3, 0..3)).prop_flat_map(|(ty, blocks, outer)| {
        let (len, bytes) = ty.block().unwrap();
        let size = blocks * bytes * outer.iter().product::<usize>();
        let dims = std::iter::once(blocks * len).chain(outer).collect::<Vec<_>>();
        (Just(ty), Just(dims), vec(any::<u8>(), size))
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        pairs in vec(("[a-z.]{1,12}", value()), 0..6),
        alignment in proptest::option::of(3u32..9),
        tensors in vec(tensor(), 0..5),
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in pairs {
            metadata.insert(key, value);
        }
        if let Some(log) = alignment {
            metadata.insert("general.alignment", 1u32 << log);
        }
        let mut writer = GgufWriter::new(metadata.clone());
        for (i, (ty, dims, _)) in tensors.iter().enumerate() {
            writer.tensor(format!("tensor {i}"), dims, *ty).unwrap();
        }
        let mut out = writer.start(Vec::new()).unwrap();
        for (i, (_, _, data)) in tensors.iter().enumerate() {
            out.write(&format!("tensor {i}"), data).unwrap();
        }
        let bytes = out.finish().unwrap();

        let gguf = Gguf::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(gguf.metadata(), &metadata);
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (i, (ty, dims, data)) in tensors.iter().enumerate() {
            let found = gguf.tensor(&format!("tensor {i}")).unwrap();
            prop_assert_eq!((&found.info.ty, &found.info.dims, found.data), (ty, dims, data.as_slice()));
        }
        prop_assert_eq!(rewritten(&gguf), bytes);
    }

    #[test]
    fn damaged_files_never_panic(
        edits in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = TINY.to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Whatever was read can be read from and written again.
        if let Ok(gguf) = Gguf::from_bytes(bytes) {
            for tensor in gguf.tensors() {
                let view = gguf.tensor(&tensor.name).unwrap();
                prop_assert_eq!(view.dequantize().is_ok(), tensor.ty.format().is_some());
            }
            let again = Gguf::from_bytes(rewritten(&gguf)).unwrap();
            prop_assert_eq!(again.tensors().len(), gguf.tensors().len());
        }
    }

    #[test]
    fn damaged_parts_never_panic(
        split in (0u64..6, 0u64..6, 0u64..6),
        edits in vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut parts = crate::parts::three();
        let mut metadata = Metadata::new();
        for (key, value) in [("split.no", split.0), ("split.count", split.1), ("split.tensors.count", split.2)] {
            metadata.insert(key, value);
        }
        parts[2] = GgufWriter::new(metadata).start(Vec::new()).unwrap().finish().unwrap();
        for (at, byte) in edits {
            let at = at.index(parts[1].len());
            parts[1][at] = byte;
        }
        let parts = parts.map(|bytes| Arc::new(bytes) as SharedBytes);
        if let Ok(gguf) = Gguf::from_parts(parts) {
            prop_assert_eq!(gguf.views().map(|t| t.data.len()).sum::<usize>(), gguf.tensors().map(|t| t.range().len()).sum::<usize>());
        }
    }

    #[test]
    fn quantizing_errs_by_at_most_the_step(
        x in vec(-1.0f32..1.0, 64),
        log in -6i32..7,
    ) {
        let x = x.into_iter().map(|v| v * 4f32.powi(log)).collect::<Vec<_>>();
        for (block, x) in x.chunks_exact(32).enumerate() {
            let (min, max) = x.iter().fold((0.0f32, 0.0f32), |(a, b), v| (a.min(*v), b.max(*v)));
            let (top, range) = (max.max(-min), max - min);
            // Symmetric formats have no code for the opposite of the extreme, so they err by a whole step there;
            // the others by half a step. Rounding scale and minimum to half precision adds 2^-11 of each.
            let half = (top + range) / 2048.0;
            let bounds = [
                (BlockFormat::F32, 0.0),
                (BlockFormat::F16, top / 2048.0),
                (BlockFormat::Bf16, top / 256.0),
                (BlockFormat::Q4_0, top / 8.0 + half),
                (BlockFormat::Q4_1, range / 30.0 + half),
                (BlockFormat::Q5_0, top / 16.0 + half),
                (BlockFormat::Q5_1, range / 62.0 + half),
                (BlockFormat::Q8_0, top / 254.0 + half),
            ];
            for (format, bound) in bounds {
                let mut y = [0.0; 32];
                format.decode(&quantize(format, x).unwrap(), &mut y).unwrap();
                // Half precision's smallest step, times the largest code, for scales that are subnormal.
                let bound = bound * 1.001 + 127.0 * 2f32.powi(-25) * f32::from(bound > 0.0);
                for (i, (x, y)) in x.iter().zip(y).enumerate() {
                    prop_assert!(
                        (x - y).abs() <= bound,
                        "{} value {}: {x} became {y}, bound {bound}", format.name(), block * 32 + i
                    );
                }
            }
        }
    }
}
