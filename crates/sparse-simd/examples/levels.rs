//! Prints the level that this CPU is given, or the one that `SPARSE_SIMD` names, and below it all that it has.
//!
//! `cargo run -p sparse-simd --example levels`

use sparse_simd::{Kernels, Level, LevelError};

fn main() -> Result<(), LevelError> {
    println!("{}", Kernels::try_get()?.level());
    let all: Vec<&str> = Level::available().map(Level::name).collect();
    println!("{}", all.join(" "));
    Ok(())
}
