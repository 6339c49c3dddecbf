//! Calls a kernel some times: two runs under an emulator that counts instructions say what a call costs.
//!
//! ```text
//! one_call LEVEL KERNEL TOKENS CALLS
//! ```
//!
//! docs/targets.md has the commands.

mod kernel;

use std::env::args;

use sparse_simd::Kernels;

fn main() {
    let args: Vec<String> = args().skip(1).collect();
    let [level, name, tokens, calls] = &args[..] else { panic!("one_call LEVEL KERNEL TOKENS CALLS") };
    let number = |arg: &str| arg.parse::<usize>().expect("a number");
    let kernels = Kernels::at(level.parse().expect("a level")).expect("a CPU with the level");
    let mut call = kernel::call(kernels, name, number(tokens)).expect("a kernel");
    (0..number(calls)).for_each(|_| call());
}
