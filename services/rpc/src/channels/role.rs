//! A role in another process: the channel to it, and the report if it does not answer. The log says
//! which role, at which URL, and why. Callers learn only that a server is missing, because internal
//! addresses do not concern them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Uri;
use outrider_model::{Error, Reason};
use tokio::time::Instant;
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

use crate::wire::{
    cause,
    status::{DOMAIN, from_status},
};

/// Minimum time between log lines about one role: while it is down, every call fails.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The error that callers see.
const MISSING: &str = "a server that is needed does not answer";

/// A channel to a role, with its address for the log.
#[derive(Debug, Clone)]
pub struct RoleChannel {
    channel: Channel,
    target: Arc<Target>,
}

#[derive(Debug)]
struct Target {
    url: String,
    reported: Mutex<Option<Instant>>,
}

impl RoleChannel {
    /// Wraps a channel to this URL.
    pub(crate) fn new(channel: Channel, url: &Uri) -> Self {
        let scheme = url.scheme_str().unwrap_or_default();
        // Without a user and a password, which may precede the host.
        let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let url = format!("{scheme}://{}{port}", url.host().unwrap_or_default());
        Self { channel, target: Arc::new(Target { url, reported: Mutex::default() }) }
    }

    /// Returns the channel.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Returns the scheme, host and port of the role.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.target.url
    }

    /// Logs that the role did not answer, and why; at most once a second.
    pub fn report_unreachable(&self, role: &str, why: impl fmt::Display) {
        let mut reported = self.target.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL) {
            *reported = Some(Instant::now());
            tracing::warn!(role, url = self.target.url, error = %why, "a role cannot be reached");
        }
    }

    /// Converts the status of a failed call to the role into an error for our caller. The answer of
    /// a role is passed on unchanged. An error of the transport, or of a server that is not a role,
    /// is logged instead.
    #[must_use]
    pub fn call_error(&self, role: &str, status: &Status) -> Error {
        let error = from_status(status);
        if is_from_role(status) || matches!(error.reason, Reason::TooLarge | Reason::UnknownMethod)
        {
            return error;
        }
        self.report_unreachable(role, cause::of_status(status));
        Error { message: MISSING.into(), ..error }
    }
}

/// Whether a status is the answer of an Outrider role.
#[must_use]
pub fn is_from_role(status: &Status) -> bool {
    status.get_error_details().error_info().is_some_and(|info| info.domain == DOMAIN)
}
