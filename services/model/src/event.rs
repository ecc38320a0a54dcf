//! Events: immutable facts that were accepted.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{EventId, OrganizationId, ProjectId, Timestamp};

/// An accepted event without its payload. The only change that it can undergo is the erasure of the
/// payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub project: ProjectId,
    pub event_type: String,
    pub content_type: String,
    pub payload_size: u32,
    /// The producer's key, or one made by [`stream_key`]. [`Event::producer_key`] distinguishes
    /// them.
    pub idempotency_key: Option<String>,
    /// For the receiver.
    pub headers: BTreeMap<String, String>,
    /// The producer's notes.
    pub metadata: BTreeMap<String, String>,
    pub ordering_key: Option<String>,
    /// The requested time of the first attempt.
    pub deliver_at: Option<Timestamp>,
    /// Number of deliveries when it was accepted.
    pub delivery_count: u32,
    pub origin: Origin,
    /// The position in its trace, if it has one.
    pub trace: Option<Trace>,
    pub created_at: Timestamp,
    /// When the payload was erased, if it was. Its size is still known.
    pub payload_erased_at: Option<Timestamp>,
}

/// A validated event on its way from ingest to dispatch, which accepts it or refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedEvent {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub event_type: String,
    pub content_type: String,
    pub payload: Bytes,
    /// Absent if a repetition of the event is another event.
    pub idempotency: Option<Idempotency>,
    /// For the receiver.
    pub headers: BTreeMap<String, String>,
    /// The producer's notes.
    pub metadata: BTreeMap<String, String>,
    pub ordering_key: Option<String>,
    /// The requested time of the first attempt.
    pub deliver_at: Option<Timestamp>,
    pub origin: Origin,
    /// The position of the publish request in its trace, if it has one.
    pub trace: Option<Trace>,
}

/// An idempotency key with the content that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The producer's key, or one made by [`stream_key`].
    pub key: String,
    /// SHA-256 of everything that the producer gave. It distinguishes a repetition from a conflict.
    pub fingerprint: [u8; 32],
}

/// A committed event, as its producer learns about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedEvent {
    pub id: EventId,
    /// Whether its idempotency key had been used for the same event before.
    pub duplicate: bool,
    /// Number of endpoints that it goes to.
    pub delivery_count: u32,
    pub created_at: Timestamp,
}

/// An idempotency key under which an event may have been accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedKey {
    pub project: ProjectId,
    pub key: String,
    pub fingerprint: [u8; 32],
}

/// A position in a trace, as the headers of W3C Trace Context write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`. Empty if there is none.
    pub state: String,
}

/// The origin of an event. Inbound webhooks will add method, path, query and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Published through the API by this actor.
    Api { actor: String },
}

/// The reason for the number of deliveries of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingOutcome {
    Routed,
    NoSubscription,
}

/// Returns the idempotency key of an event that is only identified by its place in a stream. It
/// contains spaces, so it never equals a producer's key, which is visible ASCII.
#[must_use]
pub fn stream_key(stream_id: &str, sequence: u64) -> String {
    format!("stream {stream_id} {sequence}")
}

impl Event {
    /// Returns the idempotency key that the producer gave.
    #[must_use]
    pub fn producer_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref().filter(|key| !key.contains(' '))
    }

    /// Returns the outcome of routing.
    #[must_use]
    pub fn routing_outcome(&self) -> RoutingOutcome {
        if self.delivery_count == 0 {
            RoutingOutcome::NoSubscription
        } else {
            RoutingOutcome::Routed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_streams_are_no_keys_of_producers() {
        let event = |key: Option<String>| Event {
            id: EventId::new(Timestamp(0), 0),
            project: ProjectId::new(Timestamp(0), 0),
            event_type: String::new(),
            content_type: String::new(),
            payload_size: 0,
            idempotency_key: key,
            headers: BTreeMap::new(),
            metadata: BTreeMap::new(),
            ordering_key: None,
            deliver_at: None,
            delivery_count: 0,
            origin: Origin::Api { actor: String::new() },
            trace: None,
            created_at: Timestamp(0),
            payload_erased_at: None,
        };
        assert_eq!(event(Some(stream_key("run-1", 7))).producer_key(), None);
        assert_eq!(event(Some("run-1/7".to_owned())).producer_key(), Some("run-1/7"));
        assert_eq!(event(None).producer_key(), None);
        // The id has no spaces, so no two places have the same key.
        assert_ne!(stream_key("a", 11), stream_key("a1", 1));
    }
}
