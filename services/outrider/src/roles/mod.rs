//! Turns a configuration into a running process. Each role has a file, which contains wiring only.

mod admin;
mod base;
mod check;
mod dispatch;
#[cfg(test)]
mod effects;
mod egress;
mod foundation;
mod gateway;
mod ingest;
mod messages;
mod process;
mod reload;
mod role;
mod tls;
mod worker;

pub use self::{
    check::check,
    egress::examiner,
    foundation::{create_master_key, first_options, options_without_key, store_options},
    process::start,
    role::{Role, Roles},
};
