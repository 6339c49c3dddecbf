//! `sparse tokenize`.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, bail};
use serde::Serialize;
use sparse_model::tokenizer::{EncodeOptions, Tokenizer};

use crate::args::TokenizeArgs;
use crate::exit::End;
use crate::{input, load, output};

#[derive(Serialize)]
struct Token {
    id: u32,
    /// The text, or what the vocabulary calls it when it holds a part of a character.
    piece: String,
    /// Whether `piece` is the text.
    whole: bool,
}

pub(crate) fn run(args: &TokenizeArgs) -> anyhow::Result<End> {
    let tokenizer = load::tokenizer(args.model.model.as_deref())?;
    let text = match &args.file {
        Some(path) => input::file(path)?,
        None => input::argument_or_stdin(args.text.as_ref(), if args.decode { "ids" } else { "text" })?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if args.decode {
        let ids = parse_ids(&text, tokenizer.vocab_len())?;
        writeln!(out, "{}", tokenizer.decode(&ids, args.no_special))?;
    } else if args.lines {
        let options = options(args);
        for (i, line) in text.split_terminator('\n').enumerate() {
            let ids =
                tokenizer.encode(line, options).with_context(|| format!("cannot tokenize line {}", i + 1))?;
            writeln!(out, "{ids:?}")?;
        }
    } else {
        let ids = tokenizer.encode(&text, options(args))?;
        print(args, &tokenizer, &ids, &mut out)?;
    }
    out.flush()?;
    Ok(End::Finished)
}

fn options(args: &TokenizeArgs) -> EncodeOptions {
    EncodeOptions { add_bos: !args.no_special, add_eos: !args.no_special, parse_special: args.parse_special }
}

fn print(
    args: &TokenizeArgs,
    tokenizer: &Tokenizer,
    ids: &[u32],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let tokens = ids.iter().map(|&id| Token::new(tokenizer, id));
    if args.ids {
        writeln!(out, "{ids:?}")?;
    } else if args.json {
        output::json(&tokens.collect::<Vec<_>>())?;
    } else {
        for Token { id, piece, whole } in tokens {
            let piece = piece.escape_debug();
            match whole {
                true => writeln!(out, "{id:>6}  \"{piece}\"")?,
                false => writeln!(out, "{id:>6}  {piece}  (part of a character)")?,
            }
        }
    }
    Ok(())
}

impl Token {
    fn new(tokenizer: &Tokenizer, id: u32) -> Self {
        let mut stream = tokenizer.decode_stream().keep_special();
        let text = stream.push(id).unwrap_or_default().to_owned();
        let whole = !text.contains('\u{fffd}') && stream.finish().is_none();
        let piece = if whole { text } else { tokenizer.token(id).unwrap_or_default().to_owned() };
        Self { id, piece, whole }
    }
}

fn parse_ids(text: &str, vocabulary: usize) -> anyhow::Result<Vec<u32>> {
    let words = text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|w| !w.is_empty());
    let mut ids = Vec::new();
    for word in words {
        match word.parse::<u32>() {
            Ok(id) if (id as usize) < vocabulary => ids.push(id),
            _ => bail!("`{word}` is no token id: expected a number below {vocabulary}"),
        }
    }
    Ok(ids)
}
