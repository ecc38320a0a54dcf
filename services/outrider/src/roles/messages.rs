//! The sizes of messages between roles. They are not settings: each follows from the limits of its
//! content, so that roles in separate processes accept the same as one process with all roles.

use outrider_model::limits;

use crate::config::Config;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Maximum size of what ingest adds to an event (ids, fingerprint, trace, stream key, media type),
/// including the framing of fields.
const ADDED_TO_EVENT: usize = 2 * KIB;
/// Maximum size of an event without its payload: two maps, and names.
const BESIDE_PAYLOAD: usize = 2 * limits::MAP_BYTES + 4 * KIB + ADDED_TO_EVENT;
/// Maximum size of a report without the response body: response headers, ids, an error, and the
/// framing.
const BESIDE_ANSWER: usize = 64 * KIB;
/// Minimum limit of an answer, whatever the settings are. The largest page of a list is smaller.
const LEAST_ANSWER: usize = 32 * MIB;

/// Maximum sizes of messages between roles, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages {
    /// Events from ingest to dispatch.
    pub intake: usize,
    /// Reports from a worker to dispatch.
    pub reports: usize,
    /// An answer to the gateway, or a message of a stream.
    pub answers: usize,
}

impl Messages {
    /// Derives the sizes from the settings.
    pub fn of(config: &Config) -> Self {
        let (ingest, kept) = (&config.ingest, config.worker.response_kept_bytes);
        let sum = |parts: [usize; 3]| parts.into_iter().fold(0, usize::saturating_add);
        let one_report = kept.saturating_add(BESIDE_ANSWER);
        Self {
            // A batch of a stream may exceed its size by one message.
            intake: sum([
                ingest.max_batch_bytes,
                config.gateway.max_request_bytes,
                limits::BATCH_EVENTS * ADDED_TO_EVENT,
            ]),
            // A report that is larger than a batch goes alone.
            reports: config.worker.report_batch_bytes.saturating_add(one_report),
            answers: LEAST_ANSWER
                .max(ingest.max_payload_bytes.saturating_add(BESIDE_PAYLOAD))
                .max(one_report),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use outrider_proto::internal::AcceptEvent;
    use prost::Message;

    use super::*;

    /// A map with the maximum number of entries and bytes.
    fn full() -> HashMap<String, String> {
        let value = limits::MAP_BYTES / limits::MAP_ENTRIES - 2;
        (0..limits::MAP_ENTRIES).map(|number| (format!("{number:02}"), "v".repeat(value))).collect()
    }

    #[test]
    fn they_follow_the_settings() {
        let mut config = Config::default();
        let defaults = Messages::of(&config);
        assert_eq!(defaults.answers, 32 * MIB);
        config.gateway.max_request_bytes = 96 * MIB;
        config.ingest.max_batch_bytes = 64 * MIB;
        config.ingest.max_payload_bytes = 48 * MIB;
        config.worker.response_kept_bytes = 4 * MIB;
        let raised = Messages::of(&config);
        assert!(raised.intake > 160 * MIB && raised.intake < 163 * MIB, "{raised:?}");
        assert!(raised.reports > 6 * MIB && raised.reports < 7 * MIB, "{raised:?}");
        assert!(raised.answers > 48 * MIB && raised.answers < 49 * MIB, "{raised:?}");
        config.worker.response_kept_bytes = 64 * MIB;
        assert!(Messages::of(&config).answers > 64 * MIB);
        config.gateway.max_request_bytes = usize::MAX;
        assert_eq!(Messages::of(&config).intake, usize::MAX);
    }

    #[test]
    fn the_largest_event_fits() {
        let id = "k".repeat(32);
        let event = AcceptEvent {
            project_id: id.clone(),
            organization_id: id.clone(),
            actor: id,
            event_type: "t".repeat(limits::EVENT_TYPE_BYTES),
            payload: bytes::Bytes::new(),
            content_type: "c".repeat(limits::CONTENT_TYPE_BYTES),
            idempotency_key: "i".repeat(limits::KEY_BYTES),
            fingerprint: vec![0xff; 32].into(),
            headers: full(),
            metadata: full(),
            ordering_key: "o".repeat(limits::KEY_BYTES),
            deliver_at: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX }),
            traceparent: "t".repeat(55),
            tracestate: "s".repeat(512),
        };
        assert!(event.encoded_len() <= BESIDE_PAYLOAD, "{}", event.encoded_len());
        // The part that the caller's own message contained.
        let given = AcceptEvent {
            project_id: String::new(),
            organization_id: String::new(),
            actor: String::new(),
            content_type: String::new(),
            fingerprint: bytes::Bytes::new(),
            traceparent: String::new(),
            tracestate: String::new(),
            ..event.clone()
        };
        assert!(event.encoded_len() - given.encoded_len() <= ADDED_TO_EVENT);
    }
}
