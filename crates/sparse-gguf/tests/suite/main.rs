//! Tests through the public interface. Golden vectors and the script that made them: `tests/golden`.

mod golden;
mod headers;
mod hostile;
#[cfg(feature = "write")]
mod part_files;
mod parts;
mod properties;
mod raw;
mod writing;
