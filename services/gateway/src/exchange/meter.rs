//! The counters of a route, looked up once and kept with the route.

use std::{fmt, sync::OnceLock};

use outrider_telemetry::{
    catalog::gateway::{REQUEST_SECONDS, REQUESTS},
    metrics::{Histogram, IntCounter},
};
use tonic::Code;

use crate::exchange::answer::code_name;

/// The HTTP statuses that REST answers with. All others are counted together.
const HTTP: [(u16, &str); 23] = [
    (200, "200"),
    (204, "204"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (501, "501"),
    (503, "503"),
    (504, "504"),
];
const CODES: usize = 17;
const SLOTS: usize = CODES + HTTP.len() + 3;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// With a REST answer.
    Http(u16),
    /// With this gRPC code.
    Grpc(Code),
    /// The client went away first.
    Cancelled,
    /// With 504, because the client's own deadline passed, which is shorter than the gateway's.
    ClientDeadline,
}

impl Status {
    fn slot(self) -> usize {
        match self {
            // Only the client cancels.
            Self::Grpc(Code::Cancelled) | Self::Cancelled => SLOTS - 1,
            Self::ClientDeadline => SLOTS - 2,
            Self::Grpc(code) => (code as usize).min(CODES - 1),
            Self::Http(status) => {
                CODES + HTTP.iter().position(|(known, _)| *known == status).unwrap_or(HTTP.len())
            }
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Grpc(Code::Cancelled) | Self::Cancelled => "cancelled",
            Self::ClientDeadline => "client-deadline",
            Self::Grpc(code) => code_name(code),
            Self::Http(status) => {
                HTTP.iter().find(|(known, _)| *known == status).map_or("other", |(_, name)| name)
            }
        }
    }

    /// Returns whether Outrider is at fault.
    pub(crate) fn is_failure(self) -> bool {
        match self {
            Self::Http(status) => status >= 500,
            Self::Grpc(code) => {
                matches!(code, Code::Internal | Code::Unknown | Code::Unavailable | Code::DataLoss)
            }
            Self::Cancelled | Self::ClientDeadline => false,
        }
    }
}

/// The counters of one route and protocol.
pub(crate) struct Meter {
    pub(crate) protocol: &'static str,
    method: &'static str,
    pub(crate) route: String,
    /// Whether it has no natural end.
    pub(crate) streams: bool,
    seconds: OnceLock<Histogram>,
    counters: [OnceLock<IntCounter>; SLOTS],
}

impl Meter {
    pub(crate) fn new(
        protocol: &'static str,
        method: &str,
        route: impl Into<String>,
        streams: bool,
    ) -> Self {
        Self {
            protocol,
            method: known(method),
            route: route.into(),
            streams,
            seconds: OnceLock::new(),
            counters: [const { OnceLock::new() }; SLOTS],
        }
    }

    /// Counts a request that ended.
    pub(crate) fn count(&self, status: Status, seconds: f64) {
        let of_route =
            || REQUEST_SECONDS.with_label_values(&[self.protocol, self.method, &self.route]);
        self.seconds.get_or_init(of_route).observe(seconds);
        let of_status = || {
            REQUESTS.with_label_values(&[self.protocol, self.method, &self.route, status.label()])
        };
        self.counters[status.slot()].get_or_init(of_status).inc();
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.protocol, self.method, self.route)
    }
}

/// An HTTP method. Clients may invent methods, which are counted together.
fn known(method: &str) -> &'static str {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    METHODS.into_iter().find(|known| *known == method).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_status_has_a_slot_of_its_own_and_few_labels() {
        let codes = (0..17).map(Code::from_i32).filter(|code| *code != Code::Cancelled);
        let statuses: Vec<Status> = codes
            .map(Status::Grpc)
            .chain(HTTP.map(|(status, _)| Status::Http(status)))
            .chain([Status::Http(299), Status::Cancelled, Status::ClientDeadline])
            .collect();
        assert_eq!(
            statuses.iter().map(|status| status.slot()).collect::<HashSet<_>>().len(),
            SLOTS - 1
        );
        assert_eq!(
            statuses.iter().map(|status| status.label()).collect::<HashSet<_>>().len(),
            SLOTS - 1
        );
        assert_eq!(Status::Grpc(Code::Cancelled).slot(), Status::Cancelled.slot());
        assert_eq!((Status::Http(418).label(), known("BREW")), ("other", "other"));
    }

    #[test]
    fn counts_by_route_and_status() {
        let meter = Meter::new("rest", "GET", "/v1/test", false);
        meter.count(Status::Http(200), 0.1);
        meter.count(Status::Http(200), 0.1);
        meter.count(Status::Http(503), 0.1);
        let of = |status| REQUESTS.with_label_values(&["rest", "GET", "/v1/test", status]).get();
        assert_eq!((of("200"), of("503")), (2, 1));
        assert_eq!(
            REQUEST_SECONDS.with_label_values(&["rest", "GET", "/v1/test"]).get_sample_count(),
            3
        );
    }
}
