//! Commands that call a running gateway by gRPC. Each noun has a file.

mod connection;
pub mod deliveries;
pub mod endpoints;
pub mod event_types;
pub mod events;
mod failure;
mod follow;
pub mod input;
mod json;
pub mod keys;
mod lines;
mod output;
mod profile;
pub mod projects;
pub mod publish;
mod source;
mod status;
mod stream;
pub mod subscriptions;
pub mod tail;
mod tally;
mod watch;

pub use self::{
    connection::{ClientOptions, ServerOptions},
    failure::Failure,
};
