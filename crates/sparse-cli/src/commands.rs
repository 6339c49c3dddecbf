//! One module per command.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod perplexity;
pub(crate) mod tokenize;
