//! How large the WebAssembly is, and what its bytes are of.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use wasmparser::{KnownCustom, Name, Parser, Payload, TypeRef};

use super::{file, named_file};
use crate::cross::WASM;

/// Prints the sizes of both builds.
pub(super) fn print() -> Result<()> {
    println!("{:<12} {:>10} {:>10}", "build", "bytes", "gzip");
    for build in &WASM {
        let bytes = fs::read(file(build)).context("no WebAssembly: run `cargo xtask wasm`")?;
        println!("{:<12} {:>10} {:>10}", build.name, bytes.len(), gzip(&bytes)?);
    }
    Ok(())
}

/// Prints the bytes of code by crate, and those of data, of the build with the most of vectors.
pub(super) fn print_by_crate() -> Result<()> {
    let bytes = fs::read(named_file(&WASM[WASM.len() - 1])).context("no WebAssembly with names")?;
    let Module { functions, data } = Module::read(&bytes)?;
    let mut crates: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, size) in &functions {
        *crates.entry(crate_of(name)).or_default() += size;
    }
    let mut rows: Vec<_> = crates.into_iter().chain([("(data: tables and texts)", data)]).collect();
    rows.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let (shown, rest): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, size)| *size >= 4000);
    println!("\n{:<28} {:>10}", "crate", "bytes");
    shown.iter().for_each(|(name, size)| println!("{name:<28} {size:>10}"));
    println!("{:<28} {:>10}", "(others)", rest.iter().map(|(_, size)| size).sum::<usize>());
    Ok(())
}

fn gzip(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// The crate that a function is of: of a trait's function, the crate of the type that it is for.
fn crate_of(name: &str) -> &str {
    let name = name.trim_start_matches(['<', '&', '[', '(', '*']);
    let name = ["mut ", "const ", "dyn ", "impl "]
        .iter()
        .fold(name, |name, word| name.strip_prefix(word).unwrap_or(name));
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
    match &name[..end] {
        "core" | "alloc" | "std" | "dlmalloc" | "compiler_builtins" | "rust_begin_unwind" => "std",
        "" => "(unnamed)",
        other if name[end..].starts_with("::") || name[end..].starts_with('[') => other,
        _ => "(unnamed)",
    }
}

/// What a module's bytes are.
#[derive(Default)]
struct Module {
    /// Names of functions and bytes of their code.
    functions: Vec<(String, usize)>,
    data: usize,
}

impl Module {
    fn read(bytes: &[u8]) -> Result<Self> {
        let (mut module, mut imported, mut names) = (Self::default(), 0, HashMap::new());
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    module.functions.push((String::new(), body.range().len()));
                }
                Payload::DataSection(data) => module.data = data.range().len(),
                Payload::CustomSection(section) => {
                    if let KnownCustom::Name(subsections) = section.as_known() {
                        for subsection in subsections {
                            if let Name::Function(functions) = subsection? {
                                for naming in functions {
                                    let naming = naming?;
                                    names.insert(naming.index, naming.name);
                                }
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        // The names come last.
        for ((name, _), index) in module.functions.iter_mut().zip(imported..) {
            *name = names.get(&index).copied().unwrap_or_default().to_owned();
        }
        Ok(module)
    }
}
