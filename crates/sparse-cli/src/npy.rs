//! NumPy's array files: a line of text about the values, then the values
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::io::{self, Write};

/// Bytes before the text: magic, version 1.0, length of the text.
const PREFIX: usize = 10;
/// The values begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// Writes what stands before the values of a matrix of f32, row after row, lowest byte first.
pub(crate) fn write_header(out: &mut impl Write, rows: usize, cols: usize) -> io::Result<()> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let padded = (PREFIX + text.len() + 1).next_multiple_of(ALIGNMENT) - PREFIX;
    let length = u16::try_from(padded).expect("two numbers and sixty characters").to_le_bytes();
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&length)?;
    writeln!(out, "{text:<width$}", width = padded - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_the_format_gets_the_values() {
        for (rows, cols) in [(0, 384), (1, 1), (2, 3), (123_456, 0), (1_000, 7)] {
            let values: Vec<f32> = (0..rows * cols).map(|i| i as f32 - 0.5).collect();
            let mut file = Vec::new();
            write_header(&mut file, rows, cols).unwrap();
            assert_eq!(file.len() % ALIGNMENT, 0);
            file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            let array = npyz::NpyFile::new(&file[..]).unwrap();
            assert_eq!(array.shape(), [rows as u64, cols as u64]);
            assert_eq!(array.order(), npyz::Order::C);
            assert_eq!(array.into_vec::<f32>().unwrap(), values);
        }
    }
}
