//! Well-formed files: what is in them, and errors of asking for something else.

use std::sync::Arc;

use sparse_gguf::{Array, Gguf, Metadata, Value};

use crate::raw::Raw;

const TINY: &[u8] = include_bytes!("../golden/tiny.gguf");

fn tiny() -> Gguf {
    Gguf::from_bytes(TINY.to_vec()).unwrap()
}

#[test]
fn a_file_of_the_gguf_package_reads_back() {
    let gguf = tiny();
    let numbers = |v: &[i32]| Array::I32(v.to_vec());
    let expected: [(&str, Value); 19] = [
        ("general.architecture", "tiny".into()),
        ("general.alignment", 64u32.into()),
        ("a.u8", 200u8.into()),
        ("a.i8", (-100i8).into()),
        ("a.u16", 60_000u16.into()),
        ("a.i16", (-30_000i16).into()),
        ("a.u32", 4_000_000_000u32.into()),
        ("a.i32", (-2_000_000_000i32).into()),
        ("a.f32", 0.15625f32.into()),
        ("a.bool", true.into()),
        ("a.string", "naïve ☃".into()),
        ("a.u64", (1u64 << 63).into()),
        ("a.i64", (-1i64 << 62).into()),
        ("a.f64", 0.1f64.into()),
        ("b.strings", vec!["<s>".to_owned(), String::new(), "Ġthe".to_owned()].into()),
        ("b.i32s", vec![1i32, -2, 3].into()),
        ("b.f32s", vec![0.5f32, -1.5].into()),
        ("b.bools", vec![true, false].into()),
        ("b.nested", Array::Array(vec![numbers(&[1, 2]), numbers(&[3])]).into()),
    ];
    let found = gguf.metadata().iter().collect::<Vec<_>>();
    assert_eq!(found, expected.iter().map(|(k, v)| (*k, v)).collect::<Vec<_>>());

    assert_eq!(gguf.version(), 3);
    let tensors =
        gguf.tensors().map(|t| (t.name.as_str(), t.dims.as_slice(), t.ty.name())).collect::<Vec<_>>();
    let dims: [&[usize]; 3] = [&[3], &[64, 4], &[3, 2, 1]];
    assert_eq!(tensors, [("norm", dims[0], "F32"), ("weight", dims[1], "Q8_0"), ("ids", dims[2], "I32")]);
    let weight = gguf.info("weight").unwrap();
    assert_eq!((weight.cols(), weight.rows(), weight.elements(), weight.range().len()), (64, 4, 256, 4 * 68));
    assert!(gguf.tensors().all(|t| t.range().start.is_multiple_of(64)));
    assert_eq!(gguf.tensor("norm").unwrap().dequantize().unwrap(), [1.0, -2.0, 0.5]);
    assert_eq!(gguf.views().next().unwrap().data[..4], 1f32.to_le_bytes());
    assert_eq!(
        format!("{gguf:?}"),
        format!("Gguf {{ version: 3, keys: 19, tensors: 3, bytes: {} }}", TINY.len())
    );
}

#[test]
fn version_2_reads_like_version_3() {
    let mut bytes = TINY.to_vec();
    bytes[4] = 2;
    let gguf = Gguf::from_bytes(bytes).unwrap();
    assert_eq!(gguf.version(), 2);
    assert_eq!(gguf.metadata(), tiny().metadata());
}

#[test]
fn bytes_outlive_the_file_without_a_copy() {
    let gguf = Gguf::from_shared(Arc::new(TINY)).unwrap();
    let (bytes, range) = gguf.shared("norm").unwrap();
    drop(gguf);
    assert_eq!(bytes.as_ref().as_ref().as_ptr(), TINY.as_ptr());
    assert_eq!(bytes.as_ref().as_ref()[range][..4], 1f32.to_le_bytes());
}

#[cfg(feature = "write")]
#[test]
fn files_mapped_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let fails = || {
        let [mapped, read] =
            [Gguf::open(&path), Gguf::read(&path, |_| false)].map(|g| g.unwrap_err().to_string());
        assert_eq!(mapped, read);
        mapped
    };
    assert!(fails().starts_with(&format!("cannot open `{}`: ", path.display())), "{}", fails());
    std::fs::write(&path, "").unwrap();
    assert_eq!(fails(), "truncated gguf file: magic at offset 0 needs 4 bytes, 0 are left");
    std::fs::write(&path, &TINY[..1000]).unwrap();
    assert!(fails().starts_with("truncated gguf file: data of tensor `"), "{}", fails());
    std::fs::write(&path, TINY).unwrap();
    let mapped = Gguf::open(&path).unwrap();
    let read = ["norm", "weight", "all", "none"]
        .map(|apart| (apart, Gguf::read(&path, |t| t.name == apart || apart == "all").unwrap()));
    assert_eq!(mapped.metadata(), tiny().metadata());
    // What was read stays, whatever becomes of the file.
    std::fs::remove_file(&path).unwrap();
    for (apart, read) in read {
        assert_eq!((read.metadata(), read.file_len()), (tiny().metadata(), TINY.len()));
        for (found, expected) in read.views().zip(tiny().views()) {
            assert_eq!((found.info, found.data), (expected.info, expected.data), "{apart} apart");
        }
        // The memory of what was apart is not kept by the rest.
        let [(norm, _), (weight, _)] = ["norm", "weight"].map(|t| read.shared(t).unwrap());
        assert_eq!(Arc::ptr_eq(&norm, &weight), ["all", "none"].contains(&apart), "{apart} apart");
    }
}

