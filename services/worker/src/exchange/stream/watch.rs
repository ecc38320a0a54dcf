//! The observations of the streams of a connection, for its owner.

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

/// The data that the owner of a connection shares with its streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The number of the exchange. Each begins with fresh counts.
    exchange: AtomicU32,
    /// The number of the first fault, or 0.
    fault: AtomicU8,
    /// Whether a write failed.
    deaf: AtomicBool,
    /// Whether the last write waits because the other side does not read.
    stuck: AtomicBool,
    /// Whether any byte has arrived in the exchange, above TLS.
    heard: AtomicBool,
    /// The status of the response, or 0 until its line has arrived.
    status: AtomicU16,
    /// The recorded fields of a head that was rewritten for the HTTP library.
    fields: Mutex<Option<Vec<(String, String)>>>,
    /// When the connection ended.
    ended: OnceLock<Instant>,
}

impl Watch {
    /// Begins the next exchange.
    pub(crate) fn begin(&self) {
        self.0.heard.store(false, Ordering::Relaxed);
        self.0.status.store(0, Ordering::Relaxed);
        self.0.exchange.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the other side accepted everything that was written. Only then can the connection be
    /// reused.
    pub(crate) fn is_intact(&self) -> bool {
        !self.0.deaf.load(Ordering::Relaxed)
    }

    /// Whether a write is not accepted.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.stuck.load(Ordering::Relaxed)
    }

    /// Returns the fault for which reading was given up, if it was.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let number = self.0.fault.load(Ordering::Relaxed);
        Fault::ALL.into_iter().find(|fault| *fault as u8 == number)
    }

    /// Records that a part of a response has arrived.
    pub(crate) fn has_heard(&self) {
        self.0.heard.store(true, Ordering::Relaxed);
    }

    /// Whether a part of a response has arrived.
    pub(crate) fn heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Records that the status line of the response has arrived.
    pub(crate) fn has_status(&self, status: u16) {
        self.0.status.store(status, Ordering::Relaxed);
    }

    /// Returns the status of the response, once its line has arrived.
    pub(crate) fn status(&self) -> Option<u16> {
        Some(self.0.status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// Records the fields of a rewritten head.
    pub(crate) fn has_fields(&self, fields: Vec<(String, String)>) {
        *self.0.fields.lock().unwrap_or_else(PoisonError::into_inner) = Some(fields);
    }

    /// Returns the recorded fields of a rewritten head.
    pub(crate) fn take_fields(&self) -> Option<Vec<(String, String)>> {
        self.0.fields.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records that the connection has ended.
    pub(crate) fn end(&self) {
        let _ = self.0.ended.set(Instant::now());
    }

    /// Returns when the connection ended, if it did.
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

    /// Whether a write failed.
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
