//! Queries on both backends, over what the ledger wrote.

mod by_id;
mod lists;
mod plans;
