//! Models in several parts, in memory.

use std::sync::Arc;

use sparse_gguf::{Gguf, GgufWriter, Metadata, SharedBytes};

pub(crate) const TINY: &[u8] = include_bytes!("../golden/tiny.gguf");

/// The tensors of [`TINY`] in its order.
pub(crate) const TENSORS: [&str; 3] = ["norm", "weight", "ids"];

/// A part of the model in [`TINY`] with these tensors. The first part has the metadata.
pub(crate) fn part(index: u16, count: u16, tensors: &[&str], edit: impl FnOnce(&mut Metadata)) -> Vec<u8> {
    let whole = Gguf::from_bytes(TINY.to_vec()).unwrap();
    let mut metadata = if index == 0 { whole.metadata().clone() } else { Metadata::new() };
    metadata.insert("split.no", index);
    metadata.insert("split.count", count);
    metadata.insert("split.tensors.count", TENSORS.len() as i32);
    edit(&mut metadata);
    let mut writer = GgufWriter::new(metadata);
    let views = || tensors.iter().map(|name| whole.tensor(name).unwrap());
    for tensor in views() {
        writer.tensor(&tensor.info.name, &tensor.info.dims, tensor.info.ty).unwrap();
    }
    let mut out = writer.start(Vec::new()).unwrap();
    for tensor in views() {
        out.write(&tensor.info.name, tensor.data).unwrap();
    }
    out.finish().unwrap()
}

/// The model in three parts, the first of which has no tensors.
pub(crate) fn three() -> [Vec<u8>; 3] {
    [part(0, 3, &[], |_| {}), part(1, 3, &TENSORS[..2], |_| {}), part(2, 3, &TENSORS[2..], |_| {})]
}

pub(crate) fn same_as_whole(found: &Gguf) {
    let whole = Gguf::from_bytes(TINY.to_vec()).unwrap();
    assert_eq!(found.metadata(), whole.metadata());
    assert_eq!(found.tensors().len(), 3);
    for (found, expected) in found.views().zip(whole.views()) {
        assert_eq!((&found.info.name, found.data), (&expected.info.name, expected.data));
        assert_eq!((&found.info.dims, found.info.ty), (&expected.info.dims, expected.info.ty));
    }
    // A copy of it is one whole file.
    assert!(crate::writing::rewritten(found) == TINY);
}

#[test]
fn one_part_of_one_is_a_whole_file() {
    for count in [0, 1] {
        let bytes = part(0, count, &TENSORS, |_| {});
        let gguf = Gguf::from_bytes(bytes.clone()).unwrap();
        assert_eq!((gguf.parts(), gguf.tensors().len()), (1, 3));
        assert!(crate::writing::rewritten(&gguf) == bytes);
    }
}

#[test]
fn parts_in_any_order_are_the_whole() {
    let [a, b, c] = three().map(|bytes| Arc::new(bytes) as SharedBytes);
    same_as_whole(&Gguf::from_parts([c, a, b]).unwrap());
}

#[test]
fn parts_that_are_not_there_are_counted() {
    let [first, second, _] = three();
    let error = Gguf::from_bytes(second.clone()).unwrap_err().to_string();
    assert!(error.starts_with("1 of 3 parts of a model given, expected all"), "{error}");
    let two = [first, second].map(|bytes| Arc::new(bytes) as SharedBytes);
    assert!(Gguf::from_parts(two).unwrap_err().to_string().starts_with("2 of 3 parts"));
    assert!(Gguf::from_parts([]).is_err());
}
