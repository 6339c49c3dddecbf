//! What search loses in each lane, on real texts.
//!
//! ```text
//! cargo run --release -p sparse-integration --example lane_search -- MODEL < LINES
//! ```
//!
//! Every line is looked for among all others, with its embedding in float. *recall@10*: how many of the ten nearest in float
//! are among the ten nearest in the lane. *error*: of the angle to every other line, in radians. The rows of
//! `AngularEmbedding` keep one scale per vector instead of one per 32 values.

use std::error::Error;
use std::io::stdin;
use std::time::Instant;

use sparse_integration::{EmbeddingConfig, SparseEmbeddingProvider};
use sparse_precision::pi::AngularEmbedding;
use sparse_precision::{LaneIndex, PrecisionLane};

const TOP: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("usage: lane_search MODEL < LINES")?;
    let provider = SparseEmbeddingProvider::new(EmbeddingConfig::new(model))?;
    let mut lines: Vec<String> = stdin().lines().collect::<Result<_, _>>()?;
    lines.retain(|line| !line.trim().is_empty());
    lines.sort_unstable();
    lines.dedup();
    let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
    let embeddings = provider.embed_batch(&texts)?;
    println!("{} lines, {} dimensions", lines.len(), provider.dimension());
    println!("lane               bytes  recall@10  largest error       rms  queries/s");

    let float = filled(PrecisionLane::Float, &embeddings)?;
    for lane in PrecisionLane::ALL {
        let index = filled(lane, &embeddings)?;
        report(&lane.to_string(), index.bytes() / lines.len(), &index, &float, &provider, &embeddings)?;
    }
    for lane in &PrecisionLane::ALL[..3] {
        let projections: Vec<_> =
            embeddings.iter().map(|e| AngularEmbedding::new(*lane).project(e)).collect();
        let decoded: Vec<_> = projections.iter().map(|p| p.decode()).collect();
        let index = filled(PrecisionLane::Float, &decoded)?;
        let name = format!("{lane}, one scale");
        report(&name, projections[0].bytes(), &index, &float, &provider, &embeddings)?;
    }
    Ok(())
}

fn filled(lane: PrecisionLane, embeddings: &[Vec<f32>]) -> Result<LaneIndex, Box<dyn Error>> {
    let mut index = LaneIndex::new(lane, embeddings.first().map_or(1, Vec::len))?;
    embeddings.iter().try_for_each(|e| index.push(e))?;
    Ok(index)
}

fn report(
    name: &str,
    bytes: usize,
    index: &LaneIndex,
    float: &LaneIndex,
    provider: &SparseEmbeddingProvider,
    queries: &[Vec<f32>],
) -> Result<(), Box<dyn Error>> {
    let kernels = provider.encoder().compute().kernels;
    let (mut kept, mut largest, mut squares, mut seconds) = (0, 0.0f64, 0.0, 0.0);
    for (i, query) in queries.iter().enumerate() {
        let start = Instant::now();
        let found = index.cosines(kernels, query)?;
        seconds += start.elapsed().as_secs_f64();
        let exact = float.cosines(kernels, query)?;
        let best = nearest(&exact, i);
        kept += nearest(&found, i).iter().filter(|n| best.contains(n)).count();
        for (found, exact) in found.iter().zip(&exact).enumerate().filter(|(j, _)| *j != i).map(|(_, c)| c) {
            let error = f64::from(*found).acos() - f64::from(*exact).acos();
            largest = largest.max(error.abs());
            squares += error * error;
        }
    }
    let n = queries.len();
    println!(
        "{name:17} {bytes:6} {:9.1}% {largest:14.4} {:9.4} {:10.0}",
        100.0 * kept as f64 / (n * TOP.min(n - 1)) as f64,
        (squares / (n * (n - 1)) as f64).sqrt(),
        n as f64 / seconds,
    );
    Ok(())
}

/// The places of the ten largest cosines, but for place `but`.
fn nearest(cosines: &[f32], but: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cosines.len()).filter(|&i| i != but).collect();
    order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
    order.truncate(TOP);
    order
}
