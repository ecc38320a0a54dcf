//! What the command line does on this machine, a file per command.

pub mod bootstrap;
pub mod completions;
pub mod config;
mod configuration;
pub mod demo;
pub mod dev;
pub mod egress;
pub mod health;
pub mod listen;
pub mod migrate;
pub mod serve;
pub mod verify_ledger;
