//! Times products of floats at every level: `cargo run --release -p sparse-simd --example float_speed`.

use sparse_simd::{Activation, BlockFormat, Kernels, Level, MatMut, Rows};
use std::hint::black_box;
use std::time::Instant;

/// Seconds of one call: the fastest of many rounds of a millisecond, so that other programs do not count.
fn seconds(mut f: impl FnMut()) -> f64 {
    let round = |calls: u32, f: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..calls).for_each(|_| f());
        start.elapsed().as_secs_f64() / f64::from(calls)
    };
    let calls = (1e-3 / round(3, &mut f)).ceil() as u32;
    (0..60).map(|_| round(calls, &mut f)).fold(f64::INFINITY, f64::min)
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 251) as f32 / 125.0 - 1.0).collect()
}

fn bytes(format: BlockFormat, n: usize) -> Vec<u8> {
    match format {
        BlockFormat::F32 => values(n).iter().flat_map(|x| x.to_le_bytes()).collect(),
        BlockFormat::F16 => values(n).iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        _ => values(n).iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
    }
}

fn main() {
    let levels: Vec<&Kernels> = Level::available().skip(1).filter_map(Kernels::at).collect();
    print!("{:44}", "");
    for k in &levels {
        print!("{:>10}", k.level().name());
    }
    println!();
    let row = |name: String, run: &dyn Fn(&Kernels) -> f64| {
        print!("{name:44}");
        for k in &levels {
            print!("{:10.2}", run(k));
        }
        println!();
    };
    for (format, tokens) in [
        (BlockFormat::F32, 1),
        (BlockFormat::F32, 4),
        (BlockFormat::F32, 8),
        (BlockFormat::F32, 16),
        (BlockFormat::F32, 64),
        (BlockFormat::F32, 256),
        (BlockFormat::F16, 64),
        (BlockFormat::Bf16, 64),
    ] {
        for (rows, cols) in [(384, 384), (1536, 384), (384, 1536)] {
            let (w, x) = (bytes(format, rows * cols), values(tokens * cols));
            let w = Rows::new(format, cols, &w).unwrap();
            row(format!("{} {rows} x {cols}, {tokens} tokens, GFLOP/s", format.name()), &|k| {
                let mut out = vec![0.0; tokens * rows];
                let s = seconds(|| k.matmul_f32(w, black_box(&x), &mut MatMut::new(&mut out, rows)));
                2e-9 * (rows * cols * tokens) as f64 / s
            });
        }
    }
    for (heads, seen) in [(1, 2048), (3, 128), (3, 2048), (4, 2048), (8, 2048), (48, 512), (48, 2048)] {
        let (cache, q) = (bytes(BlockFormat::F16, 64 * seen), values(heads * 64));
        let rows = Rows::new(BlockFormat::F16, 64, &cache).unwrap();
        let scores = values(heads * seen);
        row(format!("{heads} queries, {seen} keys of 64, us"), &|k| {
            let mut out = vec![0.0; heads * seen];
            1e6 * seconds(|| k.matmul_f32(rows, black_box(&q), &mut MatMut::new(&mut out, seen)))
        });
        row(format!("{heads} softmax of {seen}, us"), &|k| {
            let mut x = scores.clone();
            1e6 * seconds(|| x.chunks_mut(seen).for_each(|x| k.softmax(black_box(x))))
        });
        row(format!("{heads} sums of {seen} values of 64, us"), &|k| {
            let mut out = vec![0.0; heads * 64];
            1e6 * seconds(|| k.weighted_sum(black_box(&scores), rows, &mut MatMut::new(&mut out, 64)))
        });
    }
    for f in Activation::ALL {
        let x = values(4096);
        row(format!("{f:?} of 4096, ns per value"), &|k| {
            let mut y = x.clone();
            1e9 * seconds(|| k.activate(f, black_box(&mut y))) / 4096.0
        });
    }
}
