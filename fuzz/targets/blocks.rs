//! Blocks of every format: any bits are values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_simd::BlockFormat;

fuzz_target!(|data: &[u8]| {
    let Some((format, data)) = data.split_first() else { return };
    let format = BlockFormat::ALL[usize::from(*format) % BlockFormat::ALL.len()];
    let blocks = data.len() / format.block_bytes();
    let mut out = vec![0.0; blocks * format.block_len()];
    format.decode(&data[..blocks * format.block_bytes()], &mut out).expect("whole blocks");
});
