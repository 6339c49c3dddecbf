//! Calls a kernel some times: two runs under an emulator that counts instructions say what a call costs.
//!
//! ```text
//! one_call LEVEL KERNEL CALLS
//! ```
//!
//! `KERNEL` is `dot` or `axpy`, of 4096 floats, or the name of a format: 4 rows of 2048 weights times one token.
//! docs/targets.md has the commands.

use std::env::args;
use std::hint::black_box;

use sparse_simd::{BlockFormat, Kernels, MatMut, Q8Mut, Rows};

fn main() {
    let args: Vec<String> = args().skip(1).collect();
    let [level, kernel, calls] = &args[..] else { panic!("one_call LEVEL KERNEL CALLS") };
    let kernels = Kernels::at(level.parse().expect("a level")).expect("a CPU with the level");
    let calls: usize = calls.parse().expect("a number of calls");
    let floats = |n: usize| (0..n).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<_>>();
    if let Some(format) = BlockFormat::ALL.into_iter().find(|f| f.name().eq_ignore_ascii_case(kernel)) {
        const COLS: usize = 2048;
        let (x, mut out) = (floats(COLS), [0.0; 4]);
        let (mut q, mut d, mut sums) = ([0; COLS], [0.0; COLS / 32], [0; COLS / 16]);
        let mut x8 = Q8Mut { cols: COLS, q: &mut q, d: &mut d, sums: &mut sums };
        kernels.quantize(&x, &mut x8);
        let x8 = sparse_simd::Q8 { cols: COLS, q: &q, d: &d, sums: &sums };
        let bytes: Vec<u8> =
            (0..4 * format.row_bytes(COLS).expect("whole blocks")).map(|i| i as u8).collect();
        let w = Rows::new(format, COLS, &bytes).expect("whole rows");
        for _ in 0..calls {
            let mut out = MatMut::new(black_box(&mut out), 4);
            match format.is_quantized() {
                true => kernels.matmul_q8(black_box(w), black_box(x8), &mut out),
                false => kernels.matmul_f32(black_box(w), black_box(&x), &mut out),
            }
        }
        return;
    }
    let (x, mut y) = (floats(4096), floats(4096));
    for _ in 0..calls {
        match &kernel[..] {
            "dot" => {
                black_box(kernels.dot_f32(black_box(&x), black_box(&y)));
            }
            "axpy" => kernels.axpy_f32(black_box(0.5), black_box(&x), black_box(&mut y)),
            other => panic!("no kernel {other}"),
        }
    }
}
