//! Ternary matrices: bitnet.cpp's I2_S, and scales beside matrices, of NVFP4, too.

use std::sync::Arc;

use sparse_gguf::{BlockFormat, GgmlType, Gguf};
use sparse_model::{Model, Session};
use sparse_testdata::{File, Tensor, TinyLlama};

/// The scale of all ternary matrices: as f32 and in half precision.
const SCALE: f32 = 0.0625;

/// Bytes of a block of TQ2_0, the last two of them its scale.
const BLOCK: usize = 66;

fn is_ternary(tensor: &Tensor) -> bool {
    tensor.format == BlockFormat::Tq2_0
}

/// A model whose layers are ternary, with one scale per matrix.
fn file() -> File {
    let shape =
        TinyLlama { embedding: 256, feed_forward: 512, format: BlockFormat::Tq2_0, ..TinyLlama::default() };
    let formats = vec![("token_embd", BlockFormat::Q8_0)];
    let mut file = TinyLlama { formats, ..shape }.build();
    let scale = half::f16::from_f32(SCALE).to_le_bytes();
    for tensor in file.tensors.iter_mut().filter(|t| is_ternary(t)) {
        for block in tensor.data.chunks_mut(BLOCK) {
            let (codes, d) = block.split_at_mut(BLOCK - 2);
            d.copy_from_slice(&scale);
            // Random codes go up to 3, which TQ2_0 takes for 2, and I2_S for 0.
            codes.iter_mut().for_each(|b| *b &= !((*b & 0x55) & (*b >> 1)));
        }
    }
    file
}

fn position(bytes: &[u8], name: &str) -> usize {
    let mut entry = (name.len() as u64).to_le_bytes().to_vec();
    entry.extend(name.as_bytes());
    bytes.windows(entry.len()).position(|w| w == entry).expect(name) + entry.len()
}

/// The same file in I2_S. A matrix takes less room there, so each stays where it is.
fn i2_s(file: &File) -> Vec<u8> {
    let mut bytes = file.to_bytes();
    let gguf = Gguf::from_bytes(bytes.clone()).unwrap();
    for tensor in file.tensors.iter().filter(|t| is_ternary(t)) {
        let info = gguf.info(&tensor.name).unwrap();
        let at = info.range().start;
        let codes = tensor.data.chunks(BLOCK).flat_map(|block| &block[..BLOCK - 2]);
        // The same four codes in the opposite order.
        let reverse = |b: &u8| (b & 3) << 6 | (b >> 2 & 3) << 4 | (b >> 4 & 3) << 2 | b >> 6;
        let mut packed: Vec<u8> = codes.map(reverse).collect();
        packed.extend(SCALE.to_le_bytes());
        bytes[at..at + packed.len()].copy_from_slice(&packed);
        let ty = position(&bytes, &tensor.name) + 4 + 8 * tensor.dims.len();
        bytes[ty..ty + 4].copy_from_slice(&GgmlType::I2_S.id().to_le_bytes());
    }
    bytes
}

fn logits(bytes: Vec<u8>) -> Vec<f32> {
    let model = Model::from_gguf(&Gguf::from_bytes(bytes).unwrap(), 1).unwrap();
    Session::new(&Arc::new(model), 8).unwrap().forward(&[3, 1, 4, 1, 5]).unwrap().to_vec()
}

/// The fourth code is a zero; TQ2_0 would take it for 2.
#[test]
fn the_fourth_code_of_i2_s_is_zero() {
    let (mut third, mut fourth) = (file(), file());
    let name = "blk.0.ffn_up.weight";
    third.tensor_mut(name).data[0] = 0b01_01_01_01;
    fourth.tensor_mut(name).data[0] = 0b11_01_11_11;
    assert!(logits(i2_s(&fourth)) == logits(third.to_bytes()));
}

#[test]
fn i2_s_is_computed_as_tq2_0() {
    let file = file();
    assert!(logits(i2_s(&file)) == logits(file.to_bytes()));
}

