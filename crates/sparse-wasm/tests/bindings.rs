//! The bindings without the package's JavaScript around them, in Node and in browsers.
#![cfg(all(target_arch = "wasm32", target_os = "unknown"))]

use js_sys::{Error, JsString, Reflect, Uint8Array};
use sparse_testdata::TinyLlama;
use sparse_wasm::{
    LaneIndex, ModelBytes, TextModel, angular_distance, create_sparse_engine, infer, inspect_gguf,
    lane_decode, lane_encode, pi_order, simd_level,
};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_test::wasm_bindgen_test;

/// A file in the memory of the module, handed over in pieces.
fn file(bytes: &[u8]) -> ModelBytes {
    let mut file = ModelBytes::new(bytes.len() as f64).expect("memory");
    for piece in bytes.chunks(1000) {
        file.push(&Uint8Array::from(piece)).expect("a piece");
    }
    file
}

fn tiny() -> Vec<u8> {
    TinyLlama::default().build().to_bytes()
}

/// The code of an error, which has a message, too.
fn code(error: JsValue) -> String {
    let message = error.unchecked_ref::<Error>().message();
    assert!(message.length() > 0, "no message");
    let code = Reflect::get(&error, &"code".into()).expect("an object");
    code.dyn_into::<JsString>().expect("a code").into()
}

#[wasm_bindgen_test]
fn a_network_has_one_output_per_dimension_and_the_same_each_time() {
    let engine = create_sparse_engine(16, 64, 0.25).ok().expect("an engine");
    let input: Vec<f32> = (0..16).map(|i| i as f32 / 16.0).collect();
    let output = infer(&engine, &input).ok().expect("an output");
    assert_eq!(output.len(), engine.output_dim());
    assert!(output.iter().all(|x| x.is_finite()) && output.iter().any(|x| *x != 0.0));
    assert_eq!(output, infer(&engine, &input).ok().expect("an output"));
}

#[wasm_bindgen_test]
fn wrong_shapes_of_a_network_are_errors() {
    assert!(create_sparse_engine(0, 64, 0.25).is_err());
    assert!(create_sparse_engine(16, 64, 0.0).is_err());
    assert!(create_sparse_engine(16, 64, f32::NAN).is_err());
    assert!(create_sparse_engine(usize::MAX, usize::MAX, 0.5).is_err());
    let engine = create_sparse_engine(16, 64, 0.25).ok().expect("an engine");
    assert!(infer(&engine, &[0.0; 15]).is_err());
    assert!(infer(&engine, &[f32::NAN; 16]).is_err());
}

#[wasm_bindgen_test]
fn vectors_are_those_of_the_build() {
    let expected: &[&str] = match cfg!(target_feature = "simd128") {
        true => &["simd128", "relaxed-simd"],
        false => &["scalar"],
    };
    assert!(expected.contains(&&*simd_level()), "{}", simd_level());
}

#[wasm_bindgen_test]
fn a_model_spells_and_says_what_it_is() {
    let model = TextModel::new(file(&tiny()), None, "{}").expect("a model");
    let ids = model.tokenize("a", false).expect("ids");
    assert_eq!(model.detokenize(&ids).trim(), "a");
    let info = model.info();
    assert!(info.contains("\"architecture\":\"llama\""), "{info}");
}

#[wasm_bindgen_test]
fn damaged_files_are_errors_with_codes_and_the_module_lives_on() {
    let bytes = tiny();
    for len in [0, 3, 24, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(code(inspect_gguf(file(&bytes[..len])).expect_err("a part of a file")), "format");
        let model = TextModel::new(file(&bytes[..len]), None, "{}");
        assert_eq!(code(model.expect_err("a part of a file")), "format");
    }
    // The number of tensors, of 64 bits at byte 8, claims more than there can be.
    let mut claims = bytes.clone();
    claims[8..16].fill(0x7f);
    assert_eq!(code(inspect_gguf(file(&claims)).expect_err("a claim")), "format");
    assert_eq!(code(ModelBytes::new(1e15).expect_err("a petabyte")), "memory");
    let mut short = ModelBytes::new(2.0).expect("memory");
    assert_eq!(code(short.push(&Uint8Array::new_with_length(3)).expect_err("too long")), "format");
    assert_eq!(code(TextModel::new(file(&bytes), None, "{").expect_err("half an object")), "option");
    assert!(inspect_gguf(file(&bytes)).expect("a file").contains("token_embd.weight"));
}

#[wasm_bindgen_test]
fn lanes_round_and_refuse() {
    let codes = lane_encode("bit5", &[-1.0, 0.0, 1.0], 1.0).expect("codes");
    let values = lane_decode("bit5", &codes, 1.0).expect("values");
    assert!(values[0] < -0.8 && values[1].abs() < 0.1 && values[2] > 0.8, "{values:?}");
    assert_eq!(code(lane_encode("bit4", &[0.0], 1.0).expect_err("no lane")), "option");
    assert_eq!(code(angular_distance("bit7", &[1.0], &[1.0, 0.0]).expect_err("lengths")), "option");
    let mut index = LaneIndex::new("bit7", 4).expect("an index");
    index.push(&[1.0, 0.0, 0.0, 0.0]).expect("a vector");
    assert_eq!(code(index.push(&[1.0]).expect_err("another length")), "option");
    assert!(index.cosines(&[1.0, 0.0, 0.0, 0.0]).expect("cosines")[0] > 0.99);
}

#[wasm_bindgen_test]
fn an_order_has_each_number_once() {
    let mut order = pi_order(100, 3);
    assert_ne!(order, pi_order(100, 4));
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..100));
}
