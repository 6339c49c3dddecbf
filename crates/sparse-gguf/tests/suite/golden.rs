//! Every format against ggml and the gguf package, bit for bit.

use sparse_gguf::{BlockFormat, GgmlType, Gguf, quantize, quantize_into};

/// Files as a part of this program, for targets without files.
macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_bytes!(concat!("../golden/", $name)))),*] };
}

static FILES: &[(&str, &[u8])] = files! {
    "bf16.blocks"
    "bf16.f32"
    "f16.blocks"
    "f16.f32"
    "f32.blocks"
    "f32.f32"
    "input.f32"
    "iq1_m.blocks"
    "iq1_m.f32"
    "iq1_s.blocks"
    "iq1_s.f32"
    "iq2_s.blocks"
    "iq2_s.f32"
    "iq2_xs.blocks"
    "iq2_xs.f32"
    "iq2_xxs.blocks"
    "iq2_xxs.f32"
    "iq3_s.blocks"
    "iq3_s.f32"
    "iq3_xxs.blocks"
    "iq3_xxs.f32"
    "iq4_nl.blocks"
    "iq4_nl.f32"
    "iq4_xs.blocks"
    "iq4_xs.f32"
    "mxfp4.blocks"
    "mxfp4.f32"
    "nvfp4.blocks"
    "nvfp4.f32"
    "q1_0.blocks"
    "q1_0.f32"
    "q2_0.blocks"
    "q2_0.f32"
    "q2_k.blocks"
    "q2_k.f32"
    "q3_k.blocks"
    "q3_k.f32"
    "q4_0.blocks"
    "q4_0.f32"
    "q4_1.blocks"
    "q4_1.f32"
    "q4_k.blocks"
    "q4_k.f32"
    "q5_0.blocks"
    "q5_0.f32"
    "q5_1.blocks"
    "q5_1.f32"
    "q5_k.blocks"
    "q5_k.f32"
    "q6_k.blocks"
    "q6_k.f32"
    "q8_0.blocks"
    "q8_0.f32"
    "tiny.gguf"
    "tq1_0.blocks"
    "tq1_0.f32"
    "tq2_0.blocks"
    "tq2_0.f32"
};

fn golden(name: &str) -> &'static [u8] {
    FILES.iter().find(|(n, _)| *n == name).expect(name).1
}

fn floats(name: &str) -> Vec<f32> {
    let (values, rest) = golden(name).as_chunks();
    assert!(rest.is_empty(), "{name}");
    values.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn blocks(format: BlockFormat) -> &'static [u8] {
    golden(&format!("{}.blocks", format.name().to_lowercase()))
}

/// The values that ggml quantized for the golden files.
fn input() -> Vec<f32> {
    let x = floats("input.f32");
    assert_eq!(x.len(), 1024);
    x
}

const QUANTIZERS: [BlockFormat; 9] = [
    BlockFormat::F32,
    BlockFormat::F16,
    BlockFormat::Bf16,
    BlockFormat::Q4_0,
    BlockFormat::Q4_1,
    BlockFormat::Q5_0,
    BlockFormat::Q5_1,
    BlockFormat::Q8_0,
    BlockFormat::Tq2_0,
];

#[test]
fn every_format_dequantizes_as_the_gguf_package_does() {
    for format in BlockFormat::GGML {
        let expected = floats(&format!("{}.f32", format.name().to_lowercase()));
        let mut found = vec![0.0; expected.len()];
        format.decode(blocks(format), &mut found).unwrap();
        let wrong = (0..found.len())
            .filter(|&i| found[i].to_bits() != expected[i].to_bits())
            .map(|i| format!("value {i}: {:e}, expected {:e}", found[i], expected[i]))
            .collect::<Vec<_>>();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", format.name());
    }
}

#[test]
fn quantizers_give_the_bytes_of_ggml() {
    let x = input();
    for format in QUANTIZERS {
        let found = quantize(format, &x).unwrap();
        let expected = &blocks(format)[..format.row_bytes(x.len()).unwrap()];
        let wrong = (0..x.len() / format.block_len())
            .map(|i| i * format.block_bytes()..(i + 1) * format.block_bytes())
            .filter(|at| found[at.clone()] != expected[at.clone()])
            .map(|at| format!("bytes {at:?}: {:?}, expected {:?}", &found[at.clone()], &expected[at.clone()]))
            .collect::<Vec<_>>();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", format.name());
    }
}