#[test]
fn damaged_i2_s_is_an_error_that_names_the_matrix() {
    let file = file();
    let load = |bytes: Vec<u8>| {
        Model::from_gguf(&Gguf::from_bytes(bytes).unwrap(), 1).expect_err("damage").to_string()
    };
    let ffn_down = file.tensor("blk.1.ffn_down.weight");
    let mut infinite = i2_s(&file);
    let gguf = Gguf::from_bytes(infinite.clone()).unwrap();
    let start = gguf.info(&ffn_down.name).unwrap().range().start;
    let scale = start + ffn_down.dims.iter().product::<usize>() / 4;
    infinite[scale..scale + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(load(infinite).contains("blk.1.ffn_down.weight"));
}

#[test]
fn a_scale_beside_a_ternary_matrix_multiplies_it() {
    let scaled = |factor: f32, format| {
        let mut file = file();
        file.tensors.push(Tensor::new("blk.1.ffn_up.scale", &[1], BlockFormat::F32, &[factor]));
        if let Some(format) = format {
            let up = file.tensor_mut("blk.1.ffn_up.weight");
            *up = Tensor::new(up.name.clone(), &up.dims, format, &up.values());
        }
        file
    };
    let mut expected = file();
    for block in expected.tensor_mut("blk.1.ffn_up.weight").data.chunks_mut(BLOCK) {
        block[BLOCK - 2..].copy_from_slice(&half::f16::from_f32(3.0 * SCALE).to_le_bytes());
    }
    let file = scaled(3.0, None);
    assert!(logits(file.to_bytes()) == logits(expected.to_bytes()));
    assert!(logits(i2_s(&file)) == logits(expected.to_bytes()));
    // One is no scale, whatever the format.
    logits(scaled(1.0, Some(BlockFormat::Q8_0)).to_bytes());
    let refused = |file: File| Model::from_gguf(&Gguf::from_bytes(file.to_bytes()).unwrap(), 1).unwrap_err();
    let error = refused(scaled(3.0, Some(BlockFormat::Q8_0))).to_string();
    assert!(error.contains("blk.1.ffn_up.scale") && error.contains("Q8_0"), "{error}");
    let error = refused(scaled(1e9, None)).to_string();
    assert!(error.contains("blk.1.ffn_up.scale"), "{error}");
}

/// Doubling a scale per 16 values is adding one to its exponent, which starts at bit 3.
#[test]
fn scales_beside_nvfp4_matrices_multiply_them_and_each_expert_has_its_own() {
    const NVFP4_BLOCK: usize = 36;
    let shape = TinyLlama { embedding: 128, feed_forward: 64, experts: Some((4, 2)), ..TinyLlama::default() };
    let mut plain = TinyLlama { format: BlockFormat::NvFp4, ..shape }.build();
    for tensor in plain.tensors.iter_mut().filter(|tensor| tensor.format == BlockFormat::NvFp4) {
        for block in tensor.data.chunks_mut(NVFP4_BLOCK) {
            block[..4].iter_mut().for_each(|d| *d = 24 + *d % 32);
        }
    }
    let (mut doubled, mut beside) = (plain.clone(), plain);
    for (name, factors) in [
        ("blk.0.attn_q", &[2.0][..]),
        ("blk.1.ffn_up_exps", &[2.0, 1.0, 2.0, 2.0]),
        ("blk.0.attn_output", &[2.0]),
    ] {
        let data = &mut doubled.tensor_mut(&format!("{name}.weight")).data;
        let share = data.len() / factors.len();
        for (share, factor) in data.chunks_mut(share).zip(factors) {
            for block in share.chunks_mut(NVFP4_BLOCK).filter(|_| *factor == 2.0) {
                block[..4].iter_mut().for_each(|d| *d += 8);
            }
        }
        let scale = Tensor::new(format!("{name}.scale"), &[factors.len()], BlockFormat::F32, factors);
        let input = Tensor::new(format!("{name}.input_scale"), &[factors.len()], BlockFormat::F32, factors);
        beside.tensors.extend([scale, input]);
    }
    assert!(logits(beside.to_bytes()) == logits(doubled.to_bytes()));
    beside.tensor_mut("blk.1.ffn_up_exps.scale").dims = vec![2, 2];
    let error = Model::from_gguf(&Gguf::from_bytes(beside.to_bytes()).unwrap(), 1).unwrap_err().to_string();
    assert!(error.contains("blk.1.ffn_up_exps.scale"), "{error}");
}
