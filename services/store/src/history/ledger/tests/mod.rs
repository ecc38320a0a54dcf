//! The conformance suite of the ledger, which runs on every backend.

mod accept;
mod feed;
mod scale;
mod settle;
