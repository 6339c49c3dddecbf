//! A prompt of 512 tokens at once: `prefill/<model>/<threads>`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sparse_benches::{label, model_files, open, thread_counts, tokens};
use sparse_model::Session;

/// Tokens of the prompt.
const PROMPT: usize = 512;

fn prefill(c: &mut Criterion) {
    for path in model_files() {
        let mut group = c.benchmark_group(format!("prefill/{}", label(&path)));
        group.throughput(Throughput::Elements(PROMPT as u64));
        for threads in thread_counts() {
            let model = open(&path, threads);
            let mut session = Session::new(&model, PROMPT).expect("room in the model's context");
            let ids = tokens(&model, PROMPT);
            group.bench_function(BenchmarkId::from_parameter(threads), |b| {
                b.iter(|| {
                    session.clear();
                    session.forward(&ids).expect("a prompt that fits")[0]
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(15)).sample_size(10);
    targets = prefill
}
criterion_main!(benches);
