//! One token at a time: `<model>/<threads>` and the memory bandwidth that bounds it, `memory/<threads>`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sparse_benches::{label, model_files, open, thread_counts, tokens};
use sparse_core::{Pool, ReadBandwidth};
use sparse_model::Session;

/// Tokens in the context when the measured one comes: the middle of 128 after a short prompt.
const DEPTH: usize = 80;
/// Far more than the caches hold.
const MEMORY: usize = 512 << 20;

fn memory(c: &mut Criterion) {
    let mut memory = ReadBandwidth::new(MEMORY);
    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Bytes(memory.bytes() as u64));
    for threads in thread_counts() {
        let pool = Pool::new(threads);
        group.bench_function(BenchmarkId::from_parameter(threads), |b| b.iter(|| memory.pass(&pool)));
    }
}

fn decode(c: &mut Criterion) {
    for path in model_files() {
        let mut group = c.benchmark_group(format!("decode/{}", label(&path)));
        for threads in thread_counts() {
            let model = open(&path, threads);
            let mut session = Session::new(&model, DEPTH + 1).expect("room in the model's context");
            let ids = tokens(&model, DEPTH + 1);
            session.forward(&ids[..DEPTH]).expect("a prompt that fits");
            group.throughput(Throughput::Bytes(model.bytes_per_token() as u64));
            group.bench_function(BenchmarkId::from_parameter(threads), |b| {
                b.iter(|| {
                    session.truncate(DEPTH).expect("keys and values of all tokens");
                    session.forward(&ids[DEPTH..]).expect("a token that fits")[0]
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(8)).sample_size(50);
    targets = memory, decode
}
criterion_main!(benches);
