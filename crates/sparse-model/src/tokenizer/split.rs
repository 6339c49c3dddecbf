//! Cutting text into the words inside which byte-level BPE merges.
//!
//! The expressions are those of the models' own tokenizers, with the names that GGUF files give them; which name
//! means which expression, and how they combine, is as in llama.cpp's `llama-vocab.cpp`.

use tokenizers::utils::SysRegex;

use super::TokenizerError;

/// A way to cut text: each expression cuts the pieces that the one before left, into its matches and what lies
/// between them.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    expressions: &'static [&'static str],
    /// A word that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Texts begin with the beginning-of-text token unless the file says otherwise.
    pub(super) add_bos: bool,
}

/// The expression of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The expression of Llama 3: case does not matter in contractions, a letter run takes any one character before it,
/// numbers go by threes, and line ends stay with the punctuation before them.
const LLAMA3: &str = concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The expression of Qwen 2: that of Llama 3 with single digits.
const QWEN2: &str = concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The expression of GPT-4o: a word begins anew where small letters are followed by a capital one.
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The expression of Mistral's Tekken: that of GPT-4o without contractions, with single digits.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        expressions: &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
        ],
        expressions: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        expressions: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "lfm2",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "jina-v5-nano",
        ],
        expressions: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["minicpm5"],
        expressions: &[r"\p{N}{1,3}", LLAMA3],
        ignore_merges: true,
        add_bos: false,
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2"],
        expressions: &[GPT4O],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["tekken"], expressions: &[TEKKEN], ignore_merges: true, add_bos: true },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe"],
        expressions: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        expressions: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
];

impl PreTokenizer {
    /// The one that GGUF files call `name`.
    pub(super) fn named(name: &str) -> Result<&'static Self, TokenizerError> {
        PRE_TOKENIZERS.iter().find(|p| p.names.contains(&name)).ok_or_else(|| {
            let names = PRE_TOKENIZERS.iter().flat_map(|p| p.names).copied().collect::<Vec<_>>();
            TokenizerError::PreTokenizer { found: name.to_owned(), supported: names.join(", ") }
        })
    }

    pub(super) fn splitter(&self) -> Splitter {
        let compile = |e: &&str| SysRegex::new(e).expect("a constant expression is well-formed");
        Splitter(self.expressions.iter().map(compile).collect())
    }
}

/// A [`PreTokenizer`]'s compiled expressions.
#[derive(Debug)]
pub(super) struct Splitter(Vec<SysRegex>);

impl Splitter {
    /// Calls `word` with the words of `text`, in order; together they are `text`.
    pub(super) fn words<'t>(&self, text: &'t str, word: &mut impl FnMut(&'t str)) {
        cut(&self.0, text, word);
    }
}

fn cut<'t>(expressions: &[SysRegex], text: &'t str, word: &mut impl FnMut(&'t str)) {
    let Some((first, rest)) = expressions.split_first() else {
        return word(text);
    };
    let mut end = 0;
    for (start, stop) in first.find_iter(text) {
        if start > end {
            cut(rest, &text[end..start], word);
        }
        cut(rest, &text[start..stop], word);
        end = stop;
    }
    if end < text.len() {
        cut(rest, &text[end..], word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pre: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        PreTokenizer::named(pre).unwrap().splitter().words(text, &mut |w| words.push(w.to_owned()));
        words
    }

    #[test]
    fn every_name_has_expressions_that_compile() {
        for name in PRE_TOKENIZERS.iter().flat_map(|p| p.names) {
            assert_eq!(words(name, "a b").concat(), "a b", "{name}");
        }
    }

    #[test]
    fn no_name_means_two_things() {
        let mut names = PRE_TOKENIZERS.iter().flat_map(|p| p.names).collect::<Vec<_>>();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn words_of_each_expression() {
        let text = "I'LL say: 'it's 12345!!\n\n  done ";
        for (pre, expected) in [
            ("gpt-2", "I|'|LL| say|:| '|it|'s| 12345|!!|\n\n | done| "),
            ("smollm", "I|'|LL| say|:| '|it|'s| |1|2|3|4|5|!!|\n\n | done| "),
            ("llama-bpe", "I|'LL| say|:| '|it|'s| |123|45|!!\n\n| | done| "),
            ("minicpm5", "I|'LL| say|:| '|it|'s| |123|45|!!\n\n| | done| "),
            ("qwen2", "I|'LL| say|:| '|it|'s| |1|2|3|4|5|!!\n\n| | done| "),
            ("gpt-4o", "I'LL| say|:| '|it's| |123|45|!!\n\n| | done| "),
            ("tekken", "I|'LL| say|:| '|it|'s| |1|2|3|4|5|!!\n\n| | done| "),
            ("default", "I|'|LL| say|:| |'|it|'|s| |123|45|!!|\n\n | done| "),
        ] {
            assert_eq!(words(pre, text).join("|"), expected, "{pre}");
        }
    }

    #[test]
    fn words_begin_at_capital_letters_where_the_expression_says_so() {
        let text = "getHTTPResponseForЖизнь";
        assert_eq!(words("llama-bpe", text), [text]);
        for pre in ["gpt-4o", "tekken"] {
            assert_eq!(words(pre, text), ["get", "HTTPResponse", "ForЖизнь"], "{pre}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let e = PreTokenizer::named("gpt-9").unwrap_err().to_string();
        assert!(e.contains("\"gpt-9\"") && e.contains("smollm") && e.contains("qwen2"), "{e}");
    }
}
