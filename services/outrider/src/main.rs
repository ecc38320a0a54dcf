//! The binary `outrider`: command line, configuration, and the wiring of roles into a process.
//!
//! It must never hold a rule of the product: those are in the roles and in the model.

// Both panic if nobody reads the output any more: see `stdout` and `stderr`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod bounded;
mod cli;
mod client;
mod commands;
mod config;
#[cfg(test)]
mod flags;
mod keys;
mod operations;
mod printable;
mod receiver;
#[cfg(test)]
mod reference;
mod roles;
mod shutdown;
mod stderr;
mod stdout;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use self::stderr::note;

fn main() -> ExitCode {
    if let Err(error) = outrider_allocator::install() {
        note!("outrider: {error}");
        return ExitCode::FAILURE;
    }
    let cli = cli::Cli::parse();
    #[cfg(feature = "failpoints")]
    if let Err(error) = outrider_failpoints::arm() {
        note!("outrider: {error}");
        return ExitCode::FAILURE;
    }
    // Each connection is an open file, and a process often starts with a limit of 1,024. `serve`
    // warns if the limit cannot be raised.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note!("outrider: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("outrider: {error}");
            ExitCode::from(error.code())
        }
    }
}
