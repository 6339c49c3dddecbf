//! `sparse completions` and `sparse man`: what shells and `man` know about this program.

use std::io::{self, Write};

use anyhow::Context;
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::End;

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<End> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sparse", &mut script);
    io::stdout().write_all(&script)?;
    Ok(End::Finished)
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<End> {
    let command = Cli::command();
    if let Some(folder) = &args.out {
        let written = || format!("cannot write to `{}`", folder.display());
        std::fs::create_dir_all(folder).with_context(written)?;
        clap_mangen::generate_to(command, folder).with_context(written)?;
        return Ok(End::Finished);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    io::stdout().write_all(&page)?;
    Ok(End::Finished)
}
