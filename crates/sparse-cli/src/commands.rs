//! One module per command.

pub(crate) mod bench;
#[cfg(feature = "calibrate")]
pub(crate) mod calibrate;
#[cfg(feature = "chat")]
pub(crate) mod chat;
pub(crate) mod chat_template;
pub(crate) mod convert;
pub(crate) mod embed;
pub(crate) mod generate;
pub(crate) mod inspect;
#[cfg(feature = "calibrate")]
pub(crate) mod perplexity;
#[cfg(feature = "calibrate")]
pub(crate) mod profile;
#[cfg(feature = "pull")]
pub(crate) mod pull;
pub(crate) mod search;
#[cfg(feature = "serve")]
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod similarity;
pub(crate) mod tokenize;