#[test]
fn typed_getters_take_what_fits() {
    let gguf = tiny();
    let m = gguf.metadata();
    assert_eq!(m.u32("a.u8").unwrap(), 200);
    assert_eq!(m.u64("a.u64").unwrap(), 1 << 63);
    assert_eq!(m.usize("a.u16").unwrap(), 60_000);
    assert_eq!(m.string("a.string").unwrap(), "naïve ☃");
    assert_eq!(m.f32("a.f32").unwrap(), 0.15625);
    assert!(m.bool("a.bool").unwrap());
    assert_eq!(m.strings("b.strings").unwrap(), ["<s>", "", "Ġthe"]);
    assert_eq!(*m.i32s("b.i32s").unwrap(), [1, -2, 3]);
    assert_eq!(m.f32s("b.f32s").unwrap(), [0.5, -1.5]);

    assert_eq!(m.opt_string("none").unwrap(), None);
    assert_eq!(m.opt_u32("none").unwrap(), None);
    assert_eq!(m.opt_u64("none").unwrap(), None);
    assert_eq!(m.opt_usize("none").unwrap(), None);
    assert_eq!(m.opt_f32("none").unwrap(), None);
    assert_eq!(m.opt_bool("none").unwrap(), None);
    assert_eq!(m.opt_strings("none").unwrap(), None);
    assert_eq!(m.opt_i32s("none").unwrap(), None);
    assert_eq!(m.opt_f32s("none").unwrap(), None);

    let wide = Raw::new(0, 1).text("w").u32(9).u32(11).u64(2).u64(u64::MAX).u64(7).0;
    let gguf = Gguf::from_bytes(wide).unwrap();
    assert_eq!(*gguf.metadata().i32s("w").unwrap(), [-1, 7]);
}

#[test]
fn an_array_of_equal_entries_is_a_number() {
    let mut m = Metadata::new();
    m.insert("heads", vec![2i32, 2, 2]);
    m.insert("wide", vec![u64::MAX]);
    m.insert("base", vec![0.5f32, 0.5]);
    m.insert("flags", vec![true, true]);
    assert_eq!((m.u32("heads").unwrap(), m.usize("heads").unwrap()), (2, 2));
    assert_eq!(m.opt_u64("wide").unwrap(), Some(u64::MAX));
    assert_eq!(m.f32("base").unwrap(), 0.5);
    assert!(m.bool("flags").unwrap());
    // It is an array, too.
    assert_eq!(*m.i32s("heads").unwrap(), [2, 2, 2]);
}

#[test]
fn labels_that_are_not_utf8_or_end_in_nul_are_read() {
    let bytes = Raw::new(1, 6)
        .text(b"k\xff")
        .u32(8)
        .text(b"\xa9 2023 ACME")
        .text("general.name\0")
        .u32(8)
        .text("padded\0\0")
        .text("general.tags")
        .u32(9)
        .u32(8)
        .u64(2)
        .text(b"caf\xe9")
        .text("plain")
        .text("tokenizer.ggml.model")
        .u32(8)
        .text("llama\0")
        // Terminated strings.
        .text("tokenizer.ggml.tokens")
        .u32(9)
        .u32(8)
        .u64(2)
        .text("a\0")
        .text("b\0")
        // Here the NUL is a token.
        .text("tokenizer.ggml.merges")
        .u32(9)
        .u32(8)
        .u64(2)
        .text("a b")
        .text("c \0")
        .tensor("weight\0", &[1], 0, 0)
        .data(32, 4);
    let gguf = Gguf::from_bytes(bytes.0).unwrap();
    let m = gguf.metadata();
    assert_eq!(m.string("k\u{fffd}").unwrap(), "\u{fffd} 2023 ACME");
    assert_eq!(m.string("general.name").unwrap(), "padded");
    assert_eq!(m.strings("general.tags").unwrap(), ["caf\u{fffd}", "plain"]);
    assert_eq!(m.string("tokenizer.ggml.model").unwrap(), "llama");
    assert_eq!(m.strings("tokenizer.ggml.tokens").unwrap(), ["a", "b"]);
    assert_eq!(m.strings("tokenizer.ggml.merges").unwrap(), ["a b", "c \0"]);
    assert_eq!(gguf.tensor("weight").unwrap().data.len(), 4);
}

