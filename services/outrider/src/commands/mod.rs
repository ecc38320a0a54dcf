//! Commands that work on this machine. Each has a file.

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
