//! The `sparse` program.
fn main() {}
