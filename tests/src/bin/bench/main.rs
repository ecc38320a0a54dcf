//! The benchmark that changes are measured against: the promised figures in one table, single
//! loads, and how cost grows.
//!
//! Callers publish and endpoints receive. Each figure comes with losses, duplicates, and the cost
//! in each process.

mod arguments;
mod arrivals;
mod attacks;
mod fresh;
mod growth;
mod harm;
mod history;
mod lines;
mod load;
mod machine;
mod memory;
mod pace;
mod progress;
mod report;
mod servers;
mod streams;
mod table;
mod turns;
mod world;

use anyhow::{Result, ensure};
use arguments::{Arguments, Table, What};
use clap::Parser;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its numbers mean nothing; use cargo run --release");
    }
    machine::Machine::measure().await?.print();
    match arguments.what.unwrap_or_else(|| What::Table(Table::whole())) {
        What::Table(table) => table::run(&table).await,
        What::Growth(growth) => growth::run(&growth).await,
        What::Attacks(attacks) => attacks::run(&attacks).await,
        What::Run(load) => {
            let outcome = load::run(&load).await?;
            report::print(&load, &outcome);
            ensure!(outcome.harm.none(), "{}", outcome.harm);
            Ok(())
        }
    }
}
