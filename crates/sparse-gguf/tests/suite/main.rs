//! Tests through the public interface. Golden vectors and the script that made them: `tests/golden`.

mod golden;
mod headers;
mod hostile;
mod parts;
mod properties;
mod raw;
mod writing;
