//! How large the WebAssembly is, and what its bytes are of.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{file, folder};
use crate::cross::WASM;

/// Prints the sizes of both builds.
pub(super) fn print() -> Result<()> {
    println!("{:<10} {:>10} {:>10}", "build", "bytes", "gzip");
    for (level, _) in WASM {
        let bytes = fs::read(file(level)).context("no WebAssembly: run `cargo xtask wasm`")?;
        println!("{level:<10} {:>10} {:>10}", bytes.len(), gzip(&bytes)?);
    }
    Ok(())
}

/// Prints the bytes of code by crate, and those of data, of the build with vectors.
pub(super) fn print_by_crate() -> Result<()> {
    let bytes = fs::read(folder().join("bindgen/simd128/named.wasm")).context("no WebAssembly with names")?;
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
struct Module {
    /// Names of functions and bytes of their code.
    functions: Vec<(String, usize)>,
    data: usize,
}

impl Module {
    fn read(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(b"\0asm"), "no WebAssembly");
        let mut rest = Bytes(&bytes[8..]);
        let (mut imports, mut sizes, mut data) = (0, Vec::new(), 0);
        let mut names = BTreeMap::new();
        while !rest.0.is_empty() {
            let kind = rest.byte()?;
            let len = rest.number()?;
            let mut section = Bytes(rest.take(len)?);
            match kind {
                0 if section.text()? == "name" => names = function_names(section)?,
                2 => imports = imported_functions(section)?,
                10 => {
                    for _ in 0..section.number()? {
                        let size = section.number()?;
                        section.take(size)?;
                        sizes.push(size);
                    }
                }
                11 => data = len,
                _ => {}
            }
        }
        let functions = sizes.into_iter().enumerate().map(|(i, size)| {
            let name = names.get(&(imports + i)).copied().unwrap_or_default();
            (name.to_owned(), size)
        });
        Ok(Self { functions: functions.collect(), data })
    }
}

/// The first subsection with names of functions.
fn function_names(mut section: Bytes<'_>) -> Result<BTreeMap<usize, &str>> {
    let mut names = BTreeMap::new();
    while !section.0.is_empty() {
        let kind = section.byte()?;
        let len = section.number()?;
        let mut part = Bytes(section.take(len)?);
        if kind == 1 {
            for _ in 0..part.number()? {
                names.insert(part.number()?, part.text()?);
            }
        }
    }
    Ok(names)
}

fn imported_functions(mut section: Bytes<'_>) -> Result<usize> {
    let mut functions = 0;
    for _ in 0..section.number()? {
        section.text()?;
        section.text()?;
        match section.byte()? {
            0 => {
                section.number()?;
                functions += 1;
            }
            kind => anyhow::bail!("an import of kind {kind}, where only functions are expected"),
        }
    }
    Ok(functions)
}

/// Bytes that are not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).context("the module ends too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned LEB128 number.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        anyhow::bail!("a number of more than five bytes")
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.number()?;
        Ok(std::str::from_utf8(self.take(len)?)?)
    }
}
