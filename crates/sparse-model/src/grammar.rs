//! What generated text has to match: a JSON schema, a regular expression, or a grammar.
//!
//! The llguidance crate says which tokens may follow; all others are excluded before one is chosen. So the text always
//! matches, unless the number of tokens ends it before.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, toktrie::TokEnv};
use serde_json::{Value, json};

use crate::tokenizer::Tokenizer;
use crate::{Error, Model};

/// Key of a schema under which llguidance looks for options.
const OPTIONS: &str = "x-guidance";

/// What a text has to match.
///
/// JSON is written on one line, a space behind commas and colons: models that may indent it sometimes never stop. A
/// schema with `x-guidance`, llguidance's options, may say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grammar {
    /// A JSON object of any shape.
    Json,
    /// A JSON value that this JSON schema, itself JSON, describes.
    JsonSchema(String),
    /// The regular expression, as a whole, in the syntax of the `regex` crate.
    Regex(String),
    /// A grammar in llguidance's variant of Lark.
    Lark(String),
}

impl Grammar {
    fn compile(&self) -> Result<TopLevelGrammar, Error> {
        let schema = |mut schema: Value| {
            if let Value::Object(schema) = &mut schema {
                schema.entry(OPTIONS).or_insert_with(
                    || json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " }),
                );
            }
            TopLevelGrammar::from_json_schema(schema)
        };
        Ok(match self {
            Self::Json => schema(json!({ "type": "object" })),
            Self::JsonSchema(text) => {
                schema(serde_json::from_str(text).map_err(|e| Error::Grammar {
                    kind: "JSON schema",
                    problem: format!("is not JSON: {e}"),
                })?)
            }
            Self::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Self::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Json | Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "grammar",
        }
    }
}

/// A model's vocabulary, arranged for matching.
pub(crate) struct Vocabulary(ParserFactory);

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").finish_non_exhaustive()
    }
}

impl Vocabulary {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let words: Vec<Vec<u8>> = (0..tokenizer.vocab_len() as u32)
            .map(|id| {
                let bytes = tokenizer.token_bytes(id);
                match tokenizer.is_control(id) || tokenizer.is_eog(id) {
                    true => [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat(),
                    false => bytes,
                }
            })
            .collect();
        let ends: Vec<u32> = tokenizer.end_of_generation().collect();
        let end = tokenizer.eos().or(ends.first().copied());
        let problem = "the model has no token that ends a text, so that no grammar could end";
        let end = end.ok_or_else(|| Error::Grammar { kind: "grammar", problem: problem.into() })?;
        let info = TokRxInfo::new(words.len() as u32, end);
        let mut all = vec![end];
        all.extend(ends.into_iter().filter(|id| *id != end));
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&all);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| unusable("grammar", &e))?;
        factory.quiet();
        Ok(Self(factory))
    }
}

/// The state of one text.
pub(crate) struct Matcher {
    matcher: llguidance::Matcher,
    kind: &'static str,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Matcher {
    /// # Errors
    /// If the grammar is malformed, or no text matches it.
    pub(crate) fn new(model: &Model, grammar: &Grammar) -> Result<Self, Error> {
        let kind = grammar.kind();
        let parser = model.grammar_vocabulary()?.0.create_parser(grammar.compile()?);
        let mut matcher = llguidance::Matcher::new(parser);
        // Grammars that nothing matches show it at the first token, if not before.
        let first = matcher.compute_mask().map_err(|e| unusable(kind, &e))?;
        match first.is_zero() {
            true => Err(Error::Grammar { kind, problem: "matches no text".into() }),
            false => Ok(Self { matcher, kind }),
        }
    }

    /// Sets the logits of tokens that cannot follow to minus infinity.
    ///
    /// # Errors
    /// If none can.
    pub(crate) fn exclude(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|e| unusable(self.kind, &e))?;
        let mut any = false;
        for (logit, id) in logits.iter_mut().zip(0..) {
            match (id as usize) < mask.len() && mask.is_allowed(id) {
                true => any = true,
                false => *logit = f32::NEG_INFINITY,
            }
        }
        match any {
            true => Ok(()),
            false => Err(Error::Grammar { kind: self.kind, problem: "allows no token here".into() }),
        }
    }

    /// Takes the chosen token; says whether nothing can follow.
    pub(crate) fn push(&mut self, token: u32) -> Result<bool, Error> {
        self.matcher.consume_token(token).map_err(|e| unusable(self.kind, &e))?;
        Ok(self.matcher.is_stopped())
    }
}

fn unusable(kind: &'static str, error: &impl fmt::Display) -> Error {
    let problem = error.to_string();
    // What follows the first paragraph is about llguidance.
    let problem = problem.split("\n\n").next().unwrap_or_default().trim().to_owned();
    Error::Grammar { kind, problem }
}
