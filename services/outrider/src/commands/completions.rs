//! `outrider completions`: what a shell needs to complete our command lines.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// For which shell.
#[derive(Debug, Args)]
pub struct Completions {
    pub shell: Shell,
}

/// Prints the script.
pub fn run(options: &Completions) {
    clap_complete::generate(options.shell, &mut Cli::command(), "outrider", &mut std::io::stdout());
}
