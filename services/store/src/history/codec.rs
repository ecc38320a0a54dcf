//! How values of the model are written in columns: numbers as signed numbers, maps and lists as
//! JSON text, subscription ids as concatenated bytes.

use std::collections::BTreeMap;

use outrider_model::{Event, Origin, SubscriptionId, Trace};

use crate::ledger::LedgerError;

const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// A count as the databases store it. Caps what does not fit, which the limits of the API exclude.
pub(crate) fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Reads a stored count. Negative ones do not occur.
pub(crate) fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// Reads a stored HTTP status.
pub(crate) fn status_code(value: Option<i32>) -> Option<u16> {
    value.and_then(|code| u16::try_from(code).ok())
}

/// Concatenates the ids.
pub(crate) fn subscriptions_to_bytes(subscriptions: &[SubscriptionId]) -> Vec<u8> {
    subscriptions.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// Splits concatenated ids.
pub(crate) fn subscriptions_from_bytes(bytes: &[u8]) -> Vec<SubscriptionId> {
    bytes.chunks_exact(16).filter_map(SubscriptionId::from_bytes).collect()
}

/// A map as JSON text.
pub(crate) fn map_to_json(map: &BTreeMap<String, String>) -> String {
    if map.is_empty() {
        "{}".to_owned()
    } else {
        serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// Parses the JSON text of a map.
pub(crate) fn map_from_json(text: &str) -> Result<BTreeMap<String, String>, serde_json::Error> {
    serde_json::from_str(text)
}

/// Pairs as JSON text.
pub(crate) fn pairs_to_json(pairs: &[(String, String)]) -> String {
    serde_json::to_string(pairs).unwrap_or_else(|_| "[]".to_owned())
}

/// Parses the JSON text of pairs.
pub(crate) fn pairs_from_json(text: &str) -> Result<Vec<(String, String)>, serde_json::Error> {
    serde_json::from_str(text)
}

/// An event's origin as JSON text, tagged with its kind. Contains the event's trace too, if it has
/// one.
pub(crate) fn origin_to_json(event: &Event) -> String {
    let mut json = match &event.origin {
        Origin::Api { actor } => serde_json::json!({ "kind": "api", "actor": actor }),
    };
    if let Some(trace) = &event.trace {
        json[TRACE_PARENT] = trace.parent.as_str().into();
        if !trace.state.is_empty() {
            json[TRACE_STATE] = trace.state.as_str().into();
        }
    }
    json.to_string()
}

/// Parses the JSON text of an origin. None for a kind that only a newer version knows.
pub(crate) fn origin_from_json(text: &str) -> Option<Origin> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    match value.get("kind")?.as_str()? {
        "api" => Some(Origin::Api { actor: value.get("actor")?.as_str()?.to_owned() }),
        _ => None,
    }
}

/// The trace of an event, from its origin.
pub(crate) fn trace_from_json(origin: &str) -> Option<Trace> {
    // Most events have none, which shows without parsing.
    if !origin.contains(TRACE_PARENT) {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(origin).ok()?;
    let text = |key: &str| {
        value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    Some(Trace { parent: text(TRACE_PARENT), state: text(TRACE_STATE) })
        .filter(|trace| !trace.parent.is_empty())
}

/// The error for a stored value that is never written.
pub(crate) fn corrupt(what: &str) -> LedgerError {
    LedgerError::Unavailable(format!("a stored row is malformed: {what}"))
}

/// Reads an [`outrider_model::PendingDelivery`] from a row of either backend.
macro_rules! pending_from_row {
    ($row:expr) => {{
        use sqlx::Row as _;
        let row = $row;
        outrider_model::PendingDelivery {
            id: outrider_model::DeliveryId(row.try_get("id")?),
            project: outrider_model::ProjectId(row.try_get("project_id")?),
            event: outrider_model::EventId(row.try_get("event_id")?),
            event_type: row.try_get("event_type")?,
            endpoint: outrider_model::EndpointId(row.try_get("endpoint_id")?),
            subscriptions: $crate::history::codec::subscriptions_from_bytes(
                row.try_get("subscription_ids")?,
            ),
            replay_number: $crate::history::codec::count(row.try_get("replay_number")?),
            attempt: $crate::history::codec::count(row.try_get("attempt")?),
            due_at: outrider_model::Timestamp(row.try_get("due_at")?),
            queued_epoch: row.try_get("queued_epoch")?,
            generation: $crate::history::codec::count(row.try_get("generation")?),
            check_at: outrider_model::Timestamp(row.try_get("check_at")?),
            created_at: outrider_model::Timestamp(row.try_get("created_at")?),
        }
    }};
}
pub(crate) use pending_from_row;

#[cfg(test)]
mod tests {
    use outrider_model::Timestamp;

    use super::*;

    fn event(origin: Origin, trace: Option<Trace>) -> Event {
        Event {
            id: outrider_model::EventId::new(Timestamp(0), 1),
            project: outrider_model::ProjectId::new(Timestamp(0), 1),
            event_type: String::new(),
            content_type: String::new(),
            payload_size: 0,
            idempotency_key: None,
            headers: BTreeMap::new(),
            metadata: BTreeMap::new(),
            ordering_key: None,
            deliver_at: None,
            delivery_count: 0,
            origin,
            trace,
            created_at: Timestamp(0),
            payload_erased_at: None,
        }
    }

    #[test]
    fn values_come_back_as_they_were() {
        let ids: Vec<SubscriptionId> =
            (1..4).map(|at| SubscriptionId::new(Timestamp(at * 1_000), 7)).collect();
        assert_eq!(subscriptions_from_bytes(&subscriptions_to_bytes(&ids)), ids);
        let map: BTreeMap<String, String> = [("a\0\"".to_owned(), "\u{1f600}".to_owned())].into();
        assert_eq!(map_from_json(&map_to_json(&map)).unwrap(), map);
        let pairs = vec![("x".to_owned(), "1".to_owned()), ("x".to_owned(), "2".to_owned())];
        assert_eq!(pairs_from_json(&pairs_to_json(&pairs)).unwrap(), pairs);
        let origin = Origin::Api { actor: "key_1".to_owned() };
        let trace = Trace { parent: "00-1-2-01".to_owned(), state: "a=\"b".to_owned() };
        for trace in [None, Some(trace)] {
            let json = origin_to_json(&event(origin.clone(), trace.clone()));
            assert_eq!(
                (origin_from_json(&json), trace_from_json(&json)),
                (Some(origin.clone()), trace)
            );
        }
        assert_eq!(trace_from_json(r#"{"kind":"api","actor":"traceparent"}"#), None);
        assert_eq!(origin_from_json(r#"{"kind":"later"}"#), None);
    }
}
