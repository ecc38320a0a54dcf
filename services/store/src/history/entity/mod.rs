//! The rows of history as queries read them. Payloads and answers are left out, because they are
//! read only for single items.

pub mod attempt;
pub mod delivery;
pub mod event;
pub mod payload_erasure;
pub mod payload_hold;
pub mod pending_delivery;
pub mod replay;
