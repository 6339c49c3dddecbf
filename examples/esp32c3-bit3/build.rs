//! Makes the layer's weights: random ones, stored in Bit3, as a file that is linked into the flash.

use std::path::Path;
use std::{env, fs};

use sparse_precision::pi::PiChaos;
use sparse_precision::{LaneMatrix, PrecisionLane};

include!("src/shape.rs");

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/shape.rs");
    println!("cargo:rerun-if-changed=link.x");
    let out = env::var_os("OUT_DIR").expect("cargo names a folder");
    let out = Path::new(&out);
    let chaos = PiChaos::new();
    for (k, name) in ["gate", "up", "down"].into_iter().enumerate() {
        let first = k * NEURONS * INPUTS;
        let values: Vec<f32> = (0..NEURONS * INPUTS).map(|i| chaos.jitter(first + i) / 4.0).collect();
        let lane = LaneMatrix::new(PrecisionLane::Bit3, INPUTS, &values).expect("whole rows of finite values");
        fs::write(out.join(name), lane.into_bytes()).expect("a folder to write to");
    }
    fs::copy("link.x", out.join("link.x")).expect("link.x beside this file");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
    }
}
