//! The data that the parts of dispatch share.

use std::sync::Arc;

use outrider_queue::Queue;
use outrider_store::{Directory, Ledger, Store};

use crate::{
    options::{Given, Options},
    tail::Tails,
    windows::QueueWindows,
};

/// The data that every part of the role uses.
#[derive(Clone)]
pub struct Shared {
    pub options: Arc<Options>,
    pub given: Given,
    pub store: Store,
    pub ledger: Arc<dyn Ledger>,
    pub directory: Directory,
    pub queue: Arc<dyn Queue>,
    pub tails: Tails,
    pub windows: Arc<QueueWindows>,
}
