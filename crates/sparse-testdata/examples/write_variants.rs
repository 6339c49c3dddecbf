//! Writes the model variants of this crate to a folder, numbered, for other implementations to run.
//!
//! ```text
//! cargo run -p sparse-testdata --example write_variants -- DIR
//! ```

use std::fs;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).expect("usage: write_variants DIR"));
    fs::create_dir_all(&dir)?;
    for (i, (name, file)) in sparse_testdata::variants().iter().enumerate() {
        fs::write(dir.join(format!("{i}.gguf")), file.to_bytes())?;
        println!("{i}\t{name}");
    }
    Ok(())
}
