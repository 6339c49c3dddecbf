//! What the firmware computes, the same on every machine to the last bit.
//!
//! A feed-forward layer in three bits reads its weights out of the flash and leaves out the neurons that are exactly
//! zero. Beside it a reflex gate watches a stream of sensor readings. All memory is taken before the first reading.
#![no_std]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use sparse_core::{
    ActivationType, Activations, BatchMode, Compute, Down, FfnScratch, Linear, Matrix, Pool, Selector,
    SparseFfn, Storage,
};
use sparse_precision::pi::PiChaos;
use sparse_precision::{PrecisionLane, ReflexGate};
use sparse_simd::{Kernels, Level};

include!("shape.rs");

static GATE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gate"));
static UP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/up"));
static DOWN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/down"));

/// Sensors of the stream.
const SENSORS: usize = 16;
/// Readings that the gate learns from, and those that it watches.
const LEARNED: usize = 128;
const WATCHED: usize = 512;
/// Readings during which the machine shakes.
const SHAKING: core::ops::Range<usize> = 300..320;
/// Inputs that the layer is given.
const TOKENS: usize = 4;

/// The layer, the gate, and the memory that both need.
pub struct Machine {
    compute: Compute,
    ffn: SparseFfn,
    x: Activations,
    scratch: FfnScratch,
    out: Vec<f32>,
    gate: ReflexGate,
    reading: [f32; SENSORS],
}

impl Machine {
    /// Takes all memory.
    pub fn new() -> Self {
        let bit3 = |bytes| {
            Matrix::new(PrecisionLane::Bit3.format(), INPUTS, Storage::Static(bytes)).expect("whole rows")
        };
        let linear = |bytes| Linear::new(bit3(bytes), None).expect("a layer without bias");
        let down = Down::Neurons(bit3(DOWN).into());
        let mut ffn = SparseFfn::gated(linear(GATE), linear(UP), down, ActivationType::Relu)
            .expect("projections that fit together");
        ffn.set_selector(Selector::ExactZero).expect("an activation with exact zeros");
        let kernels = Kernels::at(Level::Scalar).expect("the portable kernels");
        let mut usual = vec![0.0; LEARNED * SENSORS];
        usual.chunks_mut(SENSORS).enumerate().for_each(|(n, out)| read(n * 7, false, out));
        Self {
            compute: Compute::with(kernels, Pool::new(1)),
            x: Activations::with_capacity(1, INPUTS),
            scratch: FfnScratch::new(1, [&ffn]),
            ffn,
            out: vec![0.0; INPUTS],
            gate: ReflexGate::learn(SENSORS, &usual).expect("readings that change"),
            reading: [0.0; SENSORS],
        }
    }

    /// Computes the layer for some inputs, then watches the stream, and prints the bits of every result.
    ///
    /// # Errors
    /// If `report` fails.
    pub fn run(&mut self, report: &mut dyn Write) -> fmt::Result {
        let chaos = PiChaos::new();
        for token in 0..TOKENS {
            self.x.resize(1);
            let x = self.x.x_mut().iter_mut().enumerate();
            x.for_each(|(i, x)| *x = chaos.jitter(1_000_000 + token * INPUTS + i));
            self.x.quantize(self.compute.kernels);
            let Self { compute, ffn, x, scratch, out, .. } = self;
            let counts = ffn.forward(compute, x, BatchMode::Dense, scratch, out);
            writeln!(report, "layer: token {token}, {} of {NEURONS} neurons", counts.down)?;
            for line in out.chunks(8) {
                line.iter().try_for_each(|v| write!(report, " {:08x}", v.to_bits()))?;
                writeln!(report)?;
            }
        }
        let (mut false_alarms, mut found, mut scores) = (0, 0, 0);
        for n in 0..WATCHED {
            let shaking = SHAKING.contains(&n);
            read(10_000 + n, shaking, &mut self.reading);
            let reflex = self.gate.check(&self.reading);
            scores += reflex.score;
            found += u32::from(reflex.fired && shaking);
            false_alarms += u32::from(reflex.fired && !shaking);
        }
        let len = SHAKING.len();
        writeln!(report, "gate: limit {}, scores {scores}", self.gate.limit())?;
        writeln!(report, "gate: {found} of {len} found, {false_alarms} false alarms in {WATCHED} readings")
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// Reading `n`: slow waves and noise. Shaking makes the noise of half of the sensors eight times as large.
fn read(n: usize, shaking: bool, out: &mut [f32]) {
    let chaos = PiChaos::new();
    for (s, out) in out.iter_mut().enumerate() {
        let noise = (0..4).map(|k| chaos.jitter((n * SENSORS + s) * 4 + k)).sum::<f32>();
        let factor = if shaking && s % 2 == 0 { 8.0 } else { 1.0 };
        // A triangle between -1 and 1.
        let wave = ((n + 40 * s) % 800) as f32 / 200.0;
        let wave = if wave < 2.0 { wave - 1.0 } else { 3.0 - wave };
        *out = wave + factor * noise;
    }
}
