//! Tokens that text processing does not produce: which they are, where a text names them.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::AhoCorasick;

use super::TokenizerError;
use super::tokens::{Kind, Tokens};
use super::vocab::SpecialIds;

/// Texts of tokens that end a turn. This and the other lists are llama.cpp's (`llama-vocab.cpp`), which has to
/// guess as well: files rarely say.
const EOT: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const EOM: &[&str] = &["<|eom_id|>"];
const FIM_PRE: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FIM_SUF: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FIM_MID: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REP: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_SEP: &[&str] = &["<|file_sep|>"];

/// Texts of tokens that end a generation, whatever else the file says.
const EOG: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Control tokens whose text a reader is to see (gpt-oss).
const VISIBLE: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Finds the tokens that end a generation, and corrects the kinds of those that their text betrays.
pub(super) fn end_of_generation(tokens: &mut Tokens, ids: &SpecialIds) -> BTreeSet<u32> {
    let mut named = |id: Option<u32>, texts: &[&str]| {
        id.or_else(|| {
            let found = texts.iter().find_map(|t| tokens.find(t));
            found.inspect(|&id| tokens.set_kind(id, tokens.kind(id).or(Kind::CONTROL)))
        })
    };
    let [eot, eom] = [named(ids.eot, EOT), named(ids.eom, EOM)];
    named(ids.fim_pre, FIM_PRE);
    named(ids.fim_suf, FIM_SUF);
    named(ids.fim_mid, FIM_MID);
    let fim = [named(ids.fim_pad, FIM_PAD), named(ids.fim_rep, FIM_REP), named(ids.fim_sep, FIM_SEP)];

    let mut ends: BTreeSet<u32> = fim.into_iter().flatten().collect();
    for text in EOG {
        if let Some(id) = tokens.find(text) {
            ends.insert(id);
            tokens.set_kind(id, tokens.kind(id).or(Kind::CONTROL));
        }
    }
    for text in VISIBLE {
        if let Some(id) = tokens.find(text) {
            tokens.set_kind(id, Kind::USER_DEFINED);
        }
    }
    ends.extend([ids.eos, eot, eom].into_iter().flatten());

    // gpt-oss and Solar: `<|end|>` ends a message there, not the generation.
    let among = |text: &str| tokens.find(text).filter(|id| ends.contains(id));
    let has = |text: &str| among(text).is_some();
    let calls = has("<|call|>") || has("<|calls|>");
    let message_end = among("<|end|>").filter(|_| calls && (has("<|return|>") || has("<|flush|>")));
    // Gemma 4 and PLaMo: `</s>` is ordinary text there.
    let ordinary = among("</s>").filter(|_| has("<|tool_response>") || has("<|plamo:eos|>"));
    for (id, kind) in [(message_end, Kind::USER_DEFINED), (ordinary, Kind::NORMAL)] {
        if let Some(id) = id {
            ends.remove(&id);
            tokens.set_kind(id, kind);
        }
    }
    ends
}

/// Marks the special tokens of Phi-3, whose tokenizer drops white space behind them. The file's model name is the
/// only sign of it.
pub(super) fn mark_phi3(tokens: &mut Tokens, name: Option<&str>) {
    let name = name.unwrap_or_default().to_ascii_lowercase();
    if !name.contains("phi-3") && !name.contains("phi3") {
        return;
    }
    let keep = ["<unk>", "<s>", "<|endoftext|>"].map(|t| tokens.find(t));
    let end = tokens.find("</s>");
    for id in 0..tokens.len() as u32 {
        let kind = tokens.kind(id);
        if (kind.any(SPECIAL) || Some(id) == end) && !keep.contains(&Some(id)) {
            tokens.set_kind(id, kind.or(Kind::RSTRIP));
        }
    }
}

/// What a text can name.
const SPECIAL: Kind = Kind::CONTROL.or(Kind::USER_DEFINED).or(Kind::UNKNOWN);

/// Part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// The special tokens of a vocabulary, to be found in texts.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// Ids, the longest text first: the order in which they claim their places.
    ids: Vec<u32>,
    /// Their texts in the same order.
    texts: AhoCorasick,
}

impl SpecialTokens {
    pub(super) fn new(tokens: &Tokens) -> Result<Self, TokenizerError> {
        let mut special = tokens.iter().filter(|&(id, _)| tokens.kind(id).any(SPECIAL)).collect::<Vec<_>>();
        special.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
        let texts = AhoCorasick::new(special.iter().map(|(_, text)| text))
            .map_err(|e| TokenizerError::SpecialTokens(e.to_string()))?;
        Ok(Self { ids: special.into_iter().map(|(id, _)| id).collect(), texts })
    }

    /// The special tokens.
    #[cfg(feature = "chat")]
    pub(super) fn iter<'a>(&'a self, tokens: &'a Tokens) -> impl Iterator<Item = (u32, &'a str)> {
        self.ids.iter().filter_map(|&id| Some((id, tokens.get(id)?)))
    }

    /// Cuts `text` at the special tokens in it: user-defined ones always, control tokens and the unknown token only
    /// if `parse`, none that overlaps the byte ranges `literal` (sorted, apart from each other).
    ///
    /// The longest token takes all its places in the text, from left to right, then the next longest what is left
    /// (llama.cpp's order; not that of a leftmost search).
    pub(super) fn split<'t>(
        &self,
        tokens: &Tokens,
        text: &'t str,
        parse: bool,
        literal: &[Range<usize>],
    ) -> Vec<Fragment<'t>> {
        let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
        // Where `token` first stands in `part` outside the literal ranges.
        let find = |part: &str, token: &str| {
            let free = |at: usize| {
                let (start, end) = (offset(part) + at, offset(part) + at + token.len());
                let next = literal.partition_point(|range| range.end <= start);
                literal.get(next).is_none_or(|range| end <= range.start)
            };
            part.match_indices(token).map(|(at, _)| at).find(|&at| free(at))
        };
        let found = self.texts.find_overlapping_iter(text).map(|found| found.pattern().as_usize());
        let claims = found.filter(|&i| parse || !tokens.is_parsed(self.ids[i])).collect::<BTreeSet<_>>();
        let mut fragments = vec![Fragment::Text(text)];
        for id in claims.into_iter().map(|i| self.ids[i]) {
            let Some(token) = tokens.get(id) else { continue };
            let strip = tokens.kind(id).any(Kind::RSTRIP);
            let mut cut = Vec::with_capacity(fragments.len() + 2);
            for fragment in fragments {
                let Fragment::Text(mut rest) = fragment else {
                    cut.push(fragment);
                    continue;
                };
                while let Some(at) = find(rest, token) {
                    let (before, behind) = (&rest[..at], &rest[at + token.len()..]);
                    cut.extend([Fragment::Text(before), Fragment::Token(id)]);
                    rest = if strip { behind.trim_start_matches(is_space) } else { behind };
                }
                cut.push(Fragment::Text(rest));
            }
            fragments = cut;
        }
        fragments.retain(|fragment| *fragment != Fragment::Text(""));
        fragments
    }
}

/// White space as C has it.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
