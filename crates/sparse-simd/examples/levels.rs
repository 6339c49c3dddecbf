//! Prints the level that this CPU is given, and below it all that it has.
//!
//! `cargo run -p sparse-simd --example levels`

use sparse_simd::{Kernels, Level};

fn main() {
    println!("{}", Kernels::get().level());
    let all: Vec<&str> = Level::available().map(Level::name).collect();
    println!("{}", all.join(" "));
}
