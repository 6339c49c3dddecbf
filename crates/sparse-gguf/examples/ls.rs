//! Lists the metadata and the tensors of a GGUF file: `cargo run --example ls -- model.gguf`.

use std::error::Error;

use sparse_gguf::Gguf;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: ls FILE.gguf")?;
    let gguf = Gguf::open(path)?;

    println!("version {}, {} keys", gguf.version(), gguf.metadata().len());
    for (key, value) in gguf.metadata().iter() {
        println!("{key:42} {:16} {:.60}", value.type_name(), value.to_string());
    }

    println!(
        "\n{} tensors, {} bytes of data",
        gguf.tensors().len(),
        gguf.tensors().map(|t| t.range().len()).sum::<usize>()
    );
    for tensor in gguf.tensors() {
        let range = tensor.range();
        println!("{:42} {:8} {:>10} bytes  {:?}", tensor.name, tensor.ty, range.len(), tensor.dims);
    }
    Ok(())
}
