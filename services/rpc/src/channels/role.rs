//! A role in another process: the channel to it, and what is told when it does not answer. The log
//! says which role, where, and why; whoever called learns only that a server is missing, since
//! addresses of the inside are nobody else's business.

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

/// Between two lines of the log about one role: while it is away, every call fails.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// What callers learn.
const MISSING: &str = "a server that is needed does not answer";

/// A channel to a role, with its address for the log.
#[derive(Debug, Clone)]
pub struct RoleChannel {
    channel: Channel,
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    url: String,
    told: Mutex<Option<Instant>>,
}

impl RoleChannel {
    /// A channel to this URL.
    pub(crate) fn new(channel: Channel, url: &Uri) -> Self {
        let scheme = url.scheme_str().unwrap_or_default();
        // Without what may stand before the host, as a password does.
        let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let url = format!("{scheme}://{}{port}", url.host().unwrap_or_default());
        Self { channel, place: Arc::new(Place { url, told: Mutex::default() }) }
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Where the role is: scheme, host and port.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.place.url
    }

    /// Says in the log that the role did not answer, and why; at most once a second.
    pub fn tell(&self, role: &str, why: impl fmt::Display) {
        let mut told = self.place.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(role, url = self.place.url, error = %why, "a role cannot be reached");
        }
    }

    /// The error of a call to the role, for whoever called us: what a role of ours says is passed
    /// on as it is. What the transport says, or something that is no role, goes to the log.
    #[must_use]
    pub fn failed(&self, role: &str, status: &Status) -> Error {
        let error = from_status(status);
        if says_a_role(status) || matches!(error.reason, Reason::TooLarge | Reason::UnknownMethod) {
            return error;
        }
        self.tell(role, cause::of_status(status));
        Error { message: MISSING.into(), ..error }
    }
}

/// Whether a status is an answer of one of ours.
#[must_use]
pub fn says_a_role(status: &Status) -> bool {
    status.get_error_details().error_info().is_some_and(|info| info.domain == DOMAIN)
}
