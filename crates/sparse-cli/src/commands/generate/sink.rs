//! Where generated text goes.

use std::io::{self, IsTerminal, Stdout, Write};
use std::ops::ControlFlow;

use console::style;

use crate::{interrupt, output};

/// Collects the text, and prints it as it comes.
pub(super) struct Sink {
    /// `None` when the text is not to be printed.
    out: Option<Stdout>,
    is_terminal: bool,
    text: String,
    /// The error of printing that ended generation.
    error: Option<io::Error>,
}

impl Sink {
    pub(super) fn new(print: bool) -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Self { out: print.then_some(out), is_terminal, text: String::new(), error: None }
    }

    /// Prints the prompt, pale on a terminal.
    pub(super) fn prompt(&mut self, prompt: &str) -> io::Result<()> {
        self.print(&style(prompt).dim().to_string())
    }

    /// Takes the next piece of text. Asks to stop on Ctrl-C, and when nobody reads any more.
    pub(super) fn piece(&mut self, piece: &str) -> ControlFlow<()> {
        self.text.push_str(piece);
        let shown = if self.is_terminal { output::for_terminal(piece) } else { piece.into() };
        self.error = self.print(&shown).err();
        match self.error.is_some() || interrupt::requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Ends the last line; gives all text back.
    pub(super) fn finish(mut self) -> io::Result<String> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.text.ends_with('\n') {
            self.print("\n")?;
        }
        Ok(self.text)
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        match &mut self.out {
            Some(out) => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            None => Ok(()),
        }
    }
}
