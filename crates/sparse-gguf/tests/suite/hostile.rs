//! Files that are cut short, or lie: an error that names the thing, and nothing else.

use sparse_gguf::{Error, Gguf};

use crate::raw::Raw;

const TINY: &[u8] = include_bytes!("../golden/tiny.gguf");

fn message(bytes: &[u8]) -> String {
    Gguf::from_bytes(bytes.to_vec()).expect_err("a bad file").to_string()
}

#[test]
fn every_cut_is_an_error_that_says_what_was_being_read() {
    let whole = Gguf::from_bytes(TINY.to_vec()).unwrap();
    let end = whole.tensors().map(|t| t.range().end).max().unwrap();
    for cut in 0..end {
        match Gguf::from_bytes(TINY[..cut].to_vec()) {
            Err(Error::Truncated { what, offset, needed, left }) => {
                assert!(!what.is_empty() && needed > left, "cut at {cut}: {what} {needed} {left}");
                assert_eq!(offset.saturating_add(left), offset.max(cut as u64), "cut at {cut}: {what}");
            }
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    assert!(Gguf::from_bytes(TINY[..end].to_vec()).is_ok());
}

#[test]
fn cuts_name_the_key_or_tensor() {
    const NAME: &str = "blk.0.ffn_gate.weight";
    let keys =
        Raw::new(0, 2).text("text").u32(8).text("some words").text("list").u32(9).u32(6).u64(1).u32(0).0;
    let tensor = Raw::new(1, 0).tensor(NAME, &[64, 4], 8, 0).data(32, 272).0;
    let cases = [
        (&keys, 3, "magic at offset 0 needs 4 bytes, 3 are left"),
        (&keys, 7, "version at offset 4 needs 4 bytes, 3 are left"),
        (&keys, 15, "tensor count at offset 8 needs 8 bytes, 7 are left"),
        (&keys, 23, "metadata key count at offset 16 needs 8 bytes, 7 are left"),
        (&keys, 51, "table of 2 metadata keys at offset 24 needs 28 bytes, 27 are left"),
        (&keys, 52, "value of metadata key `text` at offset 48 needs 10 bytes, 4 are left"),
        (&keys, 65, "length of metadata key 1 at offset 58 needs 8 bytes, 7 are left"),
        (&keys, 69, "metadata key 1 at offset 66 needs 4 bytes, 3 are left"),
        (&keys, 70, "value type of metadata key `list` at offset 70 needs 4 bytes, 0 are left"),
        (&keys, 77, "item type of value of metadata key `list` at offset 74 needs 4 bytes, 3 are left"),
        (&keys, 84, "length of value of metadata key `list` at offset 78 needs 8 bytes, 6 are left"),
        (&keys, 88, "value of metadata key `list` at offset 86 needs 4 bytes, 2 are left"),
        (&tensor, 47, "table of 1 tensors at offset 24 needs 24 bytes, 23 are left"),
        (&tensor, 50, "name of tensor 0 at offset 32 needs 21 bytes, 18 are left"),
        (
            &tensor,
            54,
            "dimension count of tensor `blk.0.ffn_gate.weight` at offset 53 needs 4 bytes, 1 are left",
        ),
        (&tensor, 70, "dimensions of tensor `blk.0.ffn_gate.weight` at offset 65 needs 8 bytes, 5 are left"),
        (&tensor, 76, "type of tensor `blk.0.ffn_gate.weight` at offset 73 needs 4 bytes, 3 are left"),
        (&tensor, 80, "data offset of tensor `blk.0.ffn_gate.weight` at offset 77 needs 8 bytes, 3 are left"),
        (&tensor, 90, "padding before the tensor data at offset 85 needs 11 bytes, 5 are left"),
        (&tensor, 367, "data of tensor `blk.0.ffn_gate.weight` at offset 96 needs 272 bytes, 271 are left"),
    ];
    for (bytes, cut, expected) in cases {
        assert_eq!(message(&bytes[..cut]), format!("truncated gguf file: {expected}"));
    }
    assert!(Gguf::from_bytes(keys).is_ok() && Gguf::from_bytes(tensor).is_ok());
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    let versions = |v: u32| message(&Raw(b"GGUF".to_vec()).u32(v).u64(0).u64(0).0);
    let cases = [
        (message(b"PK\x03\x04zip"), "not a gguf file: starts with \"PK\\x03\\x04\", expected \"GGUF\""),
        (
            versions(1),
            "unsupported gguf version 1: only versions 2 and 3 are read (version 1 has 32-bit lengths; convert \
             the model again)",
        ),
        (versions(4), "unsupported gguf version 4: only versions 2 and 3 are read"),
        (versions(0), "unsupported gguf version 0: only versions 2 and 3 are read"),
        (versions(3u32.swap_bytes()), "big-endian gguf file (version 3): only little-endian files are read"),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn numbers_that_cannot_be_true_are_refused_by_name() {
    let pair = |key: &str| Raw::new(0, 1).text(key);
    let array = |ty: u32, len: u64| pair("k").u32(9).u32(ty).u64(len);
    let one = |dims: &[u64], ty: u32, offset: u64| Raw::new(1, 0).tensor("t", dims, ty, offset).data(32, 64);
    let max = u64::MAX;
    let cases = [
        // Counts and lengths far beyond the file.
        (
            Raw::new(1 << 40, 0),
            "table of 1099511627776 tensors at offset 24 needs 26388279066624 bytes, 0 are left",
        ),
        (
            Raw::new(max, 0),
            "table of 18446744073709551615 tensors at offset 24 needs 18446744073709551615 bytes",
        ),
        (
            Raw::new(0, 1 << 40),
            "table of 1099511627776 metadata keys at offset 24 needs 15393162788864 bytes",
        ),
        (
            Raw::new(0, 1).u64(1 << 63).bytes(&[0; 32]),
            "metadata key 0 at offset 32 needs 9223372036854775808 bytes",
        ),
        (
            pair("k").u32(8).u64(1 << 63),
            "value of metadata key `k` at offset 45 needs 9223372036854775808 bytes",
        ),
        (
            array(8, 1 << 60),
            "value of metadata key `k` at offset 49 needs 9223372036854775808 bytes, 0 are left",
        ),
        (
            array(0, 1 << 60),
            "value of metadata key `k` at offset 49 needs 1152921504606846976 bytes, 0 are left",
        ),
        (
            array(12, max),
            "value of metadata key `k` at offset 49 needs 18446744073709551615 bytes, 0 are left",
        ),
        (
            array(9, 1 << 60).u32(4).u64(0),
            "value of metadata key `k` at offset 49 needs 13835058055282163712 bytes",
        ),
        (
            array(9, 1).u32(4).u64(1 << 60),
            "value of metadata key `k` at offset 61 needs 4611686018427387904 bytes",
        ),
        (
            Raw::new(1, 0).u64(max).bytes(&[0; 32]),
            "name of tensor 0 at offset 32 needs 18446744073709551615 bytes",
        ),
        // Types that do not exist.
        (
            pair("k").u32(13).u64(0),
            "value type of metadata key `k` at offset 33 is 13, expected one of the value types 0 to 12",
        ),
        (
            array(77, 0),
            "item type of value of metadata key `k` at offset 37 is 77, expected one of the value types 0 to 12",
        ),
        (
            pair("k").u32(7).bytes(&[2]),
            "value of metadata key `k` at offset 37 is 2, expected 0 or 1, being a bool",
        ),
        (
            (0..20).fold(array(9, 1), |raw, _| raw.u32(9).u64(1)),
            "item type of value of metadata key `k` at offset 121 is 9, expected no array, at this depth of nesting",
        ),
        // Text that must be exact.
        (
            pair("tokenizer.k").u32(8).text(b"ab\xc3"),
            "value of metadata key `tokenizer.k` at offset 55 is not valid utf-8 (from its byte 2 on)",
        ),
        (
            pair("tokenizer.k").u32(9).u32(8).u64(2).text("fine").text(b"\xf0\x9f"),
            "value of metadata key `tokenizer.k` at offset 79 is not valid utf-8 (from its byte 0 on)",
        ),
        (
            Raw::new(1, 0).text(b"\x80").bytes(&[0; 16]),
            "name of tensor 0 at offset 32 is not valid utf-8 (from its byte 0 on)",
        ),
        (pair("").u32(0).bytes(&[0; 2]), "metadata key 0 is empty"),
        (pair("\0").u32(0).bytes(&[0; 2]), "metadata key 0 is empty"),
        // Twice.
        (
            Raw::new(0, 2).text("k").u32(0).bytes(&[1]).text("k\0").u32(0).bytes(&[1]),
            "metadata key `k` occurs twice",
        ),
        (
            Raw::new(2, 0).tensor("t", &[1], 0, 0).tensor("t\0", &[1], 0, 32).data(32, 64),
            "tensor `t` occurs twice",
        ),
        (
            Raw::new(0, 2).text("k").u32(0).bytes(&[1]).text("k").u32(7).bytes(&[1]),
            "metadata key `k` occurs twice",
        ),
        (
            Raw::new(2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32).data(32, 64),
            "tensor `t` occurs twice",
        ),
        // Alignment.
        (
            pair("general.alignment").u32(4).u32(0),
            "metadata key `general.alignment` is 0, expected a power of two that is a multiple of 8",
        ),
        (
            pair("general.alignment").u32(4).u32(24),
            "metadata key `general.alignment` is 24, expected a power of two",
        ),
        (
            pair("general.alignment").u32(4).u32(4),
            "metadata key `general.alignment` is 4, expected a power of two",
        ),
        // An array is no alignment, even one of equal entries.
        (
            pair("general.alignment").u32(9).u32(4).u64(2).u32(64).u32(64),
            "metadata key `general.alignment` has type array of u32, expected u32",
        ),
        (
            pair("general.alignment").u32(8).text("32"),
            "metadata key `general.alignment` has type string, expected u32",
        ),
        (
            Raw::new(1, 1).text("general.alignment").u32(4).u32(1 << 31).tensor("t", &[0], 0, 0),
            "padding before the tensor data at offset 90 needs 2147483558 bytes, 0 are left",
        ),
        // Shapes.
        (one(&[1, 1, 1, 1, 1], 0, 0), "dimension count of tensor `t` at offset 33 is 5, expected at most 4"),
        (
            one(&[1 << 32, 1 << 32], 0, 0),
            "tensor `t` of dimensions [4294967296, 4294967296] is too large for this machine's address space",
        ),
        (
            one(&[1 << 62], 0, 0),
            "tensor `t` of dimensions [4611686018427387904] is too large for this machine's address space",
        ),
        (
            one(&[0, max, max], 0, 0),
            "tensor `t` of dimensions [0, 18446744073709551615, 18446744073709551615] is too large",
        ),
        (one(&[33], 2, 0), "tensor `t` has rows of 33 values, expected a multiple of 32 (Q4_0 blocks)"),
        (one(&[128], 12, 0), "tensor `t` has rows of 128 values, expected a multiple of 256 (Q4_K blocks)"),
        (one(&[], 2, 0), "tensor `t` has rows of 1 values, expected a multiple of 32 (Q4_0 blocks)"),
        // Places.
        (one(&[1], 0, 16), "tensor `t` has data offset 16, expected a multiple of the alignment 32"),
        (one(&[1], 0, 64), "data of tensor `t` at offset 128 needs 4 bytes, 0 are left"),
        (one(&[0], 0, 96), "data of tensor `t` at offset 160 needs 0 bytes, 0 are left"),
        (
            one(&[1], 0, max - 31),
            "data of tensor `t` at offset 18446744073709551615 needs 4 bytes, 0 are left",
        ),
        (one(&[17], 0, 0), "data of tensor `t` at offset 64 needs 68 bytes, 64 are left"),
        (
            Raw::new(2, 0).tensor("a", &[9], 0, 0).tensor("b", &[1], 0, 32).data(32, 64),
            "the data of tensors `a` and `b` overlap at offset 128",
        ),
        (
            Raw::new(2, 0).tensor("a", &[1], 0, 32).tensor("b", &[9], 0, 0).data(32, 64),
            "the data of tensors `b` and `a` overlap at offset 128",
        ),
    ];
    let wrong = cases
        .into_iter()
        .map(|(raw, expected)| (message(&raw.0), expected))
        .filter(|(found, expected)| !found.contains(expected))
        .collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
