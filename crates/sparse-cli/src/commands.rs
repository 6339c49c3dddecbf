//! One module per command.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod chat_template;
pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod perplexity;
pub(crate) mod profile;
pub(crate) mod search;
pub(crate) mod similarity;
pub(crate) mod tokenize;
