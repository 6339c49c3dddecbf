//! Every kernel family at every level of this CPU: `<family>/<kernel>/<level>`.
//!
//! `gemv` reads weights from memory (64 MB of them), `gemv-cached` the same few rows again; both count weight bytes.
//! `gemm` multiplies 128 tokens and counts multiplications and additions. The others work on a row of 2048 values, in
//! cache, and count its bytes.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use sparse_benches::Matrix;
use sparse_simd::{Activation, BlockFormat, Kernels, Level, MatMut, Q8, Q8Mut, Rows};

/// Columns of the matrices, length of the rows.
const COLS: usize = 2048;
/// Weight bytes of `gemv`: more than the caches hold.
const IN_MEMORY: usize = 64 << 20;
/// Weight bytes of `gemv-cached`: they fit a second-level cache.
const IN_CACHE: usize = 128 << 10;
/// Rows and tokens of `gemm`.
const GEMM_ROWS: usize = 512;
const GEMM_TOKENS: usize = 128;

/// Activations in both forms, `[tokens x COLS]`.
struct Input {
    x: Vec<f32>,
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
}

impl Input {
    fn new(tokens: usize) -> Self {
        let x: Vec<f32> = (0..tokens * COLS).map(|i| (i * 31 % 97) as f32 / 48.0 - 1.0).collect();
        let n = x.len();
        let mut input = Self { x, q: vec![0; n], d: vec![0.0; n / 32], sums: vec![0; n / 16] };
        let Self { x, q, d, sums } = &mut input;
        Kernels::get().quantize(x, &mut Q8Mut { cols: COLS, q, d, sums });
        input
    }

    fn q8(&self) -> Q8<'_> {
        Q8 { cols: COLS, q: &self.q, d: &self.d, sums: &self.sums }
    }
}

fn levels() -> impl Iterator<Item = (Level, &'static Kernels)> {
    Level::available().filter_map(|level| Kernels::at(level).map(|kernels| (level, kernels)))
}

fn matmul(kernels: &Kernels, w: Rows<'_>, input: &Input, out: &mut [f32]) {
    let mut out = MatMut::new(out, w.rows());
    match w.format().is_quantized() {
        true => kernels.matmul_q8(w, input.q8(), &mut out),
        false => kernels.matmul_f32(w, &input.x, &mut out),
    }
}

fn products(c: &mut Criterion, family: &str, bytes: impl Fn(BlockFormat) -> usize, tokens: usize) {
    for format in BlockFormat::ALL {
        let mut group = c.benchmark_group(format!("{family}/{}", format.name()));
        let w = Matrix::of_bytes(format, COLS, bytes(format));
        let input = Input::new(tokens);
        let mut out = vec![0.0; tokens * w.rows().rows()];
        let operations = 2 * COLS * out.len();
        group.throughput(match tokens {
            1 => Throughput::Bytes(w.bytes() as u64),
            _ => Throughput::Elements(operations as u64),
        });
        for (level, kernels) in levels() {
            group.bench_function(BenchmarkId::from_parameter(level), |b| {
                b.iter(|| matmul(kernels, black_box(w.rows()), &input, &mut out));
            });
        }
    }
}

fn gemv(c: &mut Criterion) {
    products(c, "gemv", |_| IN_MEMORY, 1);
}

fn gemv_cached(c: &mut Criterion) {
    products(c, "gemv-cached", |_| IN_CACHE, 1);
}

fn gemm(c: &mut Criterion) {
    let bytes = |format: BlockFormat| GEMM_ROWS * format.row_bytes(COLS).expect("whole blocks");
    products(c, "gemm", bytes, GEMM_TOKENS);
}

/// Measures `f` on a row of `COLS` values at every level.
fn row(c: &mut Criterion, name: &str, mut f: impl FnMut(&Kernels, &mut Row)) {
    let mut group: BenchmarkGroup<'_, WallTime> = c.benchmark_group(format!("row/{name}"));
    group.throughput(Throughput::Bytes((COLS * size_of::<f32>()) as u64));
    let mut row = Row::new();
    for (level, kernels) in levels() {
        group.bench_function(BenchmarkId::from_parameter(level), |b| {
            b.iter(|| f(kernels, black_box(&mut row)))
        });
    }
}

/// Operands of the row kernels.
struct Row {
    a: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
    half: Vec<f16>,
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
}

impl Row {
    fn new() -> Self {
        let Input { x, q, d, sums } = Input::new(1);
        let half = x.iter().map(|v| f16::from_f32(*v)).collect();
        Self { b: x.clone(), out: x.clone(), a: x, half, q, d, sums }
    }
}

fn rows(c: &mut Criterion) {
    row(c, "quantize", |k, r| {
        k.quantize(&r.a, &mut Q8Mut { cols: COLS, q: &mut r.q, d: &mut r.d, sums: &mut r.sums });
    });
    row(c, "dot_f32", |k, r| r.out[0] = k.dot_f32(&r.a, &r.b));
    row(c, "axpy_f32", |k, r| k.axpy_f32(1e-3, &r.a, &mut r.out));
    row(c, "to_f16", |k, r| k.to_f16(&r.a, &mut r.half));
    row(c, "add", |k, r| k.add(&mut r.out, &r.a));
    row(c, "rms_norm", |k, r| k.rms_norm(&r.a, &r.b, 1e-5, &mut r.out));
    row(c, "layer_norm", |k, r| k.layer_norm(&r.a, &r.b, &r.a, 1e-5, &mut r.out));
    row(c, "softmax", |k, r| k.softmax(&mut r.out));
    row(c, "rope", |k, r| k.rope(&mut r.out, &r.a[..COLS / 2], &r.b[..COLS / 2]));
    row(c, "rope_halves", |k, r| k.rope_halves(&mut r.out, &r.a[..COLS / 2], &r.b[..COLS / 2]));
    for f in Activation::ALL {
        row(c, &format!("{f:?}"), |k, r| {
            r.out.copy_from_slice(&r.a);
            k.activate(f, &mut r.out);
        });
    }
}

/// Values of the attention of three heads over 1024 positions, out of the KV cache.
fn weighted_sum(c: &mut Criterion) {
    let (heads, seen, dim) = (3, 1024, 64);
    let mut group = c.benchmark_group("weighted_sum/F16");
    let values = Matrix::of_bytes(BlockFormat::F16, dim, seen * dim * 2);
    let weights = vec![1.0 / seen as f32; heads * seen];
    let mut out = vec![0.0; heads * dim];
    group.throughput(Throughput::Elements((2 * heads * seen * dim) as u64));
    for (level, kernels) in levels() {
        group.bench_function(BenchmarkId::from_parameter(level), |b| {
            b.iter(|| {
                kernels.weighted_sum(&weights, black_box(values.rows()), &mut MatMut::new(&mut out, dim))
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = gemv, gemv_cached, gemm, weighted_sum, rows
}
criterion_main!(benches);
