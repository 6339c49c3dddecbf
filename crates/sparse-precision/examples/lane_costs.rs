//! What lanes cost, beside the formats of GGUF: the speed of their kernels, or bits and signal-to-noise ratio on the tensors
//! of a file.
//!
//! `cargo run --release -p sparse-precision --example lane_costs [-- FILE.gguf PART_OF_TENSOR_NAMES...]`

use std::time::Instant;

use sparse_gguf::{BlockFormat, Gguf, quantize};
use sparse_precision::{LaneMatrix, PrecisionLane};
use sparse_simd::{Kernels, MatMut, Q8Mut, Rows};

const LANES: [PrecisionLane; 3] = [PrecisionLane::Bit3, PrecisionLane::Bit5, PrecisionLane::Bit7];
const OTHERS: [BlockFormat; 5] =
    [BlockFormat::Q4_0, BlockFormat::Q4_1, BlockFormat::Q5_0, BlockFormat::Q5_1, BlockFormat::Q8_0];

/// Columns of the matrices that are timed, their bytes (more than caches hold), and how often.
const COLS: usize = 2048;
const BYTES: usize = 64 << 20;
const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let Some(path) = args.next() else {
        speed();
        return Ok(());
    };
    let gguf = Gguf::open(&path)?;
    args.try_for_each(|part| precision(&gguf, &part))
}

/// Energy of some values, and that of their errors.
#[derive(Default)]
struct Energy {
    signal: f64,
    errors: f64,
}

impl Energy {
    fn add(&mut self, values: &[f32], decoded: &[f32]) {
        for (x, y) in values.iter().zip(decoded) {
            self.signal += f64::from(*x).powi(2);
            self.errors += f64::from(x - y).powi(2);
        }
    }

    fn decibels(&self) -> f64 {
        10.0 * (self.signal / self.errors).log10()
    }
}

fn precision(gguf: &Gguf, part: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut lanes = LANES.map(|_| Energy::default());
    let mut others = OTHERS.map(|_| Energy::default());
    let names: Vec<String> =
        gguf.tensors().map(|t| t.name.clone()).filter(|name| name.contains(part)).collect();
    for name in &names {
        let tensor = gguf.tensor(name)?;
        let (cols, values) = (tensor.info.cols(), tensor.dequantize()?);
        let mut decoded = vec![0.0; values.len()];
        for (lane, energy) in LANES.into_iter().zip(&mut lanes) {
            let matrix = LaneMatrix::new(lane, cols, &values)?;
            lane.format().decode(matrix.bytes(), &mut decoded)?;
            energy.add(&values, &decoded);
        }
        for (format, energy) in OTHERS.into_iter().zip(&mut others) {
            format.decode(&quantize(format, &values)?, &mut decoded)?;
            energy.add(&values, &decoded);
        }
    }
    println!("\n{} tensors with `{part}` in their names", names.len());
    println!("{:<8} {:>6} {:>8}", "", "bits", "dB");
    for (lane, energy) in LANES.into_iter().zip(&lanes) {
        println!("{lane:<8} {:>6.2} {:>8.2}", lane.stored_bits(), energy.decibels());
    }
    for (format, energy) in OTHERS.into_iter().zip(&others) {
        let bits = 8.0 * format.block_bytes() as f32 / format.block_len() as f32;
        println!("{:<8} {bits:>6.2} {:>8.2}", format.name(), energy.decibels());
    }
    Ok(())
}

/// A matrix of random codes.
struct Timed {
    format: BlockFormat,
    bytes: Vec<u8>,
    seconds: [Vec<f64>; 2],
}

fn speed() {
    let kernels = Kernels::get();
    let formats = [
        BlockFormat::Bit3,
        BlockFormat::Q4_0,
        PrecisionLane::Bit5.format(),
        BlockFormat::Bit7,
        BlockFormat::Q8_0,
    ];
    let mut timed: Vec<Timed> = formats.into_iter().map(Timed::new).collect();
    let x: Vec<f32> = (0..COLS).map(|i| (i as f32 * 0.37).sin()).collect();
    let (mut q, mut d, mut sums) = (vec![0; COLS], vec![0.0; COLS / 32], vec![0; COLS / 16]);
    let mut q8 = Q8Mut { cols: COLS, q: &mut q, d: &mut d, sums: &mut sums };
    kernels.quantize(&x, &mut q8);
    let x = sparse_simd::Q8 { cols: COLS, q: &q, d: &d, sums: &sums };
    for _ in 0..ROUNDS {
        for timed in &mut timed {
            let w = Rows::new(timed.format, COLS, &timed.bytes).expect("whole rows");
            let mut out = vec![0.0; w.rows()];
            let start = Instant::now();
            kernels.matmul_q8(w, x, &mut MatMut::new(&mut out, w.rows()));
            timed.seconds[0].push(start.elapsed().as_secs_f64());
            // A quarter of the rows, spread evenly but not regularly.
            let active: Vec<u32> = (0..w.rows() as u32 / 4).map(|i| 4 * i + i * i % 4).collect();
            let h = vec![0.5; active.len()];
            let mut out = vec![0.0; COLS];
            let start = Instant::now();
            kernels.axpy_rows(w, &active, &h, 0..COLS, &mut out);
            timed.seconds[1].push(4.0 * start.elapsed().as_secs_f64());
        }
    }
    println!("one thread, {}, rows of {COLS}, weights in memory", kernels.level());
    println!("{:<8} {:>12} {:>8} {:>12} {:>8}", "", "dots: Mrow/s", "GB/s", "sums: Mrow/s", "GB/s");
    for timed in timed {
        let rows = timed.bytes.len() / timed.format.row_bytes(COLS).expect("whole blocks");
        print!("{:<8}", timed.format.name());
        for mut seconds in timed.seconds {
            seconds.sort_by(f64::total_cmp);
            let median = seconds[seconds.len() / 2];
            print!(" {:>12.2} {:>8.1}", rows as f64 / median / 1e6, timed.bytes.len() as f64 / median / 1e9);
        }
        println!();
    }
}

impl Timed {
    fn new(format: BlockFormat) -> Self {
        let row = format.row_bytes(COLS).expect("whole blocks");
        let mut bytes: Vec<u8> = (0..BYTES / row * row).map(|i| (i * 31 + i / 977) as u8).collect();
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            // 1/64 in half precision.
            block[..2].copy_from_slice(&0x2400u16.to_le_bytes());
        }
        Self { format, bytes, seconds: [Vec::new(), Vec::new()] }
    }
}