#[test]
fn typed_getters_name_key_and_types() {
    let mut m = tiny().metadata().clone();
    m.insert("wide", vec![1u64, 1 << 31]);
    m.insert("none of them", Vec::<u32>::new());
    m.insert("too large", vec![1u64 << 40; 2]);
    m.insert("nan", vec![f32::NAN; 2]);
    m.insert("nested", Array::Array(vec![Array::U32(vec![1]); 2]));
    let cases = [
        (m.u32("none").unwrap_err(), "metadata key `none` is missing"),
        (
            m.u32("b.i32s").unwrap_err(),
            "metadata key `b.i32s` has type array of i32 with different entries, expected u32",
        ),
        (
            m.u32("b.f32s").unwrap_err(),
            "metadata key `b.f32s` has type array of f32 with different entries, expected u32",
        ),
        (
            m.u32("none of them").unwrap_err(),
            "metadata key `none of them` has type array of u32, expected u32",
        ),
        (
            m.u32("too large").unwrap_err(),
            "metadata key `too large` is 1099511627776, which does not fit u32",
        ),
        (
            m.f32("nan").unwrap_err(),
            "metadata key `nan` has type array of f32 with different entries, expected f32",
        ),
        (m.u32("nested").unwrap_err(), "metadata key `nested` has type array of array, expected u32"),
        (m.strings("none").unwrap_err(), "metadata key `none` is missing"),
        (m.u32("a.u64").unwrap_err(), "metadata key `a.u64` is 9223372036854775808, which does not fit u32"),
        (m.usize("a.i8").unwrap_err(), "metadata key `a.i8` is -100, which does not fit usize"),
        (m.opt_u64("a.f32").unwrap_err(), "metadata key `a.f32` has type f32, expected u64"),
        (m.u32("a.bool").unwrap_err(), "metadata key `a.bool` has type bool, expected u32"),
        (m.f32("a.f64").unwrap_err(), "metadata key `a.f64` has type f64, expected f32"),
        (m.bool("a.u8").unwrap_err(), "metadata key `a.u8` has type u8, expected bool"),
        (
            m.string("b.strings").unwrap_err(),
            "metadata key `b.strings` has type array of string, expected string",
        ),
        (
            m.strings("b.i32s").unwrap_err(),
            "metadata key `b.i32s` has type array of i32, expected array of string",
        ),
        (m.i32s("b.f32s").unwrap_err(), "metadata key `b.f32s` has type array of f32, expected array of i32"),
        (m.i32s("a.i32").unwrap_err(), "metadata key `a.i32` has type i32, expected array of i32"),
        (m.i32s("wide").unwrap_err(), "metadata key `wide` is 2147483648, which does not fit array of i32"),
        (
            m.f32s("b.nested").unwrap_err(),
            "metadata key `b.nested` has type array of array, expected array of f32",
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error.to_string(), expected);
    }
    let error = tiny().tensor("blk.0.attn_q.weight").unwrap_err();
    assert_eq!(error.to_string(), "tensor `blk.0.attn_q.weight` is missing");
}

#[test]
fn values_show_themselves_briefly() {
    let m = tiny().metadata().clone();
    let shown = ["a.i8", "a.string", "b.strings", "b.nested"].map(|key| m.get(key).unwrap().to_string());
    assert_eq!(shown, ["-100", "\"naïve ☃\"", "[\"<s>\", \"\", \"Ġthe\"]", "[[1, 2], [3]]"]);
    assert_eq!(Value::from((0..9u32).collect::<Vec<_>>()).to_string(), "[0, 1, 2, 3, 4, 5, ... 9 in all]");
}

#[test]
fn tensors_may_be_empty_scalar_or_apart() {
    let bytes = Raw::new(4, 0)
        .tensor("last", &[2], 0, 64)
        .tensor("scalar", &[], 26, 32)
        .tensor("empty", &[32, 0], 2, 32)
        .tensor("first", &[4], 24, 0)
        .data(32, 72);
    let gguf = Gguf::from_bytes(bytes.0).unwrap();
    let lengths = ["first", "empty", "scalar", "last"].map(|name| gguf.tensor(name).unwrap().data.len());
    assert_eq!(lengths, [4, 0, 4, 8]);
    assert_eq!(gguf.info("scalar").unwrap().elements(), 1);
    assert!(gguf.tensor("empty").unwrap().dequantize().unwrap().is_empty());
}

#[test]
fn types_of_unknown_size_are_listed_and_refused() {
    let bytes = Raw::new(4, 0)
        .tensor("future", &[5], 99, 0)
        .tensor("removed", &[32], 31, 32)
        .tensor("known", &[2], 0, 96)
        .tensor("unsupported", &[256], 15, 128)
        .data(32, 128 + 292);
    let gguf = Gguf::from_bytes(bytes.0).unwrap();
    // Up to the next tensor, where the type does not say.
    assert_eq!(gguf.tensors().map(|t| t.range().len()).collect::<Vec<_>>(), [32, 64, 8, 292]);
    let refused = ["future", "removed", "unsupported"]
        .map(|name| gguf.tensor(name).unwrap().dequantize().unwrap_err().to_string());
    assert_eq!(
        refused,
        [
            "tensor `future` has type unknown type 99, which is not supported",
            "tensor `removed` has type Q4_0_4_4 (removed from ggml), which is not supported",
            "tensor `unsupported` has type Q8_K, which is not supported",
        ]
    );
}
