//! `outrider completions`: what a shell needs to complete our command lines.

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::stdout;

/// For which shell.
#[derive(Debug, Args)]
pub struct Completions {
    pub shell: Shell,
}

/// Prints the script.
pub fn run(options: &Completions, command: &mut Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, command, "outrider", &mut script);
    stdout::write(&String::from_utf8(script)?)
}
