//! History: events, deliveries and attempts. The ledger writes them, queries read them, retention
//! deletes them, and the audit proves that they add up.

pub(crate) mod audit;
mod chunked;
mod codec;
pub(crate) mod commit_log;
mod entity;
pub(crate) mod ledger;
pub(crate) mod queries;
pub(crate) mod retention;
mod retry;
