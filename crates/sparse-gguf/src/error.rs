//! The error of everything in this crate.

use std::io;
use std::path::PathBuf;

use crate::GgmlType;

/// What can go wrong with a GGUF file. Messages name the key, the tensor or the offset, what was expected and
/// what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or mapped.
    #[error("cannot open `{}`: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A path that leads to something else than a file, which cannot be mapped.
    #[error("`{}` is a {found}, expected a gguf file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there: a folder, a pipe, a device.
        found: &'static str,
    },
    /// A part of a model in several files that is not there.
    #[error("part {part} of {count} of the model is missing: `{}`", path.display())]
    MissingPart {
        /// Where it should be.
        path: PathBuf,
        /// Which part, from 1.
        part: usize,
        /// Parts of the model.
        count: usize,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A part of a model in several files that cannot be used.
    #[error("cannot use the part `{}` of the model", path.display())]
    InPart {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// A part of a model whose name does not lead to the other parts.
    #[error("`{}` is part {part} of {count} of a model, and the other parts are found by their names: \
        expected one that ends in `{ending}`", path.display())]
    SplitName {
        /// The file.
        path: PathBuf,
        /// Which part, from 1.
        part: usize,
        /// Parts of the model.
        count: usize,
        /// How its name should end.
        ending: String,
    },
    /// Some parts of a model without the others.
    #[error("{given} of {count} parts of a model given, expected all (from files, they are found by name)")]
    IncompleteSplit {
        /// Parts given.
        given: usize,
        /// Parts of the model.
        count: usize,
    },
    /// A part beyond the number of parts.
    #[error("metadata key `split.no` is {found}, expected less than the {count} of `split.count`")]
    SplitIndex {
        /// The part, from 0.
        found: usize,
        /// Parts of the model.
        count: usize,
    },
    /// A part that says it is another one.
    #[error("part {part} of the model has `split.no` {found}, expected {}", part - 1)]
    SplitOrder {
        /// Which part it should be, from 1.
        part: usize,
        /// Which part it says it is, from 0.
        found: usize,
    },
    /// A part that states something else than the first part does.
    #[error("part {part} belongs to another model: its `{key}` is {found}, in part 1 it is {expected}")]
    ForeignPart {
        /// Which part, from 1.
        part: usize,
        /// The metadata key.
        key: String,
        /// Its value in the part.
        found: String,
        /// Its value in the first part.
        expected: String,
    },
    /// A tensor in more than one part of a model.
    #[error("tensor `{tensor}` is in part {first} and in part {second} of the model")]
    TensorInTwoParts {
        /// The tensor.
        tensor: String,
        /// One part, from 1.
        first: usize,
        /// The other.
        second: usize,
    },
    /// Parts that hold more or fewer tensors than they say.
    #[error("the parts of the model have {found} tensors, expected the {expected} of `split.tensors.count`")]
    SplitTensors {
        /// Tensors in all parts.
        found: usize,
        /// What the first part states.
        expected: usize,
    },
    /// The file does not start with the letters `GGUF`.
    #[error("not a gguf file: starts with \"{}\", expected \"GGUF\"", found.escape_ascii())]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A GGUF version other than 2 and 3.
    #[error("unsupported gguf version {version}: only versions 2 and 3 are read{}",
        if *version == 1 { " (version 1 has 32-bit lengths; convert the model again)" } else { "" })]
    UnsupportedVersion {
        /// The version that the file states.
        version: u32,
    },
    /// A file written in big-endian byte order.
    #[error("big-endian gguf file (version {version}): only little-endian files are read")]
    BigEndian {
        /// The version that the file states, once its bytes are swapped.
        version: u32,
    },
    /// The file ends before what it announces, or announces more than it can hold.
    #[error("truncated gguf file: {what} at offset {offset} needs {needed} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it starts in the file.
        offset: u64,
        /// The (least) number of bytes it takes.
        needed: u64,
        /// The number of bytes from there to the end of the file.
        left: u64,
    },
    /// Text that is not UTF-8 where it has to be exact: in the tokenizer, and in names of tensors.
    #[error("{what} at offset {offset} is not valid utf-8 (from its byte {valid_up_to} on)")]
    InvalidUtf8 {
        /// What was being read.
        what: String,
        /// Where the text starts in the file.
        offset: u64,
        /// The number of valid bytes before the first invalid one.
        valid_up_to: usize,
    },
    /// A number in the file that has no meaning where it stands.
    #[error("{what} at offset {offset} is {found}, expected {expected}")]
    Invalid {
        /// What was being read.
        what: String,
        /// Where it stands in the file.
        offset: u64,
        /// The number.
        found: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// A metadata key that occurs twice.
    #[error("metadata key `{key}` occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A metadata key of no characters.
    #[error("metadata key {index} is empty")]
    EmptyKey {
        /// Which key of the file, from 0.
        index: u64,
    },
    /// A metadata key that is needed and absent.
    #[error("metadata key `{key}` is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value of another type than the one asked for.
    #[error("metadata key `{key}` has type {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// An integer that does not fit the type asked for.
    #[error("metadata key `{key}` is {found}, which does not fit {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The value in the file.
        found: i128,
    },
    /// A `general.alignment` that is no power of two or no multiple of 8.
    #[error("metadata key `general.alignment` is {found}, expected a power of two that is a multiple of 8")]
    BadAlignment {
        /// The value in the file.
        found: u32,
    },
    /// A tensor name that occurs twice.
    #[error("tensor `{tensor}` occurs twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that is needed and absent.
    #[error("tensor `{tensor}` is missing")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
    /// Dimensions whose product, in values or bytes, exceeds the address space.
    #[error("tensor `{tensor}` of dimensions {dims:?} is too large for this machine's address space")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its dimensions, the row length first.
        dims: Vec<u64>,
    },
    /// A row length that is no multiple of the format's block length.
    #[error("tensor `{tensor}` has rows of {cols} values, expected a multiple of {block_len} ({ty} blocks)")]
    RaggedRow {
        /// The tensor.
        tensor: String,
        /// Its row length.
        cols: usize,
        /// Values per block.
        block_len: usize,
        /// Its type.
        ty: GgmlType,
    },
    /// A tensor offset that is no multiple of the file's alignment.
    #[error("tensor `{tensor}` has data offset {offset}, expected a multiple of the alignment {alignment}")]
    MisalignedTensor {
        /// The tensor.
        tensor: String,
        /// Its offset from the start of the data section.
        offset: u64,
        /// The file's alignment.
        alignment: usize,
    },
    /// Two tensors that share bytes.
    #[error("the data of tensors `{first}` and `{second}` overlap at offset {offset}")]
    OverlappingTensors {
        /// The tensor that starts first.
        first: String,
        /// The tensor that starts inside it.
        second: String,
        /// Where the second one starts in the file.
        offset: u64,
    },
    /// A tensor stored in a type that this crate cannot decode.
    #[error("tensor `{tensor}` has type {ty}, which is not supported")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: GgmlType,
    },
    /// A buffer whose length differs from the number of values or bytes it is for.
    #[error("{what} has length {found}, expected {expected}")]
    WrongLength {
        /// The buffer, and the tensor where there is one.
        what: String,
        /// The length needed.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// Values that are no whole number of blocks.
    #[error("{found} values are no whole number of {format} blocks of {block_len}")]
    PartialBlock {
        /// The format's name.
        format: &'static str,
        /// Values per block.
        block_len: usize,
        /// The number of values given.
        found: usize,
    },
    /// A format that this crate decodes and does not encode.
    #[error("there is no quantizer to {format}")]
    NoQuantizer {
        /// The format's name.
        format: &'static str,
    },
    /// A tensor's own scale that is no number, or too large.
    #[error("tensor `{tensor}` has the scale {scale}, which half precision does not hold")]
    BadScale {
        /// The tensor.
        tensor: String,
        /// Its scale.
        scale: f32,
    },
    /// A value to quantize that is NaN or infinite.
    #[error("value {index} is {value}, which cannot be quantized")]
    NotFinite {
        /// Which value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value to quantize, or the scale of its block, that overflows the format's floats.
    #[error("the block at value {index} is too large in magnitude for {format}")]
    TooLargeToQuantize {
        /// The first value of the block.
        index: usize,
        /// The format's name.
        format: &'static str,
    },
    /// More than four dimensions.
    #[error("tensor `{tensor}` has {found} dimensions, expected at most 4")]
    TooManyDims {
        /// The tensor.
        tensor: String,
        /// The number of dimensions given.
        found: usize,
    },
    /// Data for a tensor whose turn it is not.
    #[error("data for tensor `{tensor}` given, expected {}",
        match due { Some(due) => format!("data for tensor `{due}`"), None => "no more".to_owned() })]
    UnexpectedTensor {
        /// The tensor given.
        tensor: String,
        /// The tensor expected, if any is left.
        due: Option<String>,
    },
    /// A file to be finished without all data of a tensor.
    #[error("tensor `{tensor}` is incomplete: {found} of {expected} bytes were written")]
    IncompleteTensor {
        /// The tensor.
        tensor: String,
        /// The tensor's bytes.
        expected: usize,
        /// The bytes written.
        found: usize,
    },
    /// The destination of a new file refused bytes.
    #[error("cannot write {what}: {source}")]
    Write {
        /// The file, the tensor or the part of the file.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn too_large(tensor: &str, dims: impl IntoIterator<Item = u64>) -> Self {
        Self::TooLarge { tensor: tensor.to_owned(), dims: dims.into_iter().collect() }
    }
}
