//! The tests of layers, screens and predictors in one program, which is linked once.

mod engine;
mod ffn;
#[cfg(feature = "fit")]
mod fit;
mod interleaved;
mod screen;
mod segments;
#[cfg(feature = "fit")]
mod trained;
