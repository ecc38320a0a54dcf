//! `outrider completions`: prints the completion script for a shell.

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::stdout;

/// The shell.
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
