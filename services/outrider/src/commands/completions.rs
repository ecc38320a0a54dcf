//! `outrider completions`: what a shell needs to complete our command lines.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{cli::Cli, stdout};

/// For which shell.
#[derive(Debug, Args)]
pub struct Completions {
    pub shell: Shell,
}

/// Prints the script.
pub fn run(options: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "outrider", &mut script);
    stdout::write(&String::from_utf8(script)?)
}
