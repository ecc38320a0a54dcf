//! Rows of the ledger as queries read them. Payloads and answers are no columns here: they are read
//! for single items only.

pub(super) mod attempt;
pub(super) mod delivery;
pub(super) mod event;
pub(super) mod payload_erasure;
pub(super) mod payload_hold;
pub(super) mod pending_delivery;
pub(super) mod replay;
