//! What the streams of a connection find, for its owner.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering},
    },
    task::Poll,
};

use tokio::time::Instant;

use crate::{fault::Fault, measure};

/// What the owner of a connection and its streams share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The number of the exchange: each begins with fresh counts.
    exchange: AtomicU32,
    /// The number of the first fault; 0 for none.
    fault: AtomicU8,
    /// A write failed.
    deaf: AtomicBool,
    /// The last write waits: the other side takes nothing.
    stuck: AtomicBool,
    /// Something has come in the exchange, above TLS.
    heard: AtomicBool,
    /// The status of the exchange's answer; 0 until its line has come.
    status: AtomicU16,
    /// What is kept of a head that the HTTP library did not get as it was.
    fields: Mutex<Option<Vec<(String, String)>>>,
    /// When the connection ended.
    ended: OnceLock<Instant>,
}

impl Watch {
    /// The next exchange begins.
    pub(crate) fn begin(&self) {
        self.0.heard.store(false, Ordering::Relaxed);
        self.0.status.store(0, Ordering::Relaxed);
        self.0.exchange.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all that was written was taken: only then the connection is of further use.
    pub(crate) fn is_intact(&self) -> bool {
        !self.0.deaf.load(Ordering::Relaxed)
    }

    /// Whether something that is to be written is not taken.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.stuck.load(Ordering::Relaxed)
    }

    /// Why reading was given up, if it was.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let number = self.0.fault.load(Ordering::Relaxed);
        Fault::ALL.into_iter().find(|fault| *fault as u8 == number)
    }

    /// A part of an answer has come.
    pub(crate) fn has_heard(&self) {
        self.0.heard.store(true, Ordering::Relaxed);
    }

    /// Whether a part of an answer has come.
    pub(crate) fn heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// The status line of the answer has come.
    pub(crate) fn has_status(&self, status: u16) {
        self.0.status.store(status, Ordering::Relaxed);
    }

    /// The status of the answer, once its line has come.
    pub(crate) fn status(&self) -> Option<u16> {
        Some(self.0.status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// The head of the answer was rewritten; this is kept of it.
    pub(crate) fn has_fields(&self, fields: Vec<(String, String)>) {
        *self.0.fields.lock().unwrap_or_else(PoisonError::into_inner) = Some(fields);
    }

    /// What is kept of a head that was rewritten.
    pub(crate) fn take_fields(&self) -> Option<Vec<(String, String)>> {
        self.0.fields.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The connection has ended.
    pub(crate) fn end(&self) {
        let _ = self.0.ended.set(Instant::now());
    }

    /// When the connection ended, if it did.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.0.ended.get().copied()
    }

    /// The number of the exchange under way.
    pub(crate) fn exchange(&self) -> u32 {
        self.0.exchange.load(Ordering::Relaxed)
    }

    /// Whether the last write waits.
    pub(super) fn set_stuck(&self, stuck: bool) {
        self.0.stuck.store(stuck, Ordering::Relaxed);
    }

    /// A write failed.
    pub(super) fn set_deaf(&self) {
        self.0.deaf.store(true, Ordering::Relaxed);
    }

    /// Notes the first fault, and fails.
    pub(crate) fn fail<T>(&self, fault: Fault) -> Poll<io::Result<T>> {
        if self
            .0
            .fault
            .compare_exchange(0, fault as u8, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            measure::exceeded(fault);
        }
        Poll::Ready(Err(io::Error::other(fault)))
    }
}