#[test]
fn what_cannot_be_quantized_is_an_error_that_says_where() {
    let mut x = input();
    let fails = |format, x: &[f32]| quantize(format, x).unwrap_err().to_string();
    assert_eq!(fails(BlockFormat::Q8_0, &x[..33]), "33 values are no whole number of Q8_0 blocks of 32");
    for format in BlockFormat::GGML.into_iter().filter(|f| !QUANTIZERS.contains(f)) {
        assert_eq!(fails(format, &x), format!("there is no quantizer to {}", format.name()));
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        x[77] = bad;
        for format in QUANTIZERS {
            assert_eq!(
                fails(format, &x),
                format!("value 77 is {bad}, which cannot be quantized"),
                "{}",
                format.name()
            );
        }
    }
    // Finite, but beyond the format's floats, where ggml stores infinity.
    let cases = [
        (BlockFormat::F16, 65520.0, 77),
        (BlockFormat::Bf16, f32::MAX, 77),
        (BlockFormat::Q4_0, 8.0 * 65520.0, 64),
        (BlockFormat::Q4_1, -65520.0, 64),
        (BlockFormat::Q5_0, 1e10, 64),
        (BlockFormat::Q5_1, -1e5, 64),
        (BlockFormat::Q8_0, f32::MIN, 64),
        (BlockFormat::Tq2_0, 65520.0, 0),
    ];
    for (format, value, index) in cases {
        x[77] = value;
        let name = format.name();
        let expected = format!("the block at value {index} is too large in magnitude for {name}");
        assert_eq!(fails(format, &x), expected);
    }
    x[77] = 65519.9;
    assert_eq!(quantize(BlockFormat::F16, &x).unwrap()[154..156], 0x7bffu16.to_le_bytes());

    let error = quantize_into(BlockFormat::Q8_0, &x[..64], &mut [0; 67]).unwrap_err();
    assert_eq!(error.to_string(), "the output for 64 values in Q8_0 has length 67, expected 68");
}

#[test]
fn tensors_dequantize_or_refuse_by_name() {
    let gguf = Gguf::from_bytes(golden("tiny.gguf").to_vec()).unwrap();
    let weight = gguf.tensor("weight").unwrap();
    assert_eq!(weight.info.format().unwrap(), BlockFormat::Q8_0);
    // Its rows are the first values of the golden input.
    let expected = floats("q8_0.f32");
    assert_eq!(weight.dequantize().unwrap(), expected[..256]);
    let error = weight.dequantize_into(&mut [0.0; 255]).unwrap_err();
    assert_eq!(error.to_string(), "the output for tensor `weight` has length 255, expected 256");

    let ids = gguf.tensor("ids").unwrap();
    assert_eq!(
        ids.dequantize().unwrap_err().to_string(),
        "tensor `ids` has type I32, which is not supported"
    );
    let (ids, _) = ids.data.as_chunks();
    assert_eq!(ids.iter().map(|b| i32::from_le_bytes(*b)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn types_and_formats_agree() {
    for format in BlockFormat::GGML {
        let ty = GgmlType::from(format);
        assert_eq!(ty.format(), Some(format));
        assert_eq!(ty.block(), Some((format.block_len(), format.block_bytes())), "{ty}");
    }
    for lane in [BlockFormat::Bit3, BlockFormat::Bit7] {
        assert!(!GgmlType::from(lane).is_known(), "{}", lane.name());
    }
    for (id, &ty) in GgmlType::ALL.iter().enumerate() {
        assert_eq!((ty.id(), GgmlType::from_id(ty.id())), (id as u32, ty));
        assert!(ty.is_known());
    }
    let shown = [0, 4, 23, 31, 39, 1234].map(|id| GgmlType::from_id(id).to_string());
    assert_eq!(
        shown,
        [
            "F32",
            "Q4_2 (removed from ggml)",
            "IQ4_XS",
            "Q4_0_4_4 (removed from ggml)",
            "MXFP4",
            "unknown type 1234"
        ]
    );
    assert!(!GgmlType::from_id(1234).is_known());
    assert_eq!((GgmlType::Q4_2.block(), GgmlType::Q8_1.format()), (None, None));
}
