//! Tests through the public interface. Golden vectors and the script that made them: `tests/golden`.

// Reads files.
#[cfg(not(target_family = "wasm"))]
mod golden;
mod headers;
mod hostile;
mod parts;
mod properties;
mod raw;
mod writing;
